"""Which of the new questions may join the next pool: the checks of the pool, and answers that agree."""

import polars as pl

from pipeline.deduplication.config import Comparison
from pipeline.deduplication.contamination import contaminated
from pipeline.deduplication.near_duplicates import near_duplicates
from pipeline.proposals.config import ProposedQuestionsConfig
from pipeline.votes.config import PseudoLabelsConfig
from pipeline.votes.vote import vote

_ASKED = ("id", "question", "options")


def known(new: pl.DataFrame, pool: pl.DataFrame, tests: pl.DataFrame, config: Comparison) -> pl.DataFrame:
    """Return ``id``, ``state`` and ``detail`` (the id it repeats) of new questions that are no news.

    Args:
        new: Different questions, of schema RAW_POOL.
        pool: Questions of the pool, of schema POOL.
        tests: Held-out questions, of schema RAW_POOL; may be empty.
        config: Thresholds of the pool's own checks.
    """
    same = new.join(pool, on="id", how="semi").select("id", state=pl.lit("in_pool"), detail="id")
    left = new.join(same, on="id", how="anti")
    if tests.height and left.height:
        leaked = contaminated(left, tests, config).select("id", state=pl.lit("contaminated"), detail="evaluation_id")
    else:
        leaked = same.clear()
    left = left.join(leaked, on="id", how="anti")
    both = pl.concat([pool.select(_ASKED), left.select(_ASKED)])
    groups = near_duplicates(both, config).select("id", "group").join(pool.select("id", old=True), on="id", how="left")
    # The pool's question is the keeper of its group; of new ones alike the one with the smallest id is.
    keepers = groups.sort("old", "id", nulls_last=True).group_by("group").agg(keeper=pl.col("id").first())
    copies = groups.join(keepers, on="group").filter(pl.col("old").is_null() & (pl.col("id") != pl.col("keeper")))
    copies = copies.select("id", state=pl.lit("near_duplicate"), detail="keeper")
    return pl.concat([same, leaked, copies])


def answerable(ballots: pl.DataFrame, config: ProposedQuestionsConfig) -> pl.DataFrame:
    """Return ``id``, ``state``, ``pseudo_answer`` and ``vote_share`` of questions from the rows of ``ballots``."""
    share = pl.col("vote_share")
    state = (
        pl.when(pl.col("state") != "majority")
        .then(pl.lit("no_majority"))
        .when(share < config.min_vote_share)
        .then(pl.lit("too_few_agree"))
        .when(share > config.max_vote_share)
        .then(pl.lit("too_many_agree"))
        .otherwise(pl.lit("accepted"))
    )
    return vote(ballots, PseudoLabelsConfig()).select("id", "pseudo_answer", "vote_share", state=state)
