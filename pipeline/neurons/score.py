"""Stage ``neuron_scores``: run each rollout through the model once more and keep the neurons that carry its tokens.

Every rollout comes back, scored or refused with a reason, in the order in which it was given; neither the batch budget
nor the other rows change a row beyond the rounding of the forward pass itself. Pinned by
``tests/neurons/test_score.py``.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa
import torch
from torch import Tensor
from tqdm import tqdm

from pipeline.artifacts import ArtifactWriter
from pipeline.batching import TokenBudget
from pipeline.config import NeuronScoresConfig
from pipeline.errors import ArtifactError, ModelError
from pipeline.models import LanguageModel
from pipeline.neurons.architecture import MlpStack, find_mlp_stack
from pipeline.neurons.batch import BatchScores, score_batch
from pipeline.neurons.mui import model_utilization
from pipeline.neurons.rollout import Limits, Reason, Refusal, Rollout
from pipeline.schemas import NEURON_SCORES, NEURON_SIZES, UNSCORED_ROLLOUTS

_HALF = (2.0**-24, 65_504.0)
"""Smallest and largest positive float16: a positive score stays one."""
COLUMNS = ("id", "sample", "prompt_ids", "response_ids", "logprobs", "self_certainty")
"""Columns of ``rollouts`` that scoring reads."""


class ScoreTables(NamedTuple):
    """Tables of the artifact ``neuron_scores``; every rollout is in the first two, or in the last."""

    neuron_scores: pl.DataFrame
    """Neuron sets, of schema NEURON_SCORES."""
    neuron_sizes: pl.DataFrame
    """Sizes and other signals, of schema NEURON_SIZES."""
    unscored_rollouts: pl.DataFrame
    """Rollouts that could not be scored, of schema UNSCORED_ROLLOUTS."""


class NeuronScorer:
    """Scores rollouts with one model; the batch budget, once lowered for want of memory, stays lowered."""

    def __init__(self, language_model: LanguageModel, config: NeuronScoresConfig) -> None:
        """Find the model's MLPs; raises UnsupportedModelError for a model whose neurons cannot be scored."""
        self.stack = find_mlp_stack(language_model.model)
        self.config = config
        self._limits = Limits.of(language_model)
        self.budget = TokenBudget(config.batch_tokens)

    @property
    def n_neurons(self) -> int:
        """Neurons of the model."""
        return self.stack.n_layers * self.stack.d_mlp

    def score(self, rollouts: pl.DataFrame, done: Callable[[int], object] = lambda _: None) -> ScoreTables:
        """Return the tables for rows with the columns ``COLUMNS``, telling ``done`` how many more are finished.

        Raises ModelError when one rollout alone exceeds the device's memory. Memory is that of ``rollouts``, their
        neuron sets and one batch.
        """
        given = _read(rollouts)
        refusals = {rollout.row: refusal for rollout in given if (refusal := self._limits.refuse(rollout))}
        done(len(refusals))
        readable = [rollout for rollout in given if rollout.row not in refusals]
        readable.sort(key=lambda rollout: (rollout.n_tokens, rollout.id, rollout.sample))
        tables = [_EMPTY]
        # LongRoPE chooses its factors by the longest row of a batch, so no batch may have rows on both sides.
        switch = bisect_right(readable, self._limits.rope_switch or self._limits.context, key=_n_tokens)
        for group in (readable[:switch], readable[switch:]):
            for batch, table in self.budget.run(group, _n_tokens, self._score):
                tables.append(table)
                done(len(batch))
        scored = pl.concat(tables).sort("row")
        not_finite = Refusal(
            Reason.NOT_FINITE,
            f"activations are not finite in {str(self.stack.W_U.dtype).removeprefix('torch.')}: set model.dtype to "
            "bfloat16 or float32 and sample the rollouts again, or mend the weights",
        )
        refusals |= dict.fromkeys(scored.filter(~pl.col("finite"))["row"], not_finite)
        return ScoreTables(
            scored.filter("finite").select(NEURON_SCORES.names),
            scored.filter("finite").select(NEURON_SIZES.names),
            _unscored([(given[row], refusals[row]) for row in sorted(refusals)]),
        )

    def _score(self, batch: Sequence[Rollout]) -> pl.DataFrame:
        return _table(batch, score_batch(batch, self.stack, self.config), self.stack, self.config)


def score_shards(rollouts: pl.LazyFrame, scorer: NeuronScorer, writer: ArtifactWriter) -> None:
    """Score a table of schema ROLLOUTS into shards, leaving out those that the writer has, and note what came of it.

    Memory is that of one shard, whatever the number of rollouts. Raises ModelError when a larger share than
    ``max_unscored_share`` cannot be scored.
    """
    config, n_rollouts = scorer.config, rollouts.select(pl.len()).collect().item()
    writer.footer |= {"n_layers": str(scorer.stack.n_layers), "d_mlp": str(scorer.stack.d_mlp)}
    with tqdm(total=n_rollouts, desc="neuron scores", unit="rollout", mininterval=1) as bar:
        for number, start in enumerate(range(0, n_rollouts, config.shard_rollouts)):
            if writer.has_shard(number):
                bar.update(min(config.shard_rollouts, n_rollouts - start))
                continue
            try:
                rows = rollouts.select(COLUMNS).slice(start, config.shard_rollouts).collect()
            except pl.exceptions.ComputeError as error:
                raise ArtifactError(
                    f"rollouts from row {start} cannot be read: materialize 'rollouts' again"
                ) from error
            writer.write_shard(number, scorer.score(rows, bar.update)._asdict())
    writer.notes = _summarise(writer, n_rollouts, scorer)
    check_unscored(writer.notes, config)


