"""Stage ``pseudo_labels``: the majority answer of a question's rollouts, and how united they are.

Votes are counted by the text of an option, which is its identity, and by the normal form of an open answer, so that
"1/2" and "0.5" vote together. Ties and abstentions are states of their own and leave no pseudo-label. Pinned by a plain
loop in ``tests/votes/test_vote.py``.
"""

import polars as pl

from pipeline.answers.equivalence import normalised
from pipeline.votes.config import PseudoLabelsConfig
from pipeline.votes.schemas import PSEUDO_LABELS


def ballots(rollouts: pl.LazyFrame, answers: pl.LazyFrame) -> pl.DataFrame:
    """Return what votes are counted of, one row per rollout, from tables of schemas ROLLOUTS and ANSWERS.

    Columns: ``id``, ``sample``, ``answer``, ``answer_index``, ``finish_reason`` and ``mean_logprob`` (of the response
    tokens, nats; null without response).
    """
    sampled = rollouts.select("id", "sample", "finish_reason", mean_logprob=pl.col("logprobs").list.mean())
    stated = answers.select("id", "sample", "answer", "answer_index")
    return stated.join(sampled, on=["id", "sample"], maintain_order="left").collect()


def vote(answers: pl.DataFrame, config: PseudoLabelsConfig) -> pl.DataFrame:
    """Return one row of the ``pseudo_labels`` schema per question, sorted by id, from the rows of ``ballots``.

    The state is ``majority``, ``tie``, ``all_abstain``, or ``too_few_votes`` where there are votes but fewer than
    ``config.min_votes``. Without votes all figures are 0.
    """
    questions = answers.group_by("id").agg(
        n_votes=pl.col("answer").count(), n_abstentions=pl.col("answer").null_count()
    )
    labelled = questions.join(_summarise(_count(answers)), on="id", how="left").with_columns(
        state=pl.when(pl.col("n_votes") == 0)
        .then(pl.lit("all_abstain"))
        .when(pl.col("n_votes") < config.min_votes)
        .then(pl.lit("too_few_votes"))
        .when(pl.col("first") == pl.col("second"))
        .then(pl.lit("tie"))
        .otherwise(pl.lit("majority"))
    )
    n_rollouts = pl.col("n_votes") + pl.col("n_abstentions")
    decided = pl.when(pl.col("state") == "majority")
    return (
        labelled.with_columns(
            *[decided.then(pl.col(name)) for name in ("pseudo_answer", "pseudo_index", "representative")],
            vote_share=pl.col("first").fill_null(0) / n_rollouts,
            margin=(pl.col("first") - pl.col("second")).fill_null(0) / n_rollouts,
            entropy=pl.col("entropy").fill_null(0.0),
            effective_votes=pl.col("entropy").exp().fill_null(0.0),
        )
        .select(PSEUDO_LABELS.names)
        .sort("id")
    )


def _count(answers: pl.DataFrame) -> pl.DataFrame:
    """Return votes, option index and representative sample of every answer, most votes first within a question.

    Of equal open answers, the spelling is the representative sample's.
    """
    is_open = pl.col("answer_index").is_null()
    return (
        answers.filter(pl.col("answer").is_not_null())
        .with_columns(
            key=pl.when(is_open).then(normalised("answer")).otherwise("answer"),
            confidence=pl.col("mean_logprob").fill_null(-float("inf")),
        )
        .sort("id", "key", "confidence", "sample", descending=[False, False, True, False])
        .group_by("id", "key", maintain_order=True)
        .agg(pl.col("answer", "answer_index", "sample").first(), votes=pl.len().cast(pl.Int64))
        .sort("id", "votes", "key", descending=[False, True, False])
    )


def _summarise(counts: pl.DataFrame) -> pl.DataFrame:
    """Return the two largest votes, the entropy (nats) and the leading answer of every question with votes."""
    share = pl.col("votes") / pl.col("votes").sum()
    return counts.group_by("id", maintain_order=True).agg(
        first=pl.col("votes").first(),
        second=pl.col("votes").get(1, null_on_oob=True).fill_null(0),
        entropy=(share * (1 / share).log()).sum(),
        pseudo_answer=pl.col("answer").first(),
        pseudo_index=pl.col("answer_index").first(),
        representative=pl.col("sample").first(),
    )
