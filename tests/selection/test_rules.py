"""The formula of each rule, on a handful of questions."""

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pipeline.beliefs.schemas import CONTEXT_BELIEFS
from pipeline.errors import ConfigError
from pipeline.neurons.schemas import NEURON_SCORES, NEURON_SIZES
from pipeline.pool.schemas import RAW_POOL
from pipeline.presets import BELIEF_RULES
from pipeline.retrieval.sets import NeuronSets, jaccard
from pipeline.seeding import derive_seed
from pipeline.selection.coverage import greedy_cover
from pipeline.selection.rule import Signals
from pipeline.selection.rules import RULES
from pipeline.votes.schemas import PSEUDO_LABELS


def empty(schema):
    return pl.DataFrame(schema.empty_table())


def table(schema, rows):
    """Build a table of the columns that ``rows`` give."""
    kinds = empty(schema).schema
    return pl.DataFrame(rows, schema={name: kinds[name] for name in rows[0]})


def score(rule, ids, **tables):
    """Return {id: score} of the rule for a pool of ``ids``."""
    nothing = Signals(
        pool=table(RAW_POOL, [{"id": key} for key in ids]),
        pseudo_labels=empty(PSEUDO_LABELS),
        neuron_sizes=empty(NEURON_SIZES),
        neuron_scores=empty(NEURON_SCORES).lazy(),
        stem_scores=empty(NEURON_SCORES).drop("sample").lazy(),
        beliefs=empty(CONTEXT_BELIEFS),
    )
    return dict(RULES[rule](replace(nothing, **tables)).select("id", "score").iter_rows())


def sizes(rollouts):
    """Build NEURON_SIZES from {id: [(|N|, response tokens) per rollout]}."""
    return table(
        NEURON_SIZES,
        [
            {"id": key, "sample": sample, "n_neurons": n, "n_response_tokens": tokens, "self_certainty": n / 10}
            for key, given_rollouts in rollouts.items()
            for sample, (n, tokens) in enumerate(given_rollouts)
        ],
    )


def sets(questions):
    """Build NEURON_SCORES from {id: [neurons per rollout]}, samples of different questions in turn."""
    rows = [
        {"id": key, "sample": sample, "neurons": sorted(neurons)}
        for key, rollouts in questions.items()
        for sample, neurons in enumerate(rollouts)
    ]
    return table(NEURON_SCORES, rows).sort("sample", "id").lazy()


def votes(shares):
    """Build PSEUDO_LABELS from {id: (vote share, entropy) or None without a vote}."""
    rows = [(key, *(figures or (0.0, 0.0)), 0 if figures is None else 5) for key, figures in shares.items()]
    columns = ("id", "vote_share", "entropy", "n_votes")
    return table(PSEUDO_LABELS, [dict(zip(columns, row, strict=True)) for row in rows])


def test_per_token_takes_the_mean_of_the_rollouts_ratios():
    given_sizes = sizes({"a": [(10, 5), (30, 10)], "b": [(0, 4)], "c": [(0, 4), (8, 8)]})
    assert score("neuron_support_per_token", "abc", neuron_sizes=given_sizes) == {"a": 2.5, "b": None, "c": 1.0}


def test_residual_is_that_of_the_line_through_the_ranks():
    given_sizes = {"a": [(10, 5), (14, 5)], "b": [(40, 9)], "c": [(12, 30)], "d": [(50, 5)], "e": [(0, 3)]}
    n_neurons, lengths = stats.rankdata([12, 40, 12, 50]), stats.rankdata([5, 9, 30, 5])
    line = stats.linregress(lengths, n_neurons)
    expected = n_neurons - line.intercept - line.slope * lengths
    got = score("neuron_support_residual", "abcde", neuron_sizes=sizes(given_sizes))
    assert got == pytest.approx(dict(zip("abcd", expected, strict=True)))
    assert np.dot([got[key] for key in "abcd"], lengths) == pytest.approx(0)


