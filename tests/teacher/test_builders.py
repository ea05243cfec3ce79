"""What each builder compares, on a handful of questions, and how answers are balanced."""

import math
from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.rollouts.config import Prompting
from pipeline.teacher.builder import REACH, Choice, ContextRequest, balance_answers
from pipeline.teacher.builders import BUILDERS
from pipeline.teacher.config import TeacherContextsConfig
from pipeline.teacher.nearest import compare_all
from pipeline.teacher.questions import Demonstration, Questions

INTS, FLOATS = pl.List(pl.Int32), pl.List(pl.Float32)
KINDS = {"neurons": INTS, "state": FLOATS}
OPTIONS = ["red", "green", "blue"]
STEMS = {"t": "Target?", "a": "Other?", "b": "Third?", "c": "Fourth?", "d": "Fifth?"}


def questions(stems, **tables):
    """Build questions {id: stem} with two rollouts, the second representative, and the tables given by column."""
    ids, prompting = list(stems), Prompting(instruction="Say X.")
    pool = {
        "id": ids,
        "question": list(stems.values()),
        "options": [OPTIONS] * len(ids),
        "permutation": [[0, 1, 2]] * len(ids),
    }
    labels = {"id": ids, "pseudo_answer": ["red"] * len(ids), "representative": [1] * len(ids)}
    rollouts = [
        {"id": key, "sample": sample, "response": f"{key}-{sample}", "prompt": prompting.render(stem, OPTIONS, order)}
        for key, stem in stems.items()
        for sample, order in enumerate(([0, 1, 2], [2, 0, 1]))
    ]
    return Questions(
        pl.DataFrame(pool, schema_overrides={"permutation": INTS}),
        pl.DataFrame(labels, schema_overrides={"representative": pl.Int32}),
        pl.LazyFrame(rollouts, schema_overrides={"sample": pl.Int32}),
        pl.LazyFrame(schema={"id": pl.String, "sample": pl.Int32, "neurons": INTS}),
        **{name: pl.LazyFrame(columns, schema_overrides=KINDS) for name, columns in tables.items()},
    )


def chosen(builder, pool, target="t", **settings):
    config = TeacherContextsConfig(builder=builder, **settings)
    (choices,) = BUILDERS[builder](ContextRequest(pool.only([target]), pool, config))
    return [(choice.demonstration.id, choice.similarity) for choice in choices]


def test_stem_overlap_compares_the_neurons_of_the_stems():
    scores = {"id": ["t", "a", "b", "d"], "neurons": [[1, 2, 3, 4], [4, 9], [1, 2, 3], [8]]}
    got = chosen("stem_overlap", questions(STEMS, stem_scores=scores))
    assert got == [("b", pytest.approx(3 / 4)), ("a", pytest.approx(1 / 5))]  # c has no stem, d shares nothing


def test_neurons_that_many_stems_share_do_not_count():
    stems = {"t": "Target?"} | {f"q{i:02}": f"Other {i}?" for i in range(29)}
    # Neuron 1 is in all 30 stems, neuron 2 in those of the target and of ten others, neuron 3 in one other's.
    neurons = [[1, 2, 3, 4]] + [[1, 2] if i < 10 else [1, 3] if i == 20 else [1] for i in range(29)]
    pool = questions(stems, stem_scores={"id": list(stems), "neurons": neurons})
    assert chosen("stem_overlap", pool, max_stem_share=0.03) == [("q20", pytest.approx(1 / 2))]  # ten may share one
    rarer = chosen("stem_overlap", pool, max_stem_share=11 / 30, n_demonstrations=4)
    assert rarer == [(key, pytest.approx(1 / 3)) for key in ("q00", "q01", "q02", "q03")]
    assert chosen("stem_overlap", pool, max_stem_share=1, n_demonstrations=1) == [("q00", pytest.approx(2 / 4))]


def test_rationale_overlap_compares_the_representative_rollouts_without_their_answers():
    rows = [("t", 0, [9]), ("t", 1, [1, 2, 3, 4]), ("a", 0, [1, 2, 3, 4]), ("a", 1, [4, 9]), ("b", 1, [1, 2, 3])]
    scores = dict(zip(("id", "sample", "neurons"), zip(*rows, strict=True), strict=True))
    pool = questions(STEMS, rationale_scores=scores | {"sample": pl.Series(scores["sample"], dtype=pl.Int32)})
    assert chosen("rationale_overlap", pool) == [("b", pytest.approx(3 / 4)), ("a", pytest.approx(1 / 5))]


