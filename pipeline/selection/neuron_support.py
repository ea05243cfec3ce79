"""The paper's rule: concentrated neuron support first (arXiv 2607.02460)."""

import polars as pl

from pipeline.selection.rule import Signals


def neuron_support(signals: Signals) -> pl.DataFrame:
    """Score a question by the mean of |N| over its rollouts (neurons); none without a neuron that supports any.

    A rollout without positive contribution has no neurons to count: as |N| = 0 it would look like the best support.
    """
    scored = signals.neuron_sizes.filter(pl.col("n_neurons") > 0)
    return scored.group_by("id").agg(score=pl.col("n_neurons").mean())
