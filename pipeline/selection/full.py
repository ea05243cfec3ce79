"""No selection: the whole pool, whatever the budget."""

import polars as pl

from pipeline.selection.rule import Signals


def full(signals: Signals) -> pl.DataFrame:
    """Score every question alike; the rule is listed in ``UNBUDGETED``, so all of them are kept."""
    return signals.pool.select("id", score=pl.lit(0.0))
