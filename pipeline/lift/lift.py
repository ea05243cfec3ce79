"""Do examples tell the model anything? Answers that independent examples confirm, against wrong examples.

That a context makes answers more united says little: examples that repeat the model's vote do, and questions chosen for
what their context did to them look moved whatever it is. So an answer counts if it is *new*, that is not the model's
own vote, and *confirmed*: given with the question's own examples as well as with further ones that have none in common
with them. How often that happens by chance, because any examples unsettle the model towards the same answers, is what
another question's examples in the place of either tell. ``benchmarks.lift`` compared this statistic with others, and
its verdict with gold. Pinned by a plain loop in ``tests/lift/test_lift.py``.
"""

from typing import Any, Final, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.answers.equivalence import normalised
from pipeline.beliefs.beliefs import compare_beliefs
from pipeline.lift.config import TeacherLiftConfig
from pipeline.lift.schemas import LIFT_ANSWERS, TEACHER_LIFT
from pipeline.lift.trials import FURTHER, OWN, TRIED, WRONG
from pipeline.rollouts.schemas import UNANSWERED
from pipeline.seeding import derive_seed
from pipeline.votes.config import PseudoLabelsConfig
from pipeline.votes.vote import vote

GO, NO_LIFT, CANNOT_TELL = "go", "no lift", "cannot tell"
NONE: Final = "none"
WORTH: Final = 0.03
"""Smallest lift that counts (share of pairs); chosen in sight of seed 0 of three reference worlds, where examples that
help lift by .03 to .25 and others by up to .03: wrong examples also cost answers altogether (``benchmarks.lift``)."""
FEWEST: Final = 20
"""Questions for a verdict; own choice: a percentile interval of fewer is too narrow."""
_FIGURES: Final = ("agreement", "confidence", "abstention", "belief_shift")
_PAIRS: Final = ((OWN, FURTHER), (OWN, WRONG), (FURTHER, WRONG))

Floats: TypeAlias = NDArray[np.float64]


def confirmed_answers(tried: pl.DataFrame, pseudo_labels: pl.DataFrame) -> pl.DataFrame:
    """Return TEACHER_LIFT, sorted by id; no row of a question that got no response with some of the examples.

    Args:
        tried: Answers as ``ballots`` gives them, with a column ``examples``, one of ``TRIED``.
        pseudo_labels: Votes of the pool, of schema PSEUDO_LABELS. Where there is no majority every answer is new.
    """
    group, meaning = ["id", "examples"], pl.when(pl.col("answer_index").is_null()).then(normalised("answer"))
    votes = pseudo_labels.select("id", "pseudo_answer", answer_index="pseudo_index", answer="pseudo_answer")
    asked = tried.filter(~pl.col("finish_reason").is_in(UNANSWERED)).with_columns(
        key=meaning.otherwise("answer"), n=pl.len().over(group)
    )
    complete = asked.filter(pl.col("examples").n_unique().over("id") == len(TRIED))
    new = complete.join(votes.select("id", vote=meaning.otherwise("answer")), on="id", how="left").filter(
        pl.col("key").is_not_null() & pl.col("key").ne_missing(pl.col("vote"))
    )
    shares = new.group_by("id", "key", "examples").agg(share=pl.len() / pl.col("n").first())
    by_answer = (
        complete.select("id")
        .unique()
        .join(
            shares.pivot("examples", on_columns=list(TRIED), index=["id", "key"], values="share"), on="id", how="left"
        )
    )
    agree = {(a, b): (pl.col(a).fill_null(0) * pl.col(b).fill_null(0)).sum() for a, b in _PAIRS}
    pairs = (
        by_answer.sort("id", "key")
        .group_by("id", maintain_order=True)
        .agg(confirmed=agree[OWN, FURTHER], confirmed_wrong=(agree[OWN, WRONG] + agree[FURTHER, WRONG]) / 2)
    )
    return pairs.with_columns(lift=pl.col("confirmed") - pl.col("confirmed_wrong")).select(TEACHER_LIFT.names)