def test_residual_without_lengths_to_regress_on_is_the_order_of_the_sizes():
    equal = sizes({"a": [(9, 5)], "b": [(7, 5)], "c": [(8, 5)]})
    assert score("neuron_support_residual", "abc", neuron_sizes=equal) == {"a": 1, "b": -1, "c": 0}
    assert score("neuron_support_residual", "a", neuron_sizes=sizes({"a": [(0, 5)]})) == {}


@pytest.mark.parametrize("rows", [1, 3, 1_000])
def test_agreement_is_the_mean_over_all_pairs_of_supported_rollouts(monkeypatch, rows):
    monkeypatch.setitem(RULES["neuron_agreement"].__globals__, "_ROWS", rows)
    questions = {
        "a": [{1, 2, 3}, {2, 3, 4}, {9}],
        "b": [{5, 6}, {5, 6}],
        "c": [{5}],
        "d": [{1, 2}, set(), {2}],
        "e": [set(), {3}],
    }
    got = score("neuron_agreement", "abcdef", neuron_scores=sets(questions))
    assert got == {"a": pytest.approx(1 - 0.5 / 3), "b": 0, "c": None, "d": 0.5, "e": None}
    pairs = [jaccard(np.array(sorted(one)), np.array(sorted(other))) for one, other in combinations(questions["a"], 2)]
    assert got["a"] == pytest.approx(1 - np.mean(pairs))


def test_coverage_takes_the_most_new_neurons_first():
    stems = {"a": [{1, 2, 3}], "b": [{1, 2, 3, 4}], "c": [{5, 6}], "d": [{4}], "e": [set()]}
    # After b and c all is covered but what a third holder adds: a holds three neurons, d one.
    expected = {"b": 0, "c": 1, "a": 2, "d": 3}
    assert score("stem_coverage", "abcdef", stem_scores=sets(stems)) == expected
    rollouts = {"a": [{1}, {2, 3}], "b": [{1, 2}, {3, 4}], "c": [{5, 6}, {5}], "d": [{4}]}
    assert score("neuron_coverage", "abcd", neuron_scores=sets(rollouts)) == expected


def brute_force_cover(neuron_sets, seed):
    left, chosen = {key for key, neurons in neuron_sets.items() if neurons}, []

    def worth(keys):
        held = [neuron for key in keys for neuron in neuron_sets[key]]
        return sum(math.sqrt(held.count(neuron)) for neuron in set(held))

    while left:
        gains = {key: worth([*chosen, key]) - worth(chosen) for key in left}
        best = [key for key in left if gains[key] > max(gains.values()) - 1e-9]
        chosen.append(min(best, key=lambda key: derive_seed(seed, "cover", key)))
        left.remove(chosen[-1])
    return chosen


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sets(st.integers(0, 8), max_size=4), max_size=9), st.integers(0, 3))
def test_lazy_greedy_is_greedy(drawn, seed):
    neuron_sets = {f"q{number}": neurons for number, neurons in enumerate(drawn)}
    rows = [{"id": key, "neurons": sorted(neurons)} for key, neurons in neuron_sets.items()]
    packed = NeuronSets.of(pl.DataFrame(rows, schema={"id": pl.String, "neurons": pl.List(pl.Int32)}), neuron_sets)
    order = [packed.ids[row] for row in greedy_cover(packed, seed)]
    assert order == brute_force_cover(neuron_sets, seed)


def test_rules_over_votes_leave_out_questions_without_one():
    labels = votes({"a": (0.4, 1.1), "b": None, "c": (1.0, 0.0)})
    assert score("disagreement", "abc", pseudo_labels=labels) == {"a": 0.4, "c": 1.0}
    assert score("entropy", "abc", pseudo_labels=labels) == {"a": 1.1, "c": 0.0}


def test_rules_over_the_rollouts_means():
    given_sizes = sizes({"a": [(10, 5), (20, 8)], "b": [(30, 4)]})
    assert score("length", "ab", neuron_sizes=given_sizes) == {"a": 6.5, "b": 4}
    assert score("self_certainty", "ab", neuron_sizes=given_sizes) == {"a": 1.5, "b": 0}


