"""Beliefs with and without context against a plain loop, and asked of the tiny model."""

import math
from collections import Counter

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.answers.read import read_answers
from pipeline.beliefs.beliefs import compare_beliefs, pool_contexts
from pipeline.beliefs.config import ContextBeliefsConfig
from pipeline.beliefs.schemas import CONTEXT_BELIEFS
from pipeline.generation.generator import PROMPT_TOO_LONG
from pipeline.prompts import render_question, render_teacher_prompt
from pipeline.rollouts.config import RolloutsConfig
from pipeline.rollouts.sample import Asking, sample_rollouts
from pipeline.rollouts.schemas import SPECIAL_TOKEN_IN_PROMPT
from pipeline.table import conform
from pipeline.teacher.context import assemble_contexts
from pipeline.teacher.questions import Questions
from pipeline.votes.vote import ballots

SAMPLING = RolloutsConfig(n_samples=2, max_new_tokens=4, temperature=0.7, instruction="Say.")
OPTIONS = ["w", "x", "y"]
responses = st.lists(st.sampled_from([None, 0, 1, 2]), max_size=5)
answers_by_question = st.dictionaries(st.sampled_from("pqrs"), st.tuples(responses, responses), min_size=1)


def table(answers, finish_reason="stop"):
    """Build ballots from {id: [option index, text of an open answer, or None for an abstention]}."""
    rows = [
        {
            "id": key,
            "sample": sample,
            "answer": OPTIONS[answer] if isinstance(answer, int) else answer,
            "answer_index": answer if isinstance(answer, int) else None,
            "mean_logprob": -1.0,
            "finish_reason": finish_reason,
        }
        for key, given_answers in answers.items()
        for sample, answer in enumerate(given_answers)
    ]
    kinds = {"id": pl.String, "sample": pl.Int32, "answer": pl.String, "answer_index": pl.Int32}
    return pl.DataFrame(rows, schema=kinds | {"mean_logprob": pl.Float64, "finish_reason": pl.String})


def pool(ids, options=OPTIONS):
    return pl.DataFrame(
        {"id": list(ids), "options": [options] * len(ids)}, {"id": pl.String, "options": pl.List(pl.String)}
    )


def compared(plain, informed, **given_pool):
    rows = compare_beliefs(pool(plain, **given_pool), table(plain), table(informed))
    conform(rows, CONTEXT_BELIEFS, "beliefs")
    return {row["id"]: row for row in rows.iter_rows(named=True)}


def naive_divergence(plain, informed):
    if not plain or not informed:
        return None
    p, q = ({key: n / len(side) for key, n in Counter(side).items()} for side in (plain, informed))
    mean = {key: (p.get(key, 0) + q.get(key, 0)) / 2 for key in {*p, *q}}
    return sum(share * math.log(share / mean[key]) for side in (p, q) for key, share in side.items()) / 2


def naive_shares(answers):
    votes = [answer for answer in answers if answer is not None]
    return pytest.approx([votes.count(option) / len(votes) for option in range(3)]) if votes else None


@given(answers_by_question)
def test_beliefs_are_those_of_a_plain_loop(drawn):
    plain, informed = ({key: sides[side] for key, sides in drawn.items()} for side in (0, 1))
    got = compared(plain, informed)
    assert list(got) == sorted(drawn)
    for key, row in got.items():
        divergence = naive_divergence(plain[key], informed[key])
        assert row["belief_shift"] == (None if divergence is None else pytest.approx(divergence, abs=1e-12))
        assert (row["plain"], row["informed"]) == (naive_shares(plain[key]), naive_shares(informed[key]))
        votes = Counter(answer for answer in informed[key] if answer is not None).most_common()
        tied = len(votes) != 1 and (not votes or votes[0][1] == votes[1][1])
        assert row["informed_answer"] == (None if tied else OPTIONS[votes[0][0]])
        assert row["n_samples"] == len(informed[key])
        leading = votes[0][1] if votes else 0
        assert row["informed_share"] == (leading / len(informed[key]) if informed[key] else None)


