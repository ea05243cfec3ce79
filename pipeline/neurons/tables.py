"""From the scores of batches to the tables of the artifact ``neuron_scores``."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import polars as pl
import pyarrow as pa
import torch
from torch import Tensor

from pipeline.neurons.architecture import MlpStack
from pipeline.neurons.config import NeuronScoresConfig
from pipeline.neurons.reading import Reading
from pipeline.neurons.rollout import Refusal, Rollout
from pipeline.neurons.schemas import NEURON_SCORES, NEURON_SIZES, STEM_SCORES, STEM_STATES, UNSCORED_ROLLOUTS
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
    def of(cls, scored: pl.DataFrame, stems: pl.DataFrame, refused: Sequence[tuple[Rollout, Refusal]]) -> "ScoreTables":
        """Part rows of ``response_table`` and ``stem_table``, all of them finite, beside what was refused."""
        unscored = [(rollout.id, rollout.sample, str(refusal.reason), refusal.detail) for rollout, refusal in refused]
        return cls(
            neuron_scores=scored.select(NEURON_SCORES.names),
            neuron_sizes=scored.select(NEURON_SIZES.names),
            rationale_scores=scored.select("id", "sample", neurons="rationale_neurons", scores="rationale_scores"),
            stem_scores=stems.select(STEM_SCORES.names),
            stem_states=stems.select(STEM_STATES.names),
            unscored_rollouts=pl.DataFrame(unscored, schema=_schema(UNSCORED_ROLLOUTS), orient="row"),
        )


def response_table(responses: Reading, stack: MlpStack, config: NeuronScoresConfig) -> pl.DataFrame:
    """Return the columns ``SCORED``, one row per rollout."""
    (kept, rationale), sizes, rollouts = responses.sets, responses.sizes, responses.rollouts
    per_layer = torch.bincount(
        kept.owners * stack.n_layers + kept.neurons // stack.d_mlp, minlength=len(rollouts) * stack.n_layers
    )
    columns = {
        "row": [rollout.row for rollout in rollouts],
        "finite": (sizes.finite & responses.displacement.isfinite()).numpy(force=True),
        "id": [rollout.id for rollout in rollouts],
        "sample": [rollout.sample for rollout in rollouts],
        "n_neurons": _counts(kept, len(rollouts)).numpy(force=True),
        "n_response_tokens": [len(rollout.response_ids) for rollout in rollouts],
        "score_sum": sizes.score_sum.numpy(force=True),
        "participation_ratio": sizes.participation_ratio.numpy(force=True),
        "entropy_size": sizes.entropy_size.numpy(force=True),
        "layer_counts": _matrix(per_layer.int().reshape(-1, stack.n_layers)),
        "layer_scores": _matrix(sizes.layer_scores.float()),
        "displacement": responses.displacement.numpy(force=True),
        "mean_logprob": [rollout.mean_logprob for rollout in rollouts],
        "self_certainty": [rollout.self_certainty for rollout in rollouts],
    }
    columns |= zip(("neurons", "scores"), _lists(kept, len(rollouts), config), strict=True)
    columns |= zip(("rationale_neurons", "rationale_scores"), _lists(rationale, len(rollouts), config), strict=True)
    return pl.DataFrame(columns, schema=SCORED)


def stem_table(stems: Reading, config: NeuronScoresConfig) -> pl.DataFrame:
    """Return the columns ``STEMS``, one row per stem."""
    neurons, scores = _lists(stems.sets.whole, len(stems.rollouts), config)
    columns = {
        "row": [rollout.row for rollout in stems.rollouts],
        "finite": (stems.sizes.finite & stems.states.isfinite().all(dim=1)).numpy(force=True),
        "id": [rollout.id for rollout in stems.rollouts],
        "neurons": neurons,
        "scores": scores,
        "state": _matrix(stems.states),
    }
    return pl.DataFrame(columns, schema=STEMS)


def _lists(kept: Kept, n_rollouts: int, config: NeuronScoresConfig) -> tuple[pl.Series, pl.Series]:
    """Return list columns of neurons and of their scores, as they are stored."""
    stored = kept.scores.clamp(*_HALF).half().float() if config.score_dtype == "float16" else kept.scores
    counts = _counts(kept, n_rollouts)
    return _as_lists(kept.neurons.int(), counts), _as_lists(stored, counts)


def _matrix(values: Tensor) -> pl.Series:
    """Return a list column of the rows of ``values [R, n]``."""
    return _as_lists(values.flatten(), torch.full((len(values),), values.shape[1], device=values.device))


def _counts(kept: Kept, n_rollouts: int) -> Tensor:
    return torch.bincount(kept.owners, minlength=n_rollouts)


def _as_lists(values: Tensor, counts: Tensor) -> pl.Series:
    """Return a list column of consecutive ``values``, ``counts`` of them per row."""
    offsets = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
    lists = pa.LargeListArray.from_arrays(pa.array(offsets.numpy(force=True)), pa.array(values.numpy(force=True)))
    return pl.Series(values=lists)


def _schema(table: pa.Schema) -> pl.Schema:
    return pl.DataFrame(table.empty_table()).schema


_SOURCE: Final = {"row": pl.Int64(), "finite": pl.Boolean()}
"""The row that a rollout comes from, and whether its figures are finite."""
SCORED: Final = pl.Schema(
    {
        **_SOURCE,
        **_schema(NEURON_SCORES),
        **_schema(NEURON_SIZES),
        "rationale_neurons": pl.List(pl.Int32),
        "rationale_scores": pl.List(pl.Float32),
    }
)
"""Columns of scored responses."""
STEMS: Final = pl.Schema({**_SOURCE, **_schema(STEM_SCORES), **_schema(STEM_STATES)})
"""Columns of scored stems."""
