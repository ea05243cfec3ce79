"""Short responses first: the confound of |N| as a rule of its own, so that a comparison can show it (section 10)."""

import polars as pl

from pipeline.selection.rule import Signals


def length(signals: Signals) -> pl.DataFrame:
    """Score a question by the mean length of its rollouts (tokens)."""
    return signals.mean_over_rollouts(pl.col("n_response_tokens")).rename({"mean": "score"})