def describe_answers(pool: pl.DataFrame, plain: pl.DataFrame, tried: pl.DataFrame) -> pl.DataFrame:
    """Return LIFT_ANSWERS, sorted: of the questions of ``tried``, without examples and with each of ``TRIED``.

    Args:
        pool: Questions, columns ``id`` and ``options``.
        plain: Answers of the rollouts, as ``ballots`` gives them.
        tried: As of ``confirmed_answers``.
    """
    asked = pool.join(tried, on="id", how="semi")
    plain = plain.join(asked, on="id", how="semi")
    sides = {NONE: plain, **{name: tried.filter(pl.col("examples") == name).select(plain.columns) for name in TRIED}}
    described = []
    for name, ballots in sides.items():
        answered = ballots.filter(~pl.col("finish_reason").is_in(UNANSWERED))
        counts = vote(answered, PseudoLabelsConfig()).join(compare_beliefs(asked, plain, answered), on="id")
        sure = (
            answered.sort("id", "sample")
            .group_by("id", maintain_order=True)
            .agg(confidence=pl.col("mean_logprob").mean())
        )
        described.append(
            counts.join(sure, on="id").select(
                "id",
                examples=pl.lit(name),
                agreement="vote_share",
                confidence="confidence",
                abstention=pl.col("n_abstentions") / (pl.col("n_votes") + pl.col("n_abstentions")),
                belief_shift="belief_shift",
            )
        )
    return pl.concat(described).drop_nulls().select(LIFT_ANSWERS.names).sort("id", "examples")


def summarise(lift: pl.DataFrame, answers: pl.DataFrame, config: TeacherLiftConfig) -> dict[str, Any]:
    """Return the notes of the stage: ``outcome`` in a word, ``verdict`` in words, and the figures behind them.

    Args:
        lift: Of schema TEACHER_LIFT.
        answers: Of schema LIFT_ANSWERS; ``movement`` shows how they move with own and with wrong examples.
        config: Resamples of questions, each with all that is known of it, so that differences are paired.
    """
    if len(lift) < FEWEST:
        reason = f"{len(lift)} questions have answers with own, further and wrong examples, {FEWEST} are needed."
        return {"outcome": CANNOT_TELL, "verdict": f"{CANNOT_TELL}: {reason}", "n_questions": len(lift)}
    estimates = _bootstrap(lift.drop("id"), config)
    outcome, meaning = _judge(estimates["lift"])
    share, by_chance, (mean, low, high) = (100 * estimates[name] for name in lift.columns[1:])
    verdict = (
        f"{outcome}: {meaning}. Two sets of examples that have none in common lead to the same new answer in "
        f"{share[0]:.1f} % of the pairs of responses, and in {by_chance[0]:.1f} % where one set is another question's: "
        f"a lift of {mean:+.1f} points ({config.confidence_level:.0%} interval {low:+.1f} to {high:+.1f}; {len(lift)} "
        f"questions, seed {config.seed})."
    )
    named = {name: dict(zip(("mean", "low", "high"), each.tolist(), strict=True)) for name, each in estimates.items()}
    movement = _movement(answers.join(lift, on="id", how="semi"), config)
    return {"outcome": outcome, "verdict": verdict, **named, "movement": movement, "n_questions": len(lift)}


def _judge(lift: Floats) -> tuple[str, str]:
    mean, low, high = lift
    if low > 0 and mean >= WORTH:
        return GO, "the examples tell the model answers that it does not vote for by itself"
    if high < WORTH:
        return NO_LIFT, "the examples tell the model nothing that it does not vote for by itself, or nearly so"
    return CANNOT_TELL, "it is not clear that the examples tell the model anything; more questions would say more"


def _movement(answers: pl.DataFrame, config: TeacherLiftConfig) -> list[dict[str, str]]:
    """Return a row per figure: its mean without and with examples, and what own examples change, with intervals."""
    wide = answers.pivot("examples", on_columns=[NONE, *TRIED], index="id", values=list(_FIGURES))
    rows = []
    for figure in _FIGURES:
        sides = wide.select(pl.col(f"{figure}_{name}").alias(name) for name in (NONE, *TRIED)).drop_nulls()
        against = {f"{OWN} - {other}": pl.col(OWN) - pl.col(other) for other in (NONE, WRONG)}
        means = _bootstrap(sides.with_columns(**against), config)
        shown = {
            name: f"{mean:.3f}" + f" [{low:+.3f}, {high:+.3f}]" * (name in against)
            for name, (mean, low, high) in means.items()
        }
        rows.append({"figure": figure, **shown})
    return rows


def _bootstrap(columns: pl.DataFrame, config: TeacherLiftConfig) -> dict[str, Floats]:
    """Return each column's mean and the ends of its percentile interval over resamples of the rows."""
    values, n = columns.to_numpy(), len(columns)
    rng = np.random.default_rng(derive_seed(config.seed, "bootstrap"))
    means = [values[rng.integers(n, size=n)].mean(axis=0) for _ in range(config.n_resamples)]
    tail = (1 - config.confidence_level) / 2
    estimates = np.vstack([values.mean(axis=0), np.quantile(means, [tail, 1 - tail], axis=0)])  # [3, columns]
    return dict(zip(columns.columns, estimates.T, strict=True))
