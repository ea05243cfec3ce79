"""Questions whose answer the teacher's context changes most first (INFLOW, "Know Thyself, Teach Thyself", 2026)."""

from math import log

import polars as pl

from pipeline.errors import ConfigError
from pipeline.selection.rule import Signals


def belief_shift(signals: Signals) -> pl.DataFrame:
    """Score a question by ln 2 - JSD (nats) of its answers without and with the context; ln 2 is the largest JSD.

    Raises ConfigError when no beliefs were sampled.
    """
    return _missing_to_largest(signals, pl.col("belief_shift"))


def confident_shift(signals: Signals) -> pl.DataFrame:
    """Score a question by ln 2 - JSD x share of the leading answer with the context: a shift towards one answer.

    Raises ConfigError when no beliefs were sampled.
    """
    return _missing_to_largest(signals, pl.col("belief_shift") * pl.col("informed_share"))


def _missing_to_largest(signals: Signals, shift: pl.Expr) -> pl.DataFrame:
    if signals.beliefs.is_empty():
        raise ConfigError(
            "curated_subset.rule reads what the model answers with the teacher's context, and nothing was sampled: "
            "set context_beliefs.n_samples, for instance to rollouts.n_samples"
        )
    return signals.beliefs.select("id", score=log(2) - shift)