def test_the_divergence_is_zero_for_equal_beliefs_and_ln_2_for_disjoint_ones():
    got = compared({"a": [0, 1], "b": [0, 0], "c": [None]}, {"a": [1, 0, 0, 1], "b": [None], "c": [2]})
    assert got["a"]["belief_shift"] == 0
    assert got["b"]["belief_shift"] == got["c"]["belief_shift"] == pytest.approx(math.log(2))


def test_open_answers_are_compared_by_what_they_mean():
    row = compared({"a": ["1/2", "0.5"]}, {"a": ["0.50", "7"]}, options=[])["a"]
    assert (row["plain"], row["informed"], row["informed_share"]) == (None, None, 0.5)
    assert row["belief_shift"] == pytest.approx(naive_divergence([1, 1], [1, 2]))


@pytest.mark.parametrize("reason", [PROMPT_TOO_LONG, SPECIAL_TOKEN_IN_PROMPT])
def test_a_prompt_that_got_no_response_is_no_shift(reason):
    row = compare_beliefs(pool("a"), table({"a": [0, 1]}), table({"a": [None] * 2}, reason)).row(0, named=True)
    assert (row["n_samples"], row["belief_shift"], row["informed_share"]) == (0, None, None)


ASKED = {
    "a": ("Colour of grass?", ["green", "red"]),
    "b": ("Two plus two?", ["4", "5"]),
    "c": ("Is it?", ["y", "n"]),
}
POOL = pl.DataFrame(
    {"id": key, "group": key, "question": question, "options": options, "permutation": [1, 0]}
    for key, (question, options) in ASKED.items()
)


def asked(tiny, contexts=None, **changes):
    """Return rollouts and ballots of the pool."""
    settings = SAMPLING.model_copy(update=changes)
    asking = Asking.of(settings, settings)
    rollouts = pl.concat(sample_rollouts(POOL, tiny, asking, contexts)).sort("id", "sample")
    return rollouts, ballots(rollouts.lazy(), read_answers(rollouts, POOL, tiny.tokenizer).lazy())


@pytest.fixture
def questions(tiny):
    """The pool with its rollouts, the first of which stand for their questions."""
    labels = [{"id": key, "pseudo_answer": options[0], "representative": 0} for key, (_, options) in ASKED.items()]
    scores = pl.LazyFrame({"id": key, "sample": 0, "neurons": [1, 2]} for key in ASKED)
    rollouts, _ = asked(tiny)
    return Questions(POOL, pl.DataFrame(labels), rollouts.lazy(), scores)


def test_every_question_is_asked_with_its_context_as_the_rollouts_were(tiny, questions):
    section = ContextBeliefsConfig(n_samples=3, builder="random", n_demonstrations=1, seed=5)
    contexts = pool_contexts(questions, tiny.tokenizer, section, SAMPLING)
    built = assemble_contexts(questions, questions, tiny.tokenizer, section, SAMPLING)
    assert contexts == dict(built.select("id", "privileged_context").iter_rows())
    assert (built["demonstration_ids"].list.len() == 1).all()
    rollouts, informed = asked(tiny, contexts, n_samples=3, seed=5)
    for key, prompt in rollouts.select("id", "prompt").iter_rows():
        question, options = ASKED[key]
        own = render_question(question, options[::-1], "Say.")
        assert prompt == render_teacher_prompt(contexts[key], own)
        assert prompt.startswith("Example\n")
        assert own == built.row(by_predicate=pl.col("id") == key, named=True)["prompt"]
    beliefs = compare_beliefs(POOL, asked(tiny)[1], informed)
    conform(beliefs, CONTEXT_BELIEFS, "beliefs")
    assert beliefs["id"].to_list() == ["a", "b", "c"]
    assert beliefs["n_samples"].to_list() == [3, 3, 3]


def test_the_draws_are_those_of_the_rollouts_so_no_context_is_no_shift(tiny, questions):
    section = ContextBeliefsConfig(n_samples=2, builder="none")
    plain, beliefs = asked(tiny)
    rollouts, informed = asked(tiny, pool_contexts(questions, tiny.tokenizer, section, SAMPLING))
    assert rollouts["response_ids"].equals(plain["response_ids"])
    assert compare_beliefs(POOL, beliefs, informed)["belief_shift"].to_list() == [0, 0, 0]
