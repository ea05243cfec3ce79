import math
from collections import Counter

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.table import conform
from pipeline.votes.config import PseudoLabelsConfig
from pipeline.votes.schemas import PSEUDO_LABELS
from pipeline.votes.vote import ballots, vote

ANSWERS = ("w", "x", "y", "z")
rollout = st.tuples(st.sampled_from([None, 0, 1, 2, 3]), st.lists(st.sampled_from([-0.5, -1.0, -2.0]), max_size=3))
questions = st.dictionaries(st.sampled_from("pqrst"), st.lists(rollout, min_size=1, max_size=7), max_size=4)


def table(pool, open_questions=False):
    rows = [
        {
            "id": question,
            "sample": sample,
            "mean_logprob": sum(logprobs) / len(logprobs) if logprobs else None,
            "answer": None if answer is None else ANSWERS[answer],
            "answer_index": None if open_questions else answer,
        }
        for question, rollouts in pool.items()
        for sample, (answer, logprobs) in enumerate(rollouts)
    ]
    kinds = {"id": pl.String, "sample": pl.Int32, "mean_logprob": pl.Float64}
    return pl.DataFrame(rows, schema=kinds | {"answer": pl.String, "answer_index": pl.Int32})


def naive(question, rollouts, min_votes):
    votes = Counter(answer for answer, _ in rollouts if answer is not None)
    n_votes, ranked = sum(votes.values()), [count for _, count in votes.most_common()] + [0, 0]
    state = "tie" if ranked[0] == ranked[1] else "majority"
    state = "all_abstain" if n_votes == 0 else "too_few_votes" if n_votes < min_votes else state
    leader = votes.most_common(1)[0][0] if state == "majority" else None

    def preference(sample):
        logprobs = rollouts[sample][1]
        return (bool(logprobs), sum(logprobs) / len(logprobs) if logprobs else 0, -sample)

    backers = [sample for sample, (answer, _) in enumerate(rollouts) if answer == leader]
    entropy = -sum(count / n_votes * math.log(count / n_votes) for count in votes.values())
    return {
        "id": question,
        "state": state,
        "pseudo_answer": None if leader is None else ANSWERS[leader],
        "pseudo_index": leader,
        "representative": None if leader is None else max(backers, key=preference),
        "n_votes": n_votes,
        "n_abstentions": len(rollouts) - n_votes,
        "vote_share": ranked[0] / len(rollouts),
        "margin": (ranked[0] - ranked[1]) / len(rollouts),
        "entropy": entropy,
        "effective_votes": math.exp(entropy) if n_votes else 0,
    }


@given(questions, st.integers(1, 4), st.randoms())
def test_equals_a_plain_loop_whatever_the_order_of_rows(pool, min_votes, rng):
    rows = list(range(sum(len(rollouts) for rollouts in pool.values())))
    rng.shuffle(rows)
    found = vote(table(pool)[rows], PseudoLabelsConfig(min_votes=min_votes))
    conform(found, PSEUDO_LABELS, "pseudo_labels")
    expected = [naive(question, pool[question], min_votes) for question in sorted(pool)]
    assert found.to_dicts() == [
        {key: pytest.approx(value, abs=1e-12) if isinstance(value, float) else value for key, value in row.items()}
        for row in expected
    ]


def test_open_questions_have_an_answer_without_index():
    row = vote(table({"p": [(1, [-1.0]), (1, [-0.5]), (None, [])]}, open_questions=True), PseudoLabelsConfig()).row(
        0, named=True
    )
    assert (row["state"], row["pseudo_answer"], row["pseudo_index"], row["representative"]) == (
        "majority",
        "x",
        None,
        1,
    )


def test_equal_open_answers_vote_together_by_the_representative_spelling():
    """Three halves outvote two "2", in the spelling of the likeliest of the three."""
    spellings = ["2", "1/2", "2", "0.50", r"\frac{1}{2}"]
    rows = table({"p": [(1, [logprob]) for logprob in (-0.1, -2.0, -0.1, -1.0, -3.0)]}, open_questions=True)
    row = vote(rows.with_columns(answer=pl.Series(spellings)), PseudoLabelsConfig()).row(0, named=True)
    assert (row["pseudo_answer"], row["representative"], row["vote_share"]) == ("0.50", 3, 0.6)


def test_options_vote_by_identity():
    """Two options may be equal as numbers."""
    rows = table({"p": [(0, [-1.0]), (1, [-1.0])]}).with_columns(answer=pl.Series(["0.5", "1/2"]))
    assert vote(rows, PseudoLabelsConfig())["state"].to_list() == ["tie"]


def test_byte_identical_for_any_order_of_rows():
    """Sums run in one order, so even the last bit of the entropy is stable."""
    pool = {q: [(a, [-0.5]) for a in (0, 0, 0, 1, 1, 2, 3)] for q in "pqr"}
    rows = table(pool)
    assert vote(rows, PseudoLabelsConfig()).equals(vote(rows[::-1], PseudoLabelsConfig()))


def test_ballots_join_answers_with_how_likely_their_responses_are():
    rollouts = pl.LazyFrame(
        {"id": ["p", "q", "p"], "sample": [1, 0, 0], "logprobs": [[-1.0, -2.0], [], [-0.5]]}
        | {"finish_reason": ["stop", "prompt_too_long", "length"], "response": ["x"] * 3}
    )
    answers = pl.LazyFrame(
        {"id": ["p", "p", "q"], "sample": [0, 1, 0], "answer": ["a", None, None], "answer_index": [0, None, None]}
        | {"option_probs": [[0.5]] * 3}
    )
    assert ballots(rollouts, answers).to_dict(as_series=False) == {
        "id": ["p", "p", "q"],
        "sample": [0, 1, 0],
        "answer": ["a", None, None],
        "answer_index": [0, None, None],
        "mean_logprob": [-0.5, -1.5, None],
        "finish_reason": ["length", "stop", "prompt_too_long"],
    }
