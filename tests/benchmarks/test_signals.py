"""What signals are worth, where the truth is known: only length, noise, a planted signal, ties by hand."""

import numpy as np
import polars as pl
import pytest
import torch
from scipy.stats import rankdata, spearmanr

from benchmarks import signal_probe, signal_statistics
from benchmarks.signal_page import forest, write_page
from benchmarks.signal_probe import gradients
from benchmarks.signal_statistics import (
    ALL_WORLDS,
    FAMILIES,
    GIVEN,
    associations,
    dense,
    figure,
    learnt_rows,
    midranks,
    resamples,
    signal_rows,
    with_p_adjusted,
)
from benchmarks.signal_tables import CONTROLLED, LEARNABILITY, OUTCOMES, nearest_stems
from pipeline.models import encode_chat
from pipeline.prompts import render_teacher_prompt
from pipeline.selection.rules import RULES

WORLDS = ["world 0", "world 1"]
NAMES = [name for names in FAMILIES.values() for name in names]


def drawn_table(rng, n=150):
    """Signals without worth, but for ``stem_density``, which tells of rightness, and ``neuron_support``, of length."""
    table = {name: rng.normal(size=n) for name in NAMES}
    table["neuron_support"] = table["length"] + 0.5 * rng.normal(size=n)
    right = table["stem_density"] + table["length"] + rng.normal(size=n) > 0
    gains = {name: rng.normal(size=n) + table["length"] for name in OUTCOMES[1:]}
    return pl.DataFrame({"id": [f"{i:03}" for i in range(n)], "right": right.astype(float), **gains, **table})


@pytest.fixture(scope="module")
def tables():
    rng = np.random.default_rng(0)
    tables = {world: [drawn_table(rng) for _ in range(2)] for world in WORLDS}
    nothing = dict.fromkeys((*OUTCOMES[1:], *LEARNABILITY, *CONTROLLED), pl.lit(None, pl.Float64))
    return tables | {"elsewhere": [drawn_table(rng).with_columns(**nothing)]}


@pytest.fixture(scope="module")
def results(tables):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signal_statistics, "N_RESAMPLES", 60)
        signals = with_p_adjusted(signal_rows(tables, WORLDS), ["world", "outcome", "kind"])
        learnt = with_p_adjusted(learnt_rows(tables, WORLDS), ["outcome"])
    pairs = [(world, one, other, 0.2) for world in tables for one in RULES for other in RULES]
    overlap = pl.DataFrame(pairs, schema=["world", "rule", "other", "jaccard"], orient="row")
    cost = {"world": WORLDS[0], "rule": "random", "mean": 0.3, "n": 30, **figure(np.array([0.1, 0.05, 0.2]))}
    return {"signals": signals, "learnt": learnt, "overlap": overlap, "causal": with_p_adjusted([cost], ["world"])}


def row_of(table, **wanted):
    return table.row(
        by_predicate=pl.all_horizontal(pl.col(k).eq_missing(pl.lit(v)) for k, v in wanted.items()), named=True
    )


def test_every_rule_belongs_to_a_family():
    assert set(RULES) - {"random", "full"} <= set(NAMES)


def test_ranks_of_a_resample_are_those_of_its_rows():
    rng = np.random.default_rng(0)
    values, counts = rng.integers(5, size=(30, 3)), rng.integers(4, size=30)
    rows = np.repeat(np.arange(30), counts)
    np.testing.assert_allclose(midranks(dense(values), counts)[rows], rankdata(values[rows], axis=0))


def test_alone_is_spearmans_rho_of_the_resample():
    rng = np.random.default_rng(0)
    values, counts = rng.integers(6, size=(40, 3)), rng.integers(3, size=40)
    rows = np.repeat(values, counts, axis=0)
    alone, given_nothing = associations(dense(values), counts, n_given=0)
    wanted = [spearmanr(rows[:, column], rows[:, 2]).statistic for column in (0, 1)]
    np.testing.assert_allclose(alone, wanted)
    np.testing.assert_allclose(given_nothing, wanted)


def test_auroc_counts_ties_half():
    places = dense(np.array([[1, 0], [2, 0], [2, 1], [3, 1]]))
    assert associations(places, np.ones(4), n_given=0, is_label=True)[0] == pytest.approx([3.5 / 4])
    assert associations(places, np.array([2, 0, 1, 1]), n_given=0, is_label=True)[0] == pytest.approx([1])


def test_given_others_is_the_textbook_formula():
    rng = np.random.default_rng(0)
    x, y, z = rng.normal(size=(3, 50))
    x, y = x + z, y - z
    xy, xz, yz = (spearmanr(*pair).statistic for pair in ((x, y), (x, z), (y, z)))
    partial = associations(dense(np.column_stack([x, y, z])), np.ones(50), n_given=1)[1]
    assert partial == pytest.approx([(xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))])


def test_a_planted_signal_is_found_and_length_is_none(results):
    for world in (*WORLDS, ALL_WORLDS):
        own = {"world": world, "outcome": "right", "kind": "partial"}
        planted, only_length = (row_of(results["signals"], signal=s, **own) for s in ("stem_density", "neuron_support"))
        assert planted["low"] > 0.2
        assert abs(only_length["value"]) < 0.15
        assert only_length["p_adjusted"] > 0.05
    mean = {"world": ALL_WORLDS, "outcome": "right"}
    assert row_of(results["signals"], signal="stem_density", kind="partial", **mean)["p_adjusted"] < 0.05
    assert row_of(results["signals"], signal="neuron_support", kind="alone", **mean)["low"] > 0.5
    for name in GIVEN:
        assert row_of(results["signals"], signal=name, kind="partial", **mean)["value"] is None