def _summarise(writer: ArtifactWriter, n_rollouts: int, scorer: NeuronScorer) -> dict[str, Any]:
    """Return the figures of all shards; raises ArtifactError unless they account for every rollout once."""
    stored = writer.rows()
    if not stored["neuron_scores"] == stored["neuron_sizes"] == n_rollouts - stored["unscored_rollouts"]:
        raise ArtifactError(
            f"neuron_scores: {stored} rows of {n_rollouts} rollouts: delete {writer.folder} and materialize "
            "'neuron_scores' again"
        )
    unscored: Counter[str] = Counter()
    for shard in writer.shards("unscored_rollouts"):
        unscored.update(pl.read_parquet(shard, columns=["reason"])["reason"])
    neurons = (pl.read_parquet(shard, columns=["neurons"]) for shard in writer.shards("neuron_scores"))
    return {
        "rollouts": n_rollouts,
        "scored": stored["neuron_scores"],
        "unscored": dict(sorted(unscored.items())),
        "model_utilization_index": model_utilization(neurons, scorer.n_neurons),
    }


def check_unscored(notes: Mapping[str, Any], config: NeuronScoresConfig) -> None:
    """Raise ModelError when a larger share of the rollouts than allowed cannot be scored, by the artifact's notes."""
    n_rollouts, unscored = notes["rollouts"], notes["rollouts"] - notes["scored"]
    share = unscored / max(n_rollouts, 1)
    if share > config.max_unscored_share:
        reasons = ", ".join(f"{reason} {count}" for reason, count in notes["unscored"].items())
        raise ModelError(
            f"{unscored} of {n_rollouts} rollouts cannot be scored ({share:.1%}, allowed "
            f"{config.max_unscored_share:.1%}): {reasons}; mend the model, sample again with model.dtype=float32, or "
            "raise neuron_scores.max_unscored_share"
        )


def _n_tokens(rollout: Rollout) -> int:
    return rollout.n_tokens


def _read(rollouts: pl.DataFrame) -> list[Rollout]:
    columns = rollouts.select(
        "id",
        "sample",
        "prompt_ids",
        "response_ids",
        "self_certainty",
        mean_logprob=pl.col("logprobs").list.mean().fill_nan(None),
    )
    return [Rollout(row=row, **values) for row, values in enumerate(columns.iter_rows(named=True))]


def _table(batch: Sequence[Rollout], scores: BatchScores, stack: MlpStack, config: NeuronScoresConfig) -> pl.DataFrame:
    """Return the columns of both tables, the row that each rollout comes from, and whether its figures are finite."""
    kept, sizes = scores.kept, scores.sizes
    counts = torch.bincount(kept.owners, minlength=len(batch))
    per_layer = torch.bincount(
        kept.owners * stack.n_layers + kept.neurons // stack.d_mlp, minlength=len(batch) * stack.n_layers
    )
    every_layer = torch.full_like(counts, stack.n_layers)
    stored = kept.scores.clamp(*_HALF).half().float() if config.score_dtype == "float16" else kept.scores
    columns = {
        "row": [rollout.row for rollout in batch],
        "finite": scores.finite.numpy(force=True),
        "id": [rollout.id for rollout in batch],
        "sample": [rollout.sample for rollout in batch],
        "neurons": _as_lists(kept.neurons.int(), counts),
        "scores": _as_lists(stored, counts),
        "n_neurons": counts.numpy(force=True),
        "n_response_tokens": [len(rollout.response_ids) for rollout in batch],
        "score_sum": sizes.score_sum.numpy(force=True),
        "participation_ratio": sizes.participation_ratio.numpy(force=True),
        "entropy_size": sizes.entropy_size.numpy(force=True),
        "layer_counts": _as_lists(per_layer.int(), every_layer),
        "layer_scores": _as_lists(sizes.layer_scores.flatten().float(), every_layer),
        "displacement": scores.displacement.numpy(force=True),
        "mean_logprob": [rollout.mean_logprob for rollout in batch],
        "self_certainty": [rollout.self_certainty for rollout in batch],
    }
    return pl.DataFrame(columns, schema=_EMPTY.schema)


def _as_lists(values: Tensor, counts: Tensor) -> pl.Series:
    """Return a list column of consecutive ``values``, ``counts`` of them per row."""
    offsets = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
    lists = pa.LargeListArray.from_arrays(pa.array(offsets.numpy(force=True)), pa.array(values.numpy(force=True)))
    return pl.Series(values=lists)


def _unscored(refused: Sequence[tuple[Rollout, Refusal]]) -> pl.DataFrame:
    rows = [(rollout.id, rollout.sample, str(refusal.reason), refusal.detail) for rollout, refusal in refused]
    return pl.DataFrame(rows, schema=pl.DataFrame(UNSCORED_ROLLOUTS.empty_table()).schema, orient="row")


_EMPTY = pl.DataFrame(
    schema={
        "row": pl.Int64,
        "finite": pl.Boolean,
        **pl.DataFrame(NEURON_SCORES.empty_table()).schema,
        **pl.DataFrame(NEURON_SIZES.empty_table()).schema,
    }
)
"""Columns of a scored batch."""
