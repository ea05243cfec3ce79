"""Rollouts that share their prompt are scored as each would be alone, in every family; what cannot share runs alone."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from families import FAMILIES, V, build
from transformers import Phi3Config, Phi3ForCausalLM

from pipeline.models import LanguageModel
from pipeline.neurons import score
from pipeline.neurons.architecture import find_mlp_stack
from pipeline.neurons.batch import can_share_prompts
from pipeline.neurons.config import NeuronScoresConfig
from pipeline.neurons.score import COLUMNS, NeuronScorer

TOKENIZER = SimpleNamespace(model_max_length=512)  # the positions of families whose config names none

HYBRID = {"qwen3_5_text", "falcon_h1", "olmo_hybrid"}
"""Families whose states of linear attention or state spaces hold the padding: every rollout runs whole."""
LOCAL = {"gpt_neo": {"attention_types": [[["local", "global", "local"], 1]], "window_size": 4}}


def questions(n_prompt=(2, 4, 9, 15, 9), n_samples=3, shortest=1, longest=24, permuted=()):
    """Rollouts of questions whose prompts have these lengths; those ``permuted`` show each sample another prompt."""
    rng, rows = np.random.default_rng(0), []
    for number, length in enumerate(n_prompt):
        prompt = rng.integers(3, V, length)
        for sample in range(n_samples):
            own = np.concatenate([prompt[:1], rng.permutation(prompt[1:])]) if number in permuted else prompt
            row = dict.fromkeys(COLUMNS) | {"id": f"q{number}", "sample": sample, "logprobs": [0.0]}
            response = rng.integers(3, V, rng.integers(shortest, longest + 1)).tolist()
            spans = {
                "stem_start": 1,
                "stem_stop": max(length - 1, 2),
                "answer_start": 0,
                "answer_stop": len(response) // 4,
            }
            rows.append(row | {"prompt_ids": own.tolist(), "response_ids": response} | spans)
    return pl.DataFrame(rows, infer_schema_length=None)


def run(rows, model, shared=True, **settings):
    """Score rollouts; unshared, each runs whole in a pass of its own."""
    alone = {} if shared else {"batch_tokens": 1}
    scorer = NeuronScorer(LanguageModel(model, TOKENIZER), NeuronScoresConfig(**{"top_k": 150} | settings | alone))
    scorer._can_share &= shared
    return scorer.score(rows)


def assert_same(found, expected):
    for name in ("neuron_scores", "rationale_scores", "stem_scores"):
        tables = [getattr(of, name) for of in (found, expected)]
        assert tables[0].drop("scores").equals(tables[1].drop("scores")), name
        np.testing.assert_allclose(*(t["scores"].explode(empty_as_null=False) for t in tables), rtol=1e-4, atol=1e-5)
    for name in ("score_sum", "participation_ratio", "entropy_size", "displacement"):
        np.testing.assert_allclose(found.neuron_sizes[name], expected.neuron_sizes[name], rtol=1e-4)
    states = [np.array(of.stem_states["state"].to_list()) for of in (found, expected)]
    np.testing.assert_allclose(*states, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("window", [4, 64])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_scores_shared_prompts_as_rollouts_alone(family, window):
    """With a window shorter and longer than the prompts, where the family has one."""
    settings = FAMILIES[family] | (LOCAL.get(family, {}) if window == 4 else {})
    model = build(family, initializer_range=0.2, sliding_window=window, use_sliding_window=True, **settings)
    assert can_share_prompts(find_mlp_stack(model)) == (family not in HYBRID)
    rows = questions()
    assert_same(run(rows, model), run(rows, model, shared=False))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("position", ["predicting", "consuming"])
@pytest.mark.parametrize("cut", ["entries", "neurons"])
def test_neither_samples_nor_batch_nor_order_matter(tied, position, cut):
    model = build("llama", initializer_range=0.2, tie_word_embeddings=tied)
    settings = {"position": position, "cut": cut, "top_k_per_layer": 30}
    for n_samples in (1, 4):
        rows = questions(n_samples=n_samples, permuted=(2, 3), longest=60)
        alone = run(rows, model, shared=False, **settings)
        for batch_tokens in (1, 150, 10_000):
            assert_same(run(rows, model, batch_tokens=batch_tokens, chunk_tokens=7, **settings), alone)
        order = np.random.default_rng(1).permutation(len(rows))
        found = run(rows[order.tolist()], model, **settings)
        in_order = [t.sort("id", "sample") if "sample" in t.columns else t.sort("id") for t in found]
        assert_same(type(found)(*in_order), alone)


def test_a_prompt_runs_once_whatever_its_samples(monkeypatch):
    model, ran = build("llama"), []
    forward = model.model.forward
    monkeypatch.setattr(
        model.model, "forward", lambda **given: (ran.append(given["input_ids"].numel()), forward(**given))[1]
    )
    rows = questions(n_prompt=(9, 9), n_samples=5)
    rows = rows.with_columns(response_ids=pl.lit([5, 6, 7]))
    run(rows, model)
    assert ran == [2 * 8, 10 * 4]
    ran.clear()
    run(rows, model, shared=False)
    assert ran == [12] * 10


def test_what_cannot_share_is_scored_all_the_same(monkeypatch):
    """A prompt of one token, and a stem that ends with its prompt."""
    model, together = build("llama", initializer_range=0.2), []
    rows = questions(n_prompt=(1, 6, 8))
    ends = pl.when(pl.col("id") == "q1").then(6).otherwise("stem_stop")
    rows = rows.with_columns(stem_stop=ends)
    whole = score.score_shared
    monkeypatch.setattr(score, "score_shared", lambda batch, *rest: (together.extend(batch), whole(batch, *rest))[1])
    found = run(rows, model, position="consuming")
    assert {rollout.id for rollout in together} == {"q2"}
    assert_same(found, run(rows, model, shared=False, position="consuming"))


def test_longrope_shares_prompts_below_its_switch_alone():
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [9.0, 2.0, 5.0, 3.0]}
    torch.manual_seed(0)
    config = Phi3Config(
        vocab_size=V, hidden_size=16, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, original_max_position_embeddings=20, pad_token_id=0,
        rope_parameters={**rope, "rope_theta": 10_000.0, "original_max_position_embeddings": 20}, initializer_range=0.2,
    )  # fmt: skip
    rows, model = questions(), Phi3ForCausalLM(config).eval()
    lengths = rows.select(pl.col("prompt_ids").list.len() + pl.col("response_ids").list.len()).to_series()
    assert lengths.min() < 20 < lengths.max()
    assert_same(run(rows, model), run(rows, model, shared=False))


def test_a_prompt_that_is_no_number_costs_its_own_question_alone():
    rows, broken, intact = questions(n_prompt=(4, 9, 12)), build("llama"), build("llama")
    token = next(
        t
        for t in rows["prompt_ids"][3][1:-1]
        if t not in set(rows.filter(pl.col("id") != "q1")["prompt_ids"].explode(empty_as_null=False))
    )
    broken.model.embed_tokens.weight.data[token] = float("nan")
    without = pl.col("response_ids").list.eval(pl.when(pl.element() == token).then(1).otherwise(pl.element()))
    rows = rows.with_columns(without)
    tables = run(rows, broken)
    assert tables.unscored_rollouts["id"].to_list() == ["q1"] * 3
    assert set(tables.unscored_rollouts["reason"]) == {"not_finite"}
    assert_same(tables, run(rows.filter(pl.col("id") != "q1"), intact))


def test_bfloat16_sets_hardly_depend_on_sharing():
    model = build("llama", hidden_size=256, intermediate_size=768, head_dim=128).to(torch.bfloat16)
    rows = questions(n_prompt=(20, 31, 25), shortest=22, longest=50)
    sets = [run(rows, model, shared, top_k=5000).neuron_scores["neurons"].to_list() for shared in (True, False)]
    overlaps = [len({*a} & {*b}) / len({*a} | {*b}) for a, b in zip(*sets, strict=True)]
    assert np.mean(overlaps) >= 0.999
    assert max(map(len, sets[0])) < 3 * 768  # the cut bites