def test_what_is_learnt_elsewhere_helps_only_where_there_is_something(results):
    added = {"signals": "answers, neurons", "over": "answers"}
    right, gain = (row_of(results["learnt"], world=ALL_WORLDS, outcome=o, **added) for o in ("right", "teacher_gain"))
    assert right["low"] > 0.05
    assert gain["low"] < 0 < gain["high"] < 0.1
    noise = {"signals": "answers, contexts", "over": "answers", "outcome": "right"}
    assert row_of(results["learnt"], world=ALL_WORLDS, **noise)["p_adjusted"] > 0.05


def test_a_world_is_not_among_what_its_combination_is_learnt_on(tables):
    mixed = {name: [t.with_columns(right=1 - pl.col("right")) for t in tables[name]] for name in WORLDS[1:]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signal_statistics, "N_RESAMPLES", 2)
        rows = pl.DataFrame(learnt_rows({WORLDS[0]: tables[WORLDS[0]], **mixed}, WORLDS), infer_schema_length=None)
    own = row_of(rows, world=WORLDS[0], outcome="right", signals="answers, neurons", over=None)
    assert own["value"] < 0.3  # the other world taught the contrary; own rows would have corrected it


def test_of_a_run_that_was_not_asked_only_rightness_is_told(results):
    signals, learnt = (results[name].filter(pl.col("world") == "elsewhere") for name in ("signals", "learnt"))
    assert set(signals["outcome"]) == set(learnt["outcome"]) == {"right"}
    assert row_of(signals, signal="stem_density", kind="partial", outcome="right")["low"] > 0
    assert signals.filter(pl.col("signal").is_in(LEARNABILITY), pl.col("kind") == "partial")["value"].null_count() == 3
    assert not any("gradients" in name for name in learnt["signals"])


def test_a_question_without_a_value_counts_as_the_last():
    table = drawn_table(np.random.default_rng(0))
    best = table.with_columns(stem_density=pl.when(pl.col("right") == 1).then("stem_density"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signal_statistics, "N_RESAMPLES", 2)
        rows = pl.DataFrame(signal_rows({"w": [best]}, ["w"]), infer_schema_length=None)
    own = {"signal": "stem_density", "outcome": "right", "kind": "alone", "world": "w"}
    assert row_of(rows, **own)["value"] == pytest.approx(1)


def test_resamples_draw_one_seed_fewer_and_as_many_questions():
    first, *others = resamples("w", 20, 5)
    assert first[0].tolist() == [0, 1, 2, 3, 4]
    assert set(first[1]) == {1}
    assert {(len(seeds), counts.sum()) for seeds, counts in others} == {(4, 20)}


def test_the_page_says_what_holds(results, tables):
    page = write_page(results, tables, "python -m benchmarks.signals study.yaml")
    assert "- neurons (1 of 8): `stem_density` +0." in page
    assert "over answers, neurons add, +0." in page
    assert "over answers, contexts add nothing that shows" in page
    assert "`neuron_support` " not in page.partition("## How")[0].partition("**What")[0]
    assert forest(results["signals"]).startswith(b"\x89PNG")


def test_nearest_stems_are_others_that_share_rarer_neurons():
    sets = {"a": [1, 2, 3], "b": [2, 3, 4], "c": [9]}
    stems = pl.LazyFrame({"id": list(sets), "neurons": list(sets.values())})
    rows, is_near = nearest_stems(stems, pl.Series("id", list(sets)))
    assert [rows[i][is_near[i]].tolist() for i in range(3)] == [[1], [0], []]


def test_gradients_are_those_of_the_divergence_from_the_teacher(tiny, monkeypatch):
    weight = tiny.model.get_output_embeddings().weight
    monkeypatch.setattr(signal_probe, "SKETCHED", len(weight))
    prompts = {name: encode_chat(tiny.tokenizer, name) for name in ("one?", "two?")}
    rollouts = pl.DataFrame(
        [
            {"id": name, "sample": s, "prompt": name, "prompt_ids": ids, "response_ids": [40 + s, 50, 60]}
            for name, ids in prompts.items()
            for s in range(3)
        ]
    )
    found = gradients(rollouts, {"one?": "Example x\n", "two?": "Example y\n"}, tiny)

    def log_probs(prompt, response):
        logits = tiny.model(input_ids=torch.tensor([[*prompt, *response]])).logits
        return logits[0, len(prompt) - 1 : -1].log_softmax(-1)

    told, loss = encode_chat(tiny.tokenizer, render_teacher_prompt("Example y\n", "two?")), torch.zeros(())
    for response in ([40, 50, 60], [41, 50, 60]):  # the third sample is not looked at
        teacher, student = log_probs(told, response).detach(), log_probs(prompts["two?"], response)
        loss = loss + (teacher.exp() * (teacher - student)).sum(-1).mean() / 2
    (wanted,) = torch.autograd.grad(loss, weight)
    np.testing.assert_allclose(found[1], wanted.flatten().numpy(), atol=1e-6)
