"""The confidences in a question that evaluation sets side by side: option probability, vote share and P(True).

All are tables of (model, split, id, confidence, correct), sorted, with ``correct`` as a number in [0, 1]: in a tie its
expected value, the share of the tied leaders that are right.
"""

import polars as pl

from pipeline.answers.equivalence import normalised

_QUESTION = ["model", "split", "id"]
_ROUNDING = 1e-6  # probabilities come as float32, and the order of the samples rounds their mean


def option_confidence(predictions: pl.DataFrame) -> pl.DataFrame:
    """Return, per question, the leading option's mean probability over the rollouts and whether that option is right.

    After a rationale the probability of the option that it ends in is near 1 and says nothing of the model's doubt; the
    mean over rationales does. Rollouts without option probabilities (abstentions, statements that no token tells) are
    left out of the mean; questions without any, and open ones, have no row.
    """
    judged = predictions.drop_nulls(["option_probs", "gold_index"]).sort(*_QUESTION, "sample")
    options = judged.select(
        *_QUESTION,
        "gold_index",
        option=pl.int_ranges(pl.col("option_probs").list.len()),
        probability=pl.col("option_probs").cast(pl.List(pl.Float64)),
    ).explode("option", "probability", empty_as_null=False)
    means = options.group_by(*_QUESTION, "option", maintain_order=True).agg(
        pl.col("probability").mean(), correct=(pl.col("option") == pl.col("gold_index")).first()
    )
    leads = pl.col("probability") >= pl.col("probability").max().over(_QUESTION) - _ROUNDING
    leaders = means.filter(leads).group_by(_QUESTION)
    return leaders.agg(confidence=pl.col("probability").max(), correct=pl.col("correct").mean()).sort(_QUESTION)


def vote_confidence(predictions: pl.DataFrame) -> pl.DataFrame:
    """Return, per question, the vote share of the leading answer and whether that answer is right.

    The share is over all rollouts, abstentions included. Where all rollouts abstain both are 0.
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


def p_true_confidence(predictions: pl.DataFrame) -> pl.DataFrame:
    """Return, per question that the model was asked about, its P(True) of the majority answer, and whether it is right.

    Without a majority, in a tie for instance, there is no answer to ask about and no row.
    """
    asked = predictions.drop_nulls("p_true").group_by(_QUESTION).agg(confidence=pl.col("p_true").first())
    outcomes = vote_confidence(predictions).select(*_QUESTION, "correct")
    return asked.join(outcomes, on=_QUESTION).sort(_QUESTION)
