"""Key figures of results as single numbers, which Dagster draws over time: out of notes, and out of tables."""

from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any, Final

import polars as pl

from pipeline.generation.generator import LENGTH
from pipeline.predictions.contenders import CONTENDERS
from pipeline.store.artifact import Artifact

_Figures = Mapping[str, pl.Expr]

_RESPONSES: Final = {
    "mean_response_tokens": pl.col("response_ids").list.len().mean(),
    "truncated_share": (pl.col("finish_reason") == LENGTH).mean(),
}
_LAST: Final = {
    f"last_{name}": pl.col(name).drop_nulls().last()
    for name in ("loss", "kl_to_base", "entropy", "response_tokens", "reward")
}
_TABLES: Final[Mapping[tuple[str, str], _Figures]] = {
    ("rollouts", "rollouts"): _RESPONSES,
    ("pseudo_labels", "pseudo_labels"): {
        "majority_share": (pl.col("state") == "majority").mean(),
        "mean_vote_share": pl.col("vote_share").mean(),
        "mean_entropy": pl.col("entropy").mean(),
    },
    ("neuron_scores", "neuron_sizes"): {
        "mean_neurons": pl.col("n_neurons").mean(),
        "mean_participation_ratio": pl.col("participation_ratio").mean(),
        "mean_response_tokens": pl.col("n_response_tokens").mean(),
    },
    ("context_beliefs", "context_beliefs"): {"mean_belief_shift": pl.col("belief_shift").mean()},
    ("curated_subset", "curated_subset"): {
        "selected": pl.col("selected").sum(),
        "mean_score": pl.col("score").fill_nan(None).mean(),
    },
    ("teacher_contexts", "teacher_contexts"): {
        "mean_teacher_tokens": pl.col("n_teacher_tokens").mean(),
        "mean_examples": pl.col("demonstration_ids").list.len().mean(),
        "mean_similarity": pl.col("similarities").list.mean().mean(),
    },
    **{(adapter, "training_log"): _LAST for contender in CONTENDERS for adapter in contender.adapter},
    **{
        (contender.predictions, split): _RESPONSES
        for contender in CONTENDERS
        for split in ("in_domain", "out_of_domain")
    },
    ("merged_model", "merged_model"): {"norm": pl.col("norm").pow(2).sum().sqrt()},
}
"""What is drawn of tables."""
_HEADLINES: Final = ("avg_at_k", "maj_at_k", "ece_option", "ece_vote")
"""Metrics that are drawn of an evaluation, of every model and difference."""


def key_figures(artifact: Artifact) -> dict[str, float | int]:
    """Return an artifact's figures that are finite numbers, by names that say what of."""
    found = {f"{note}/{name}": value for note, tree in artifact.manifest.notes.items() for name, value in _leaves(tree)}
    for (name, table), figures in _TABLES.items():
        if name == artifact.name:
            prefix = f"{table}/" if name.endswith("_predictions") else ""
            row = artifact.scan(table).select(**figures).collect().row(0, named=True)
            found |= {f"{prefix}{figure}": value for figure, value in row.items()}
    if artifact.name == "evaluation":
        metrics = artifact.scan("metrics").filter(pl.col("metric").is_in(_HEADLINES))
        columns = metrics.select("split", "metric", "model", "value").collect().iter_rows()
        found |= {f"{split}/{metric}/{model}": value for split, metric, model, value in columns}
    return {name: value for name, value in found.items() if value is not None and isfinite(value)}


def _leaves(tree: Any) -> Iterator[tuple[str, float | int]]:
    """Yield the numbers in a note that is a tree of names, each by its path."""
    for name, value in tree.items() if isinstance(tree, dict) else ():
        if isinstance(value, dict):
            yield from ((f"{name}/{rest}", number) for rest, number in _leaves(value))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield name, value
