"""Stems and rationales equal the equation over their own tokens, whatever the batch, and come from the same pass."""

from functools import partial

import numpy as np
import polars as pl
import pytest
import torch

from pipeline.answers.schemas import ANSWERS
from pipeline.models import LanguageModel
from pipeline.neurons.config import NeuronScoresConfig
from pipeline.neurons.score import COLUMNS, NeuronScorer, scorable
from pipeline.rollouts.schemas import ROLLOUTS
from pipeline.stages import CATALOGUE
from pipeline.table import conform

SMALL = {"top_k": 90, "top_k_per_layer": 25, "chunk_tokens": 5}
VOCABULARY = range(4, 200)


def empty(schema):
    return pl.DataFrame(schema.empty_table()).schema


def sampled(n_questions=4, n_samples=2):
    """Rollouts of random tokens and their answers; question q1 has no known stem, and samples 1 abstain."""
    rng, rollouts, answers = np.random.default_rng(0), [], []
    for question in range(n_questions):
        prompt = rng.integers(VOCABULARY.start, VOCABULARY.stop, 8 + 5 * question)
        for sample in range(n_samples):
            response = rng.integers(VOCABULARY.start, VOCABULARY.stop, rng.integers(6, 20))
            key = {"id": f"q{question}", "sample": sample}
            said = {"prompt_ids": prompt, "response_ids": response, "logprobs": []}
            stem = {"stem_start": 1 + question, "stem_stop": 6 + 4 * question} if question != 1 else {}
            stated = {"answer_start": len(response) - 5, "answer_stop": len(response) - 2} if sample != 1 else {}
            rollouts.append(dict.fromkeys(ROLLOUTS.names) | key | said | stem)
            answers.append(dict.fromkeys(ANSWERS.names) | key | stated)
    return pl.DataFrame(rollouts, schema=empty(ROLLOUTS)), pl.DataFrame(answers, schema=empty(ANSWERS))


ROLLOUT_ROWS, ANSWER_ROWS = sampled()
ROWS = scorable(ROLLOUT_ROWS.lazy(), ANSWER_ROWS.lazy()).collect()


def test_scorable_rollouts_are_the_rollouts_in_their_order_with_the_place_of_their_answer():
    shuffled = ROLLOUT_ROWS.sample(fraction=1, shuffle=True, seed=3)
    got = scorable(shuffled.lazy(), ANSWER_ROWS.lazy()).collect()
    assert got.columns == list(COLUMNS)
    assert got.drop("answer_start", "answer_stop").equals(shuffled.select(got.columns[:-2]))
    stated = {(row[0], row[1]): row[2:] for row in ANSWER_ROWS.select("id", "sample", *COLUMNS[-2:]).iter_rows()}
    for row in got.iter_rows(named=True):
        assert (row["answer_start"], row["answer_stop"]) == stated[row["id"], row["sample"]]
    assert got["answer_start"].null_count() == 4


def run(rollouts, model, **settings):
    tables = NeuronScorer(model, NeuronScoresConfig(**settings)).score(rollouts)
    for name, table in tables._asdict().items():
        conform(table, CATALOGUE["neuron_scores"][name], name)
    return tables


def sets(table):
    keys = table.select(pl.exclude("neurons", "scores")).rows()
    values = table.select("neurons", "scores").rows()
    return {key: dict(zip(*row, strict=True)) for key, row in zip(keys, values, strict=True)}


def traced(row, model, unit):
    """Return activations per layer and token, and hidden states that leave the last layer, of one rollout alone."""
    ids, seen, hooks = torch.tensor([row["prompt_ids"] + row["response_ids"]]), {}, []
    for layer, block in enumerate(model.model.layers):
        module = block.mlp.act_fn if unit == "act_fn" else block.mlp.down_proj
        take = partial(lambda layer, _, args, out: seen.__setitem__(layer, out if unit == "act_fn" else args[0]), layer)
        hooks.append(module.register_forward_hook(take))
    hooks.append(model.model.norm.register_forward_pre_hook(lambda _, args: seen.__setitem__("end", args[0])))
    with torch.no_grad():
        model(input_ids=ids)
    for hook in hooks:
        hook.remove()
    return ids[0], seen


