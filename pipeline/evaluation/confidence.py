"""The two confidences that evaluation sets side by side: option-token probability and vote share.

Both are tables of (model, split, id, confidence, correct), sorted, with ``correct`` as a number in [0, 1].
"""

import polars as pl

from pipeline.rollouts.equivalence import normalised

_QUESTION = ["model", "split", "id"]


def option_confidence(predictions: pl.DataFrame) -> pl.DataFrame:
    """Return, per rollout, the probability of the option it states and whether that option is right.

    The stated option, not the likeliest one: of a sampled answer only its own probability can be calibrated.
    Rollouts without one (abstentions, open questions, options stated without a letter) have no row.
    """
    stated = pl.col("option_probs").list.get(pl.col("answer_index"), null_on_oob=True).cast(pl.Float64)
    rows = predictions.sort(*_QUESTION, "sample").select(
        *_QUESTION, confidence=stated, correct=pl.col("correct").cast(pl.Float64)
    )
    return rows.drop_nulls("confidence")


def vote_confidence(predictions: pl.DataFrame) -> pl.DataFrame:
    """Return, per question, the vote share of the leading answer and whether that answer is right.

    The share is over all rollouts, abstentions included. In a tie ``correct`` is its expected value, the share of
    the tied leaders that are right. Where all rollouts abstain both are 0.
    """
    votes = (
        predictions.with_columns(key=normalised("answer"))
        .drop_nulls("key")
        .group_by(*_QUESTION, "answer_index", "key")
        .agg(pl.len().alias("votes"), pl.col("correct").cast(pl.Float64).max())
    )
    leaders = (
        votes.filter(pl.col("votes") == pl.col("votes").max().over(_QUESTION))
        .group_by(_QUESTION)
        .agg(pl.col("votes").first(), pl.col("correct").mean())
    )
    return (
        predictions.group_by(_QUESTION)
        .agg(pl.len().alias("k"))
        .join(leaders, on=_QUESTION, how="left")
        .select(
            *_QUESTION,
            confidence=(pl.col("votes") / pl.col("k")).fill_null(0.0),
            correct=pl.col("correct").fill_null(0.0),
        )
        .sort(_QUESTION)
    )
