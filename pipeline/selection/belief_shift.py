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


def new_answer(signals: Signals) -> pl.DataFrame:
    """Score a question by 1 - share of the leading answer with the context; 1 if it is the model's own vote, or tied.

    Raises ConfigError when no beliefs were sampled.
    """
    votes = signals.pseudo_labels.select("id", "pseudo_answer")
    is_new = pl.col("informed_answer").is_not_null() & pl.col("informed_answer").ne_missing(pl.col("pseudo_answer"))
    share = pl.when(is_new).then("informed_share").otherwise(0.0)
    compared = sampled_beliefs(signals).join(votes, on="id", how="left")
    return compared.select("id", score=pl.when(pl.col("informed_share").is_not_null()).then(1 - share))


def sampled_beliefs(signals: Signals) -> pl.DataFrame:
    """Return the beliefs; raises ConfigError when none were sampled."""
    if signals.beliefs.is_empty():
        raise ConfigError(
            "curated_subset.rule reads what the model answers with the teacher's context, and nothing was sampled: "
            "set context_beliefs.n_samples, for instance to rollouts.n_samples"
        )
    return signals.beliefs


def _missing_to_largest(signals: Signals, shift: pl.Expr) -> pl.DataFrame:
    return sampled_beliefs(signals).select("id", score=log(2) - shift)
