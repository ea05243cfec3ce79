"""The stage ``neuron_scores``: shard by shard, what came of it, and when too little did.

Pinned by ``tests/neurons/test_score_stage.py``.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import groupby
from operator import itemgetter
from typing import Any

import polars as pl

from pipeline.digests import digest_json
from pipeline.errors import ArtifactError
from pipeline.models import load_model
from pipeline.neurons.config import NeuronScoresConfig
from pipeline.neurons.confounds import describe_confounds
from pipeline.neurons.mui import model_utilization
from pipeline.neurons.score import NeuronScorer, scorable
from pipeline.neurons.unscored import check_unscored
from pipeline.stage import Task
from pipeline.store.artifact import Artifact


def run(task: Task[NeuronScoresConfig]) -> None:
    """Score the neurons behind every rollout; memory is that of a shard.

    A question's rows are taken over where its rollouts have been scored before. Raises ModelError when too few
    rollouts can be scored.
    """
    rollouts = _Rollouts(task.inputs["rollouts"], task.inputs["answers"])
    keys = rollouts.keys()

    @cache
    def scorer() -> NeuronScorer:
        return NeuronScorer(load_model(task.model), task.section)

    def compute(ids: Sequence[str], done: Callable[[float], object]) -> Mapping[str, pl.DataFrame]:
        rows = rollouts.read(ids)
        share = len(ids) / max(rows.height, 1)
        return scorer().score(rows, lambda n: done(n * share))._asdict()

    stack = scorer().stack
    task.writer.footer |= {"n_layers": str(stack.n_layers), "d_mlp": str(stack.d_mlp)}
    recipe = {"settings": task.section.material()}
    task.make_shards(tuple(task.writer.tables), keys, recipe, ("pipeline.neurons.score",), compute)
    task.writer.notes = _summarise(task, rollouts.n_rows, scorer().n_neurons)
    check_unscored(task.writer.notes, task.section)


class _Rollouts:
    """Rollouts and the places of their answers, found by question."""

    def __init__(self, rollouts: Artifact, answers: Artifact) -> None:
        self.shards = list(zip(rollouts.scan_shards(), answers.scan_shards(), strict=True))
        self.n_rows = 0
        self._shard_of: dict[str, int] = {}

    def keys(self) -> dict[str, str]:
        """Return a digest of what is scored of each question."""
        keys = {}
        for number in range(len(self.shards)):
            rows = self._read(number)
            self.n_rows += rows.height
            for question, own in groupby(rows.iter_rows(), key=itemgetter(0)):  # shards are sorted by question
                self._shard_of[question] = number
                keys[question] = digest_json(list(own))[:32]
        return keys

    def read(self, ids: Sequence[str]) -> pl.DataFrame:
        """Return the rows of some questions."""
        wanted = pl.Series(list(ids)).implode()
        numbers = sorted({self._shard_of[question] for question in ids})
        return pl.concat([self._read(number).filter(pl.col("id").is_in(wanted)) for number in numbers])

    def _read(self, number: int) -> pl.DataFrame:
        return scorable(*self.shards[number]).collect()


def _summarise(task: Task[NeuronScoresConfig], n_rollouts: int, n_neurons: int) -> dict[str, Any]:
    """Return the figures of all shards; raises ArtifactError unless they account for every rollout once."""
    writer = task.writer
    stored = {
        table: sum(pl.scan_parquet(path).select(pl.len()).collect().item() for path in writer.shards(table))
        for table in writer.tables
    }
    per_rollout = {stored[table] for table in ("neuron_scores", "neuron_sizes", "rationale_scores")}
    if per_rollout != {n_rollouts - stored["unscored_rollouts"]} or stored["stem_scores"] != stored["stem_states"]:
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
        "model_utilization_index": model_utilization(neurons, n_neurons),
        **describe_confounds(writer.shards("neuron_sizes")),
    }
