"""Agreement of the votes first: what self-consistency would keep."""

import polars as pl

from pipeline.selection.rule import Signals


def vote_share(signals: Signals) -> pl.DataFrame:
    """Score a question by 1 - vote share, the share of rollouts against the leading answer; none if all abstain."""
    voted = signals.pseudo_labels.filter(pl.col("state") != "all_abstain")
    return voted.select("id", score=1 - pl.col("vote_share"))
