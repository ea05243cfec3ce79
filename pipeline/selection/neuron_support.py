"""The paper's rule: concentrated neuron support first (arXiv 2607.02460)."""

import polars as pl

from pipeline.selection.rule import Signals


def neuron_support(signals: Signals) -> pl.DataFrame:
    """Score a question by the mean of |N| over its rollouts (neurons); none without a scored response token.

    A rollout without response tokens has no neurons to count: as |N| = 0 it would look like the best support of all.
    """
    scored = signals.neuron_sizes.filter(pl.col("n_response_tokens") > 0)
    return scored.group_by("id").agg(score=pl.col("n_neurons").mean())
