"""Neuron support with the length divided out: few neurons per response token first (method, section 10)."""

import polars as pl

from pipeline.selection.rule import Signals


def neuron_support_per_token(signals: Signals) -> pl.DataFrame:
    """Score a question by the mean over its rollouts of |N| / response tokens (neurons per token).

    A rollout that no neuron supports does not count, as in ``neuron_support``.
    """
    supported = pl.when(pl.col("n_neurons") > 0).then("n_neurons")
    return signals.mean_over_rollouts(supported / pl.col("n_response_tokens")).rename({"mean": "score"})
