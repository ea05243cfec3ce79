"""Beliefs with and without context against a plain loop, and the stage on the tiny model."""

import math
from collections import Counter

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import chain
from pipeline.artifacts import ArtifactStore
from pipeline.beliefs.beliefs import compare_beliefs
from pipeline.beliefs.config import ContextBeliefsConfig
from pipeline.beliefs.schemas import CONTEXT_BELIEFS
from pipeline.deduplication.schemas import POOL
from pipeline.errors import ArtifactError
from pipeline.model_config import ModelConfig
from pipeline.models import load_tokenizer, model_fingerprint
from pipeline.neurons.schemas import NEURON_SCORES
from pipeline.prompts import render_question, render_teacher_prompt
from pipeline.rollouts.config import RolloutsConfig
from pipeline.rollouts.sampler import PROMPT_TOO_LONG, sample_rollouts
from pipeline.table import conform
from pipeline.teacher.context import assemble_contexts
from pipeline.votes.schemas import PSEUDO_LABELS

SAMPLING = RolloutsConfig(n_samples=2, max_new_tokens=4, temperature=0.7)
OPTIONS = ["w", "x", "y"]
responses = st.lists(st.sampled_from([None, 0, 1, 2]), max_size=5)
questions = st.dictionaries(st.sampled_from("pqrs"), st.tuples(responses, responses), min_size=1)


def table(answers, finish_reason="stop"):
    """Build rollouts from {id: [option index, text of an open answer, or None for an abstention]}."""
    rows = [
        {
            "id": key,
            "sample": sample,
            "answer": OPTIONS[answer] if isinstance(answer, int) else answer,
            "answer_index": answer if isinstance(answer, int) else None,
            "logprobs": [-1.0],
            "finish_reason": finish_reason,
        }
        for key, given_answers in answers.items()
        for sample, answer in enumerate(given_answers)
    ]
    kinds = {"id": pl.String, "sample": pl.Int32, "answer": pl.String, "answer_index": pl.Int32}
    return pl.DataFrame(rows, schema=kinds | {"logprobs": pl.List(pl.Float32), "finish_reason": pl.String})


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


@given(questions)
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


def test_a_prompt_that_got_no_response_is_no_shift():
    row = compare_beliefs(pool("a"), table({"a": [0, 1]}), table({"a": [None] * 2}, PROMPT_TOO_LONG)).row(0, named=True)
    assert (row["n_samples"], row["belief_shift"], row["informed_share"]) == (0, None, None)


@pytest.fixture
def sampled(tiny_folder, tmp_path):
    """A store in which the tiny model has answered three questions, and the settings of the model."""
    store, model = ArtifactStore(tmp_path), ModelConfig(path=str(tiny_folder))
    asked = {
        "a": ("Colour of grass?", ["green", "red"]),
        "b": ("Two plus two?", ["4", "5"]),
        "c": ("Is it?", ["y", "n"]),
    }
    text = dict.fromkeys(set(POOL.names) - {"permutation"}, "")
    rows = [
        text | {"id": key, "group": key, "question": question, "options": options, "permutation": [1, 0]}
        | {"prompt": render_question(question, options[::-1])}
        for key, (question, options) in asked.items()
    ]  # fmt: skip
    labels = [
        {"id": key, "state": "majority", "representative": 0, "n_votes": 2, "n_abstentions": 0, "vote_share": 1.0}
        | {"pseudo_answer": asked[key][1][0], "pseudo_index": 0, "margin": 1.0, "entropy": 0.0, "effective_votes": 1.0}
        for key in asked
    ]  # fmt: skip
    scores = [{"id": key, "sample": 0, "neurons": [1, 2], "scores": [1.0, 1.0]} for key in asked]
    provenance = {"model": model_fingerprint(model)}
    store_rows(store, "pool", POOL, rows)
    chain.rollouts(store, model, SAMPLING)
    store_rows(store, "pseudo_labels", PSEUDO_LABELS, labels)
    store_rows(store, "neuron_scores", NEURON_SCORES, scores, provenance)
    return store, model


def store_rows(store, name, schema, rows, provenance=()):
    with store.write(name, name, dict(provenance)) as writer:
        writer.append(name, pl.DataFrame(rows, schema=pl.DataFrame(schema.empty_table()).schema))


@pytest.fixture
def asked(monkeypatch):
    """What the stage asks the model, with which settings, and what it gets."""
    calls = []

    def sample(pool, language_model, config):
        calls.append((pool, config, pl.concat(sample_rollouts(pool, language_model, config))))
        yield calls[-1][2]

    monkeypatch.setattr("pipeline.beliefs.beliefs.sample_rollouts", sample)
    return calls


def test_without_samples_the_stage_stores_an_empty_table_and_loads_no_model(sampled, monkeypatch):
    monkeypatch.setattr(chain, "load_model", None)
    assert not chain.context_beliefs(*sampled, ContextBeliefsConfig(n_samples=0)).cached
    assert sampled[0].read("context_beliefs").is_empty()


def test_every_question_is_asked_with_its_context_as_the_rollouts_were(sampled, asked):
    store, model = sampled
    section = ContextBeliefsConfig(n_samples=3, builder="random", n_demonstrations=1, seed=5)
    assert not chain.context_beliefs(store, model, section).cached
    assert chain.context_beliefs(store, model, section).cached
    ((questions, settings, _),) = asked
    assert settings == SAMPLING.model_copy(update={"n_samples": 3, "seed": 5})
    contexts = assemble_contexts(*[chain.stored_questions(store)] * 2, load_tokenizer(model), section)
    assert (contexts["demonstration_ids"].list.len() == 1).all()
    messages = [render_teacher_prompt(*row) for row in contexts.select("privileged_context", "prompt").iter_rows()]
    assert questions.sort("id")["prompt"].to_list() == messages
    beliefs = store.read("context_beliefs")
    assert beliefs["id"].to_list() == ["a", "b", "c"]
    assert beliefs["n_samples"].to_list() == [3, 3, 3]


def test_the_draws_are_those_of_the_rollouts_so_no_context_is_no_shift(sampled, asked):
    store, model = sampled
    chain.context_beliefs(store, model, ContextBeliefsConfig(n_samples=2, builder="none"))
    ((_, _, informed),) = asked
    assert informed["response_ids"].equals(store.read("rollouts")["response_ids"])
    assert store.read("context_beliefs")["belief_shift"].to_list() == [0, 0, 0]


def test_rollouts_of_other_weights_are_refused(sampled):
    store, model = sampled
    with pytest.raises(ArtifactError, match="materialize 'rollouts' again"):
        chain.context_beliefs(store, model.model_copy(update={"dtype": "bfloat16"}), ContextBeliefsConfig())