def test_hidden_cosine_compares_directions_and_orders_equals_by_id():
    states = {"id": ["t", "c", "b", "a"], "state": [[2.0, 0.0], [3.0, 4.0], [30.0, 40.0], [5.0, 0.1]]}
    got = chosen("hidden_cosine", questions(STEMS, stem_states=states))
    assert [key for key, _ in got] == ["a", "b", "c"]
    assert [value for _, value in got] == pytest.approx([5 / math.hypot(5, 0.1), 0.6, 0.6])
    away = {"id": ["t", "a", "b"], "state": [[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]}
    assert chosen("hidden_cosine", questions(STEMS, stem_states=away)) == []


def test_hidden_cosine_equals_brute_force_whatever_the_block(monkeypatch):
    rng = np.random.default_rng(0)
    ids = [f"q{i:02}" for i in range(40)]
    states = rng.integers(0, 3, (40, 4)).astype(np.float32)  # small integers: many ties
    pool = questions({key: f"{key}?" for key in ids}, stem_states={"id": ids, "state": states.tolist()})
    config = TeacherContextsConfig(builder="hidden_cosine", n_demonstrations=5)
    for cells in (2**22, 90):
        monkeypatch.setattr("pipeline.teacher.nearest._CELLS", cells)
        for own, ranked in zip(range(40), BUILDERS["hidden_cosine"](ContextRequest(pool, pool, config)), strict=True):
            cosines = []
            for other in set(range(40)) - {own}:
                scale = math.sqrt(float(states[own] @ states[own]) * float(states[other] @ states[other]))
                cosines.append((-round(float(states[own] @ states[other]) / scale, 6) if scale else 0.0, ids[other]))
            expected = [(key, -negative) for negative, key in sorted(cosines) if negative < 0][:5]
            assert [choice.demonstration.id for choice in ranked] == [key for key, _ in expected]
            assert [choice.similarity for choice in ranked] == pytest.approx([value for _, value in expected], abs=1e-6)


def test_a_target_without_a_state_gets_no_demonstration():
    assert chosen("hidden_cosine", questions(STEMS, stem_states={"id": ["a", "b"], "state": [[1.0], [1.0]]})) == []


def test_lexical_is_bm25_of_the_stems(capsys):
    stems = {
        "t": "Which acid dissolves gold?",
        "a": "Which acid turns litmus red, and which acid does not?",
        "b": "Who found gold?",
        "c": "Is it?",  # stop words only
        "d": "How many moons has Mars?",
    }
    words = {  # two letters or more, stop words left out
        "t": ["which", "acid", "dissolves", "gold"],
        "a": ["which", "acid", "turns", "litmus", "red", "which", "acid", "does"],
        "b": ["who", "found", "gold"],
        "c": [],
        "d": ["how", "many", "moons", "has", "mars"],
    }
    mean = sum(map(len, words.values())) / len(words)

    def bm25(key):
        score = 0.0
        for word in words["t"]:
            holding = sum(word in other for other in words.values())
            n = words[key].count(word)
            idf = math.log(1 + (len(words) - holding + 0.5) / (holding + 0.5))
            score += idf * n / (n + 1.5 * (0.25 + 0.75 * len(words[key]) / mean))
        return score

    got = chosen("lexical", questions(stems))
    assert got == [("a", pytest.approx(bm25("a"), rel=1e-5)), ("b", pytest.approx(bm25("b"), rel=1e-5))]
    assert chosen("lexical", questions(stems), target="c") == []
    assert chosen("lexical", questions({"t": "Is it?", "a": "Is it not?"})) == []
    assert capsys.readouterr() == ("", "")


def test_equal_words_are_ordered_by_id():
    assert [key for key, _ in chosen("lexical", questions({"t": "gold", "b": "gold ore", "a": "gold dust"}))] == [
        "a",
        "b",
    ]


@pytest.mark.parametrize("builder", ["stem_overlap", "rationale_overlap", "hidden_cosine"])
def test_a_table_without_any_row_is_named(builder):
    with pytest.raises(ConfigError, match=r"table '(stem|rationale)_\w+' .* choose another builder"):
        chosen(builder, questions(STEMS))


def test_fewer_candidates_than_asked_for_are_all_ranked():
    search = compare_all(lambda rows: np.ones((len(rows), 2), dtype=np.float32), 2)
    indices, similarities = search(np.arange(3), 5)
    assert indices.tolist() == [[0, 1]] * 3
    assert similarities.shape == (3, 2)


def test_demonstrations_show_the_prompt_that_their_rollout_saw():
    (shown,) = questions({"t": "Target?"}).demonstrations()
    assert shown.prompt == "Target?\nA. blue\nB. red\nC. green\n\nSay X."
    assert shown.response == "t-1"


def choices(answers):
    return [Choice(Demonstration(str(i), "", "", answer, str(i)), None) for i, answer in enumerate(answers)]


@given(st.lists(st.sampled_from("abc")), st.integers(1, 8))
def test_balanced_answers_are_as_different_as_can_be_and_the_most_similar_of_their_kind(answers, count):
    got = [int(choice.demonstration.id) for choice in balance_answers(choices(answers), count)]
    assert got == sorted(got)
    assert len(got) == min(count, len(answers))
    taken = Counter(answers[rank] for rank in got)
    for answer, n in Counter(answers).items():
        # An answer is taken less often than another by more than one only where it has no more.
        assert taken[answer] == n or taken[answer] >= max(taken.values()) - 1
        of_this = [rank for rank, other in enumerate(answers) if other == answer]
        assert [rank for rank in got if answers[rank] == answer] == of_this[: taken[answer]]


def test_the_first_is_always_the_most_similar():
    assert [choice.demonstration.id for choice in balance_answers(choices("aaab"), 2)] == ["0", "3"]
    assert [choice.demonstration.id for choice in balance_answers(choices("aaab"), 3)] == ["0", "1", "3"]


def test_demonstrations_carry_their_pseudo_answer():
    assert [shown.answer for shown in questions({"t": "Target?"}).demonstrations()] == ["red"]


def test_all_builders_yield_the_candidates_to_balance():
    stems = {"t": "gold?"} | {f"q{i:02}": f"gold {i + 10}?" for i in range(30)}
    pool = questions(
        stems,
        stem_scores={"id": list(stems), "neurons": [[1]] * 31},
        stem_states={"id": list(stems), "state": [[1.0]] * 31},
    )
    for builder in ("stem_overlap", "hidden_cosine", "lexical", "random"):
        assert len(chosen(builder, pool, max_stem_share=1)) == 3
        assert len(chosen(builder, pool, max_stem_share=1, balance_answers=True)) == 3 * REACH
