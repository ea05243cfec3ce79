"""The model's own certainty first (Intuitor, arXiv 2505.19590)."""

import polars as pl

from pipeline.selection.rule import Signals


def self_certainty(signals: Signals) -> pl.DataFrame:
    """Score a question by what its mean self-certainty over rollouts, KL(uniform, p), lacks to the largest (nats)."""
    means = signals.mean_over_rollouts(pl.col("self_certainty"))
    return means.select("id", score=pl.col("mean").max() - pl.col("mean"))