def naive_set(row, model, positions, config):
    """Work out the neuron set of the tokens at ``positions`` of prompt and response, one token at a time."""
    ids, seen = traced(row, model, config.unit)
    c = []
    for layer, block in enumerate(model.model.layers):
        for t in positions:
            a = seen[layer][0, t - (config.position == "predicting")].double()
            c.append((a * (model.lm_head.weight[ids[t]].double() @ block.mlp.down_proj.weight.double())).tolist())
    n_layers, d_mlp = len(model.model.layers), model.config.intermediate_size
    c = np.array(c).reshape(n_layers, len(positions), d_mlp)
    if config.cut == "neurons":
        peak = c.max(axis=1, keepdims=True) if positions else np.zeros((n_layers, 1, d_mlp))
        floor = np.sort(peak)[..., -config.top_k_per_layer, None]
        c = np.where(peak >= floor, peak, 0)
    best = {}
    for entry in np.argsort(-c, axis=None)[: config.top_k]:
        layer, _, i = np.unravel_index(entry, c.shape)
        if c.flat[entry] > 0:
            best.setdefault(int(layer * d_mlp + i), c.flat[entry])
    return best


@pytest.mark.parametrize("unit", ["act_fn", "down_proj_input"])
@pytest.mark.parametrize("position", ["predicting", "consuming"])
@pytest.mark.parametrize("cut", ["entries", "neurons"])
def test_stems_and_rationales_equal_the_equation(tiny, unit, position, cut):
    config = NeuronScoresConfig(unit=unit, position=position, cut=cut, **SMALL)
    tables = run(ROWS, tiny, **config.model_dump())
    stems, rationales = sets(tables.stem_scores), sets(tables.rationale_scores)
    assert list(stems) == [("q0",), ("q2",), ("q3",)]
    for row in ROWS.iter_rows(named=True):
        start, stop = len(row["prompt_ids"]), len(row["prompt_ids"]) + len(row["response_ids"])
        stated = range(start + row["answer_start"], start + row["answer_stop"]) if row["answer_start"] else ()
        rationale = naive_set(row, tiny.model, [t for t in range(start, stop) if t not in stated], config)
        assert rationales[row["id"], row["sample"]] == pytest.approx(rationale, rel=1e-4, abs=1e-6)
        if row["sample"] == 0 and row["stem_start"]:
            stem = naive_set(row, tiny.model, range(row["stem_start"], row["stem_stop"]), config)
            assert stems[row["id"],] == pytest.approx(stem, rel=1e-4, abs=1e-6)