def test_beliefs_that_shift_come_first():
    beliefs = table(
        CONTEXT_BELIEFS,
        [
            {"id": "a", "belief_shift": 0.6, "informed_share": 0.5},
            {"id": "b", "belief_shift": 0.5, "informed_share": 1.0},
            {"id": "c", "belief_shift": None, "informed_share": None},
        ],
    )
    shifts = score("belief_shift", "abc", beliefs=beliefs)
    assert shifts == {"a": pytest.approx(math.log(2) - 0.6), "b": pytest.approx(math.log(2) - 0.5), "c": None}
    confident = score("confident_shift", "abc", beliefs=beliefs)
    assert confident == {"a": pytest.approx(math.log(2) - 0.3), "b": pytest.approx(math.log(2) - 0.5), "c": None}


def test_a_new_answer_is_one_that_the_model_does_not_vote_for():
    rows = [("a", "red", 0.5), ("b", "red", 0.9), ("c", None, 0.4), ("d", "red", 0.8), ("e", None, None)]
    beliefs = table(CONTEXT_BELIEFS, [{"id": i, "informed_answer": a, "informed_share": p} for i, a, p in rows])
    labels = table(
        PSEUDO_LABELS, [{"id": i, "pseudo_answer": a} for i, a in (("a", "blue"), ("b", "red"), ("d", None))]
    )
    expected = {"a": 0.5, "b": 1.0, "c": 1.0, "d": pytest.approx(0.2), "e": None}
    assert score("new_answer", "abcde", beliefs=beliefs, pseudo_labels=labels) == expected


def test_a_steady_shift_counts_how_sure_the_teacher_is_of_near_questions():
    # Twelve stems share neuron 0, which therefore tells no subject. The rest of a's and b's overlaps by 1/3, of a's
    # and c's by 1/2; those of the others have no neighbour.
    stems = {"a": [{0, 1, 2}], "b": [{0, 1, 3}], "c": [{0, 1, 2, 4, 5}]} | {f"x{i}": [{0, 90 + i}] for i in range(9)}
    shares = {"a": 0.5, "b": 0.8, "c": 1.0}
    rows = [{"id": key, "belief_shift": 0.6, "informed_share": shares.get(key, 1.0)} for key in stems]
    got = score("steady_shift", stems, beliefs=table(CONTEXT_BELIEFS, rows), stem_scores=sets(stems).drop("sample"))
    steadiness = (0.8 / 3 + 1.0 / 2) / (1 / 3 + 1 / 2)
    assert got["a"] == pytest.approx(math.log(2) - 0.6 * 0.5 * steadiness)
    assert math.isnan(got["x0"])


def test_a_steady_shift_looks_at_the_five_nearest():
    stems = {f"q{i}": [{0, *range(1, i + 2)}] for i in range(8)}
    rows = [{"id": key, "belief_shift": 0.1, "informed_share": i / 10} for i, key in enumerate(stems)]
    got = score("steady_shift", stems, beliefs=table(CONTEXT_BELIEFS, rows), stem_scores=sets(stems).drop("sample"))
    weights = {i: (i + 2) / 9 for i in range(7)}  # of q7, which holds all of the others
    nearest = sorted(weights, key=weights.__getitem__)[-5:]
    steadiness = sum(weights[i] * i / 10 for i in nearest) / sum(weights[i] for i in nearest)
    assert got["q7"] == pytest.approx(math.log(2) - 0.1 * 0.7 * steadiness)


@pytest.mark.parametrize("rule", RULES)
def test_rules_over_beliefs_say_how_to_get_them_and_settings_know_which_they_are(rule):
    said = ""
    try:
        score(rule, "abc")
    except ConfigError as error:
        said = str(error)
    assert ("set context_beliefs.n_samples" in said) == (rule in BELIEF_RULES)
