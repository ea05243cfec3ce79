"""From the scores of batches to the tables of the artifact ``neuron_scores``."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import polars as pl
import pyarrow as pa
import torch
from torch import Tensor

from pipeline.neurons.architecture import MlpStack
from pipeline.neurons.batch import BatchScores
from pipeline.neurons.config import NeuronScoresConfig
from pipeline.neurons.rollout import Refusal, Rollout
from pipeline.neurons.schemas import NEURON_SCORES, NEURON_SIZES, UNSCORED_ROLLOUTS
from pipeline.neurons.topk import Kept

_HALF = (2.0**-24, 65_504.0)
"""Smallest and largest positive float16: a positive score stays one."""


class ScoreTables(NamedTuple):
    """Tables of the artifact ``neuron_scores``; every rollout is in each of the first three, or in the last."""

    neuron_scores: pl.DataFrame
    """Neuron sets of the responses, of schema NEURON_SCORES."""
    neuron_sizes: pl.DataFrame
    """Sizes and other signals, of schema NEURON_SIZES."""
    rationale_scores: pl.DataFrame
    """Neuron sets of the responses without the stated answer, of schema RATIONALE_SCORES."""
    stem_scores: pl.DataFrame
    """Neuron sets of the questions' stems, of schema STEM_SCORES."""
    stem_states: pl.DataFrame
    """Mean hidden states of the stems, of schema STEM_STATES."""
    unscored_rollouts: pl.DataFrame
    """Rollouts that could not be scored, of schema UNSCORED_ROLLOUTS."""

    @classmethod
    def of(cls, scored: pl.DataFrame, refused: Sequence[tuple[Rollout, Refusal]]) -> "ScoreTables":
        """Part rows of ``batch_table``, all of them finite, into tables, beside what was refused."""
        stems = scored.filter("has_stem")
        unscored = [(rollout.id, rollout.sample, str(refusal.reason), refusal.detail) for rollout, refusal in refused]
        return cls(
            neuron_scores=scored.select(NEURON_SCORES.names),
            neuron_sizes=scored.select(NEURON_SIZES.names),
            rationale_scores=scored.select("id", "sample", neurons="rationale_neurons", scores="rationale_scores"),
            stem_scores=stems.select("id", neurons="stem_neurons", scores="stem_scores"),
            stem_states=stems.select("id", state="stem_state"),
            unscored_rollouts=pl.DataFrame(
                unscored, schema=pl.DataFrame(UNSCORED_ROLLOUTS.empty_table()).schema, orient="row"
            ),
        )


def batch_table(
    batch: Sequence[Rollout], scores: BatchScores, stack: MlpStack, config: NeuronScoresConfig
) -> pl.DataFrame:
    """Return the columns ``SCORED``, one row per rollout: those without a stem have empty lists in its place."""
    kept, sizes, stems = scores.sets.whole, scores.sizes, scores.stems
    per_layer = torch.bincount(
        kept.owners * stack.n_layers + kept.neurons // stack.d_mlp, minlength=len(batch) * stack.n_layers
    )
    every_layer = torch.full((len(batch),), stack.n_layers, device=kept.owners.device)
    has_stem = torch.bincount(stems.rows[stems.finite], minlength=len(batch))
    state_widths = torch.bincount(stems.rows, minlength=len(batch)) * stems.states.shape[1]
    columns = {
        "row": [rollout.row for rollout in batch],
        "finite": scores.finite.numpy(force=True),
        "id": [rollout.id for rollout in batch],
        "sample": [rollout.sample for rollout in batch],
        "n_neurons": _counts(kept, len(batch)).numpy(force=True),
        "n_response_tokens": [len(rollout.response_ids) for rollout in batch],
        "score_sum": sizes.score_sum.numpy(force=True),
        "participation_ratio": sizes.participation_ratio.numpy(force=True),
        "entropy_size": sizes.entropy_size.numpy(force=True),
        "layer_counts": _as_lists(per_layer.int(), every_layer),
        "layer_scores": _as_lists(sizes.layer_scores.flatten().float(), every_layer),
        "displacement": scores.displacement.numpy(force=True),
        "mean_logprob": [rollout.mean_logprob for rollout in batch],
        "self_certainty": [rollout.self_certainty for rollout in batch],
        "has_stem": has_stem.bool().numpy(force=True),
        "stem_state": _as_lists(stems.states.flatten(), state_widths),
    }
    for prefix, part in (("", kept), ("rationale_", scores.sets.rationale), ("stem_", stems.kept)):
        stored = part.scores.clamp(*_HALF).half().float() if config.score_dtype == "float16" else part.scores
        columns[f"{prefix}neurons"] = _as_lists(part.neurons.int(), _counts(part, len(batch)))
        columns[f"{prefix}scores"] = _as_lists(stored, _counts(part, len(batch)))
    return pl.DataFrame(columns, schema=SCORED)


def _counts(kept: Kept, n_rollouts: int) -> Tensor:
    return torch.bincount(kept.owners, minlength=n_rollouts)


def _as_lists(values: Tensor, counts: Tensor) -> pl.Series:
    """Return a list column of consecutive ``values``, ``counts`` of them per row."""
    offsets = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
    lists = pa.LargeListArray.from_arrays(pa.array(offsets.numpy(force=True)), pa.array(values.numpy(force=True)))
    return pl.Series(values=lists)


_SETS: Final[dict[str, pl.DataType]] = {
    f"{prefix}{name}": kind
    for prefix in ("rationale_", "stem_")
    for name, kind in (("neurons", pl.List(pl.Int32)), ("scores", pl.List(pl.Float32)))
}
SCORED: Final = pl.Schema(
    {
        "row": pl.Int64(),
        "finite": pl.Boolean(),
        **pl.DataFrame(NEURON_SCORES.empty_table()).schema,
        **pl.DataFrame(NEURON_SIZES.empty_table()).schema,
        **_SETS,
        "has_stem": pl.Boolean(),
        "stem_state": pl.List(pl.Float32),
    }
)
"""Columns of a scored batch: the row that each rollout comes from, whether its figures are finite, and the tables'."""
