"""Confirmed new answers against a plain loop, and the verdict against made-up effects."""

from itertools import product

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.generation.generator import PROMPT_TOO_LONG
from pipeline.lift.config import TeacherLiftConfig
from pipeline.lift.lift import CANNOT_TELL, FEWEST, GO, NO_LIFT, confirmed_answers, describe_answers, summarise
from pipeline.lift.schemas import LIFT_ANSWERS, TEACHER_LIFT
from pipeline.lift.trials import TRIED
from pipeline.table import conform

OPTIONS = ["w", "x", "y"]
CONFIG = TeacherLiftConfig(n_resamples=200)
responses = st.lists(st.sampled_from([None, 0, 1, 2]), min_size=1, max_size=4)
questions = st.dictionaries(
    st.sampled_from("pqrs"), st.tuples(responses, responses, responses, st.sampled_from([None, 0, 1, 2])), min_size=1
)


def ballots(answers, examples, finish_reason="stop"):
    """Build ballots from {id: [option index, text of an open answer, or None for an abstention]}."""
    rows = [
        (key, sample, given if isinstance(given, str) else given if given is None else OPTIONS[given],
         given if isinstance(given, int) else None, -1.0 - sample, finish_reason, examples)
        for key, side in answers.items()
        for sample, given in enumerate(side)
    ]  # fmt: skip
    kinds = {"id": pl.String, "sample": pl.Int32, "answer": pl.String, "answer_index": pl.Int32}
    kinds |= {"mean_logprob": pl.Float64, "finish_reason": pl.String, "examples": pl.String}
    return pl.DataFrame(rows, kinds, orient="row")


def labels(votes):
    rows = [(key, OPTIONS[vote] if isinstance(vote, int) else vote, vote if isinstance(vote, int) else None)
            for key, vote in votes.items()]  # fmt: skip
    return pl.DataFrame(rows, {"id": pl.String, "pseudo_answer": pl.String, "pseudo_index": pl.Int32}, orient="row")


def confirmed(sides, votes, **changes):
    tried = pl.concat([ballots(side, name, **changes.get(name, {})) for name, side in zip(TRIED, sides, strict=True)])
    lift = confirmed_answers(tried, labels(votes))
    conform(lift, TEACHER_LIFT, "teacher_lift")
    return {row["id"]: row for row in lift.iter_rows(named=True)}


def naive(one, other, vote):
    pairs = list(product(one, other))
    return sum(a == b and a is not None and a != vote for a, b in pairs) / len(pairs)


@given(questions)
def test_confirmed_answers_are_those_of_a_plain_loop(drawn):
    sides = [{key: row[side] for key, row in drawn.items()} for side in range(3)]
    got = confirmed(sides, {key: row[3] for key, row in drawn.items()})
    assert list(got) == sorted(drawn)
    for key, (own, further, wrong, vote) in drawn.items():
        by_chance = (naive(own, wrong, vote) + naive(further, wrong, vote)) / 2
        assert got[key]["confirmed"] == pytest.approx(naive(own, further, vote))
        assert got[key]["confirmed_wrong"] == pytest.approx(by_chance)
        assert got[key]["lift"] == pytest.approx(naive(own, further, vote) - by_chance)


def test_examples_that_repeat_the_vote_are_no_lift_however_united():
    echo = {"q": [0, 0, 0, 0]}
    assert confirmed([echo, echo, {"q": [1, 2, None, 0]}], {"q": 0})["q"]["lift"] == 0


def test_open_answers_are_compared_by_what_they_mean():
    sides = [{"q": ["1/2"]}, {"q": ["0.5"]}, {"q": ["7"]}]
    assert confirmed(sides, {"q": "3"})["q"]["lift"] == 1
    assert confirmed(sides, {"q": "0.50"})["q"]["lift"] == 0


def test_a_question_without_response_to_some_examples_is_left_out():
    sides = [{"q": [0]}, {"q": [0]}, {"q": [None]}]
    assert confirmed(sides, {"q": 1})
    assert not confirmed(sides, {"q": 1}, wrong={"finish_reason": PROMPT_TOO_LONG})


def test_answers_are_described_with_and_without_examples():
    pool = pl.DataFrame({"id": ["p", "q"], "options": [OPTIONS, OPTIONS]})
    tried = pl.concat(
        [ballots({"q": side}, name) for name, side in zip(TRIED, ([1, 1], [1, 0], [None, 2]), strict=True)]
    )
    described = describe_answers(pool, ballots({"p": [0], "q": [0, 0]}, "").drop("examples"), tried)
    conform(described, LIFT_ANSWERS, "lift_answers")
    assert set(described["id"]) == {"q"}
    found = {row["examples"]: row for row in described.iter_rows(named=True)}
    assert {name: (row["agreement"], row["abstention"]) for name, row in found.items()} == {
        "none": (1, 0), "own": (1, 0), "further": (0.5, 0), "wrong": (0.5, 0.5),
    }  # fmt: skip
    assert found["none"]["belief_shift"] == 0
    assert found["own"]["belief_shift"] == found["wrong"]["belief_shift"] == pytest.approx(np.log(2))
    assert found["own"]["confidence"] == -1.5


def notes(lifts):
    ids = [f"{number:03}" for number in range(len(lifts))]
    lift = pl.DataFrame({"id": ids, "confirmed": lifts, "confirmed_wrong": 0.0, "lift": lifts})
    rows = [(key, name, 0.5, -1.0, 0.0, 0.1) for key in ids for name in ("none", *TRIED)]
    return summarise(lift, pl.DataFrame(rows, LIFT_ANSWERS.names, orient="row"), CONFIG)


@pytest.mark.parametrize(
    ("lifts", "outcome"),
    [
        ([0.5, 0.0] * 20, GO),
        ([0.1, -0.1] * 100, NO_LIFT),
        ([0.0, 0.058] * 100, CANNOT_TELL),  # shown, but little
        ([-0.5, 0.1] * 20, NO_LIFT),
        ([0.5, -0.48] * 20, CANNOT_TELL),
        ([1.0] * (FEWEST - 1), CANNOT_TELL),
        ([], CANNOT_TELL),
    ],
)
def test_the_verdict_follows_the_interval(lifts, outcome):
    found = notes(lifts)
    assert found["outcome"] == outcome
    assert found["verdict"].startswith(f"{outcome}: ")
    assert found["n_questions"] == len(lifts)


def test_the_interval_is_that_of_the_mean_over_questions():
    lifts = np.random.default_rng(0).normal(0.1, 0.2, 100)
    found = notes(lifts)["lift"]
    assert found["mean"] == pytest.approx(lifts.mean())
    error = lifts.std() / 10
    assert found["low"] == pytest.approx(lifts.mean() - 1.96 * error, abs=0.3 * error)
    assert found["high"] == pytest.approx(lifts.mean() + 1.96 * error, abs=0.3 * error)


def test_differences_are_paired_by_question():
    rows = [(f"{key:03}", name, key / 100 + (name == "own") / 10, -1.0, 0.0, 0.0)
            for key in range(50) for name in ("none", *TRIED)]  # fmt: skip
    lift = pl.DataFrame([(f"{key:03}", 0.0, 0.0, 0.0) for key in range(50)], TEACHER_LIFT.names, orient="row")
    movement = summarise(lift, pl.DataFrame(rows, LIFT_ANSWERS.names, orient="row"), CONFIG)["movement"]
    assert movement[0]["own - wrong"] == "0.100 [+0.100, +0.100]"
