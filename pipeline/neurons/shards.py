"""The stage ``neuron_scores`` on disk: shard by shard, what came of it, and when too little did.

Pinned by ``tests/neurons/test_score_stage.py``.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import polars as pl
from tqdm import tqdm

from pipeline.artifacts import ArtifactWriter
from pipeline.errors import ArtifactError, ModelError
from pipeline.neurons.config import NeuronScoresConfig
from pipeline.neurons.confounds import describe_confounds
from pipeline.neurons.mui import model_utilization
from pipeline.neurons.score import COLUMNS, NeuronScorer


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
        "model_utilization_index": model_utilization(neurons, scorer.n_neurons),
        **describe_confounds(writer.shards("neuron_sizes")),
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