def test_states_are_the_mean_of_what_leaves_the_last_layer_over_the_stem(tiny):
    states = dict(run(ROWS, tiny).stem_states.rows())
    for row in ROWS.filter(pl.col("sample") == 0, pl.col("stem_start").is_not_null()).iter_rows(named=True):
        end = traced(row, tiny.model, "act_fn")[1]["end"][0, row["stem_start"] : row["stem_stop"]]
        np.testing.assert_allclose(states[row["id"]], end.mean(dim=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cut", ["entries", "neurons"])
def test_a_rationale_without_a_stated_answer_is_the_response(tiny, cut):
    tables = run(ROWS, tiny, cut=cut, **SMALL)
    abstained = [table.filter(sample=1) for table in (tables.neuron_scores, tables.rationale_scores)]
    assert abstained[0].equals(abstained[1])
    answered = [table.filter(sample=0) for table in (tables.neuron_scores, tables.rationale_scores)]
    assert not answered[0].equals(answered[1])


@pytest.mark.parametrize("cut", ["entries", "neurons"])
def test_a_response_that_is_nothing_but_its_answer_has_an_empty_rationale(tiny, cut):
    rows = ROWS.with_columns(
        answer_start=pl.lit(0, pl.Int32), answer_stop=pl.col("response_ids").list.len().cast(pl.Int32)
    )
    tables = run(rows, tiny, cut=cut, **SMALL)
    assert tables.rationale_scores["neurons"].list.len().sum() == 0
    assert tables.neuron_scores["neurons"].list.len().min() > 0
    assert tables.rationale_scores.select("id", "sample").equals(rows.select("id", "sample"))


@pytest.mark.parametrize("cut", ["entries", "neurons"])
def test_spans_change_nothing_of_what_is_said_of_responses(tiny, cut):
    spans = ["stem_start", "stem_stop", "answer_start", "answer_stop"]
    without = run(ROWS.with_columns(pl.lit(None, pl.Int32).alias(name) for name in spans), tiny, cut=cut, **SMALL)
    tables = run(ROWS, tiny, cut=cut, **SMALL)
    assert tables.neuron_scores.equals(without.neuron_scores)
    assert tables.neuron_sizes.equals(without.neuron_sizes)
    assert without.rationale_scores.equals(without.neuron_scores)
    assert len(without.stem_scores) == len(without.stem_states) == 0


@pytest.mark.parametrize("cut", ["entries", "neurons"])
def test_neither_batch_nor_order_nor_chunks_matter(tiny, cut):
    alone = run(ROWS, tiny, cut=cut, **{**SMALL, "batch_tokens": 1})
    shuffled = ROWS.sample(fraction=1, shuffle=True, seed=1)
    for batch_tokens, chunk_tokens in ((60, 1), (10_000, 5), (10_000, 1_000)):
        settings = {**SMALL, "batch_tokens": batch_tokens, "chunk_tokens": chunk_tokens}
        tables = run(shuffled, tiny, cut=cut, **settings)
        for found, expected in (
            (tables.stem_scores, alone.stem_scores),
            (tables.rationale_scores, alone.rationale_scores),
        ):
            found, expected = sets(found), sets(expected)
            assert found.keys() == expected.keys()
            for key, scores in found.items():
                assert scores == pytest.approx(expected[key], rel=1e-4, abs=1e-5)
        states = (dict(found.stem_states.rows()) for found in (tables, alone))
        found, expected = ([state for _, state in sorted(of.items())] for of in states)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_first_token_of_a_sequence_is_left_out_as_nothing_predicts_it(tiny):
    first, second = (run(ROWS.with_columns(stem_start=pl.lit(n, pl.Int32)), tiny, **SMALL) for n in (0, 1))
    assert first.stem_scores.equals(second.stem_scores)
    only = ROWS.with_columns(stem_start=pl.lit(0, pl.Int32), stem_stop=pl.lit(1, pl.Int32))
    assert run(only, tiny).stem_scores.is_empty()


def test_a_stem_whose_figures_are_no_numbers_costs_no_response(tiny):
    """A row of the unembedding is broken, and stands for a token of one stem and of no response."""
    broken = LanguageModel(type(tiny.model)(tiny.model.config).eval(), None)
    token = VOCABULARY.stop + 3
    broken.model.lm_head.weight.data[token] = float("nan")
    prompts = [
        [*ids[:3], token, *ids[4:]] if name == "q2" else ids for name, ids in ROWS.select("id", "prompt_ids").rows()
    ]
    rows = ROWS.with_columns(prompt_ids=pl.Series(prompts, dtype=pl.List(pl.Int32)))
    tables = run(rows, broken, **SMALL)
    assert tables.unscored_rollouts.is_empty()
    assert tables.stem_scores["id"].to_list() == tables.stem_states["id"].to_list() == ["q0", "q3"]


def test_scores_are_rounded_where_asked(tiny):
    full, half = (run(ROWS, tiny, score_dtype=kind, **SMALL) for kind in ("float32", "float16"))
    for name in ("rationale_scores", "stem_scores"):
        exact, rounded = (getattr(t, name)["scores"].explode(empty_as_null=False).to_numpy() for t in (full, half))
        np.testing.assert_array_equal(rounded, exact.astype(np.float16).astype(np.float32))
