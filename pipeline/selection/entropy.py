"""Votes of low entropy first: certainty of the answer, whatever its share among abstentions."""

import polars as pl

from pipeline.selection.rule import Signals


def entropy(signals: Signals) -> pl.DataFrame:
    """Score a question by the entropy of its votes (nats), abstentions left out; none without a vote."""
    return signals.pseudo_labels.filter(pl.col("n_votes") > 0).select("id", score="entropy")
