"""Split votes first: questions whose answer the model has not settled (u-OPSD, arXiv 2608.06296)."""

import polars as pl

from pipeline.selection.rule import Signals


def disagreement(signals: Signals) -> pl.DataFrame:
    """Score a question by the vote share of its leading answer, abstentions counted against it; none without a vote."""
    return signals.pseudo_labels.filter(pl.col("n_votes") > 0).select("id", score="vote_share")
