"""The stage equals the equation worked out token by token, whatever the batch, and loses no rollout."""

import numpy as np
import polars as pl
import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from pipeline.artifacts import conform
from pipeline.config import NeuronScoresConfig
from pipeline.errors import ArtifactError, ModelError, UnsupportedModelError
from pipeline.models import LanguageModel
from pipeline.neurons import score
from pipeline.neurons.overlap import jaccard
from pipeline.neurons.score import score_rollouts
from pipeline.schemas import NEURON_SCORES, NEURON_SIZES, ROLLOUTS

D, M, L, V = 32, 48, 3, 90
SMALL = {"top_k": 150, "top_k_per_layer": 20, "chunk_tokens": 5}


def build(dtype=torch.float32):
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=V, hidden_size=D, intermediate_size=M, num_hidden_layers=L, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, initializer_range=0.2,
    )  # fmt: skip
    return LanguageModel(Qwen3ForCausalLM(config).eval().to(dtype), tokenizer=None)


@pytest.fixture(scope="module")
def language_model():
    return build()


def rollout_table(lengths):
    """Rollouts of random tokens with the given (prompt, response) lengths."""
    rng = np.random.default_rng(0)
    rows = []
    for i, (n_prompt, n_response) in enumerate(lengths):
        row = dict.fromkeys(ROLLOUTS.names, None)
        row |= {"id": f"q{i // 2}", "sample": i % 2, "logprobs": rng.normal(size=n_response).tolist()}
        row |= {"prompt_ids": rng.integers(V, size=n_prompt), "response_ids": rng.integers(V, size=n_response)}
        rows.append(row)
    kinds = {"prompt_ids": pl.List(pl.Int32), "response_ids": pl.List(pl.Int32), "logprobs": pl.List(pl.Float32)}
    return pl.DataFrame(rows, schema_overrides=kinds)


ROWS = rollout_table([(4, 11), (1, 1), (9, 23), (5, 0), (3, 12), (6, 9), (2, 30), (7, 8)])


def run(rollouts, language_model, **settings):
    tables = list(score_rollouts(rollouts, language_model, NeuronScoresConfig(**settings), progress=False))
    return pl.concat([t[0] for t in tables]), pl.concat([t[1] for t in tables])


def as_dicts(scores):
    rows = scores.iter_rows(named=True)
    return {(r["id"], r["sample"]): dict(zip(r["neurons"], r["scores"], strict=True)) for r in rows}


def naive_contributions(row, model, unit, position):
    """Work out c [L, T, M] of one rollout alone, in float64 and by one loop per token."""
    seen = {}
    for layer, block in enumerate(model.model.layers):
        block.mlp.register_forward_pre_hook(lambda _, args, layer=layer: seen.__setitem__(layer, args[0][0]))
    with torch.no_grad():
        model(input_ids=torch.tensor([row["prompt_ids"] + row["response_ids"]]))
    c = np.zeros((L, len(row["response_ids"]), M))
    for layer, block in enumerate(model.model.layers):
        block.mlp._forward_pre_hooks.clear()
        for t, token in enumerate(row["response_ids"]):
            at = len(row["prompt_ids"]) + t - (position == "predicting")
            with torch.no_grad():
                a = torch.nn.functional.silu(block.mlp.gate_proj(seen[layer][at]))
                if unit == "down_proj_input":
                    a = a * block.mlp.up_proj(seen[layer][at])
                direct = model.lm_head.weight[token].double() @ block.mlp.down_proj.weight.double()
            c[layer, t] = (a.double() * direct).numpy()
    return c


def naive_entries(c, top_k):
    best = {}
    for entry in np.argsort(-c, axis=None, kind="stable")[:top_k]:
        layer, _, i = np.unravel_index(entry, c.shape)
        if c.flat[entry] > 0:
            best.setdefault(int(layer * M + i), c.flat[entry])
    return best


def naive_neurons(c, config):
    best = {}
    for layer in range(L):
        for start in range(0, c.shape[1], config.chunk_tokens):
            peak = c[layer, start : start + config.chunk_tokens].max(axis=0)
            for i in np.argsort(-peak)[: config.top_k_per_layer]:
                best[layer * M + i] = max(best.get(layer * M + i, 0), peak[i])
    top = sorted(best, key=best.get, reverse=True)[: config.top_k]
    return {int(n): best[n] for n in top if best[n] > 0}


@pytest.mark.parametrize("unit", ["act_fn", "down_proj_input"])
@pytest.mark.parametrize("position", ["predicting", "consuming"])
@pytest.mark.parametrize("cut", ["entries", "neurons"])
def test_scores_and_sizes_equal_the_equation(language_model, unit, position, cut):
    config = NeuronScoresConfig(unit=unit, position=position, cut=cut, **SMALL)
    scores, sizes = run(ROWS, language_model, **config.model_dump())
    found, size_of = as_dicts(scores), {(r["id"], r["sample"]): r for r in sizes.iter_rows(named=True)}
    for row in ROWS.filter(pl.col("response_ids").list.len() > 0).iter_rows(named=True):
        key = (row["id"], row["sample"])
        c = naive_contributions(row, language_model.model, unit, position)
        expected = naive_entries(c, config.top_k) if cut == "entries" else naive_neurons(c, config)
        assert found[key] == pytest.approx(expected, rel=1e-4, abs=1e-6)
        size, positive = size_of[key], c[c > 0]
        p = positive / positive.sum()
        assert size["n_neurons"] == len(expected)
        assert size["n_response_tokens"] == len(row["response_ids"])
        assert size["score_sum"] == pytest.approx(positive.sum(), rel=1e-4)
        assert size["participation_ratio"] == pytest.approx(1 / (p**2).sum(), rel=1e-4)
        assert size["entropy_size"] == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-4)
        assert size["mean_logprob"] == pytest.approx(np.mean(row["logprobs"]), rel=1e-5)
        assert size["layer_counts"] == np.bincount([n // M for n in expected], minlength=L).tolist()


@pytest.mark.parametrize("cut", ["entries", "neurons"])
def test_a_row_does_not_depend_on_its_batch_mates(language_model, cut):
    alone, alone_sizes = run(ROWS, language_model, cut=cut, batch_tokens=1, **SMALL)
    shuffled = ROWS.sample(fraction=1, shuffle=True, seed=1)
    for batch_tokens in (40, 10_000):
        scores, sizes = run(shuffled, language_model, cut=cut, batch_tokens=batch_tokens, **SMALL)
        assert scores.select("id", "sample", "neurons").equals(alone.select("id", "sample", "neurons"))
        np.testing.assert_allclose(
            scores["scores"].explode(empty_as_null=False),
            alone["scores"].explode(empty_as_null=False),
            rtol=1e-5,
            atol=1e-5,
        )
        assert sizes.select("n_neurons", "layer_counts").equals(alone_sizes.select("n_neurons", "layer_counts"))
        np.testing.assert_allclose(sizes["entropy_size"], alone_sizes["entropy_size"], rtol=1e-5)


@pytest.mark.parametrize("chunk_tokens", [1, 4, 1000])
def test_entries_do_not_depend_on_the_chunks(language_model, chunk_tokens):
    reference, sizes = run(ROWS, language_model, top_k=150)
    scores, others = run(ROWS, language_model, top_k=150, chunk_tokens=chunk_tokens)
    assert scores.equals(reference)
    np.testing.assert_allclose(others["score_sum"], sizes["score_sum"], rtol=1e-12)


def test_low_precision_sets_hardly_depend_on_the_batch():
    model = build(torch.bfloat16)
    alone, together = (as_dicts(run(ROWS, model, top_k=150, batch_tokens=n)[0]) for n in (1, 10_000))
    assert np.mean([jaccard(np.array([*alone[key]]), np.array([*together[key]])) for key in alone if alone[key]]) > 0.97


def test_every_rollout_comes_back_in_a_fixed_order(language_model):
    scores, sizes = run(ROWS, language_model, batch_tokens=40)
    conform(scores, NEURON_SCORES, "scores")
    conform(sizes, NEURON_SIZES, "sizes")
    length = pl.col("prompt_ids").list.len() + pl.col("response_ids").list.len()
    planned = ROWS.sort(pl.col("response_ids").list.len() > 0, length, "id", "sample").select("id", "sample")
    assert scores.select("id", "sample").equals(planned.cast({"sample": pl.Int32}))
    assert sizes.select("id", "sample").equals(scores.select("id", "sample"))


def test_a_rollout_without_response_is_an_empty_set(language_model):
    scores, sizes = run(ROWS, language_model)
    assert scores.row(0) == ("q1", 1, [], [])
    assert sizes.row(0) == ("q1", 1, 0, 0, 0, 0, 0, 0, [0] * L)
    scores, sizes = run(rollout_table([(3, 0)]), language_model)
    conform(scores, NEURON_SCORES, "scores")
    conform(sizes, NEURON_SIZES, "sizes")
    assert run(rollout_table([(0, 0)]), language_model)[0].height == 1


def test_scores_are_rounded_where_asked(language_model):
    full, rounded = (
        run(ROWS, language_model, score_dtype=t)[0]["scores"].explode(empty_as_null=False)
        for t in ("float32", "float16")
    )
    assert rounded.dtype == pl.Float32
    np.testing.assert_array_equal(rounded, full.to_numpy().astype(np.float16).astype(np.float32))


def test_out_of_memory_halves_the_batch_and_changes_nothing(language_model, monkeypatch):
    expected, tried, original = run(ROWS, language_model), [], score.score_batch

    def limited(batch, *rest):
        tried.append(len(batch))
        if len(batch) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(batch, *rest)

    limit = 2
    monkeypatch.setattr(score, "score_batch", limited)
    scores, sizes = run(ROWS, language_model)
    assert tried == [1, 7, 3, 1, 2, 4, 2, 2]
    assert scores["neurons"].equals(expected[0]["neurons"])
    assert sizes["id"].equals(expected[1]["id"])
    limit = 0
    with pytest.raises(ModelError, match="question 'q1', sample 0: out of memory"):
        run(ROWS.filter(id="q1", sample=0), language_model)


def test_an_unusable_rollout_or_model_is_named(language_model):
    with pytest.raises(ArtifactError, match="question 'q0', sample 0 has no prompt"):
        run(rollout_table([(0, 4)]), language_model)
    broken = build()
    broken.model.model.layers[1].mlp.gate_proj.weight.data[0] = float("inf")
    with pytest.raises(ModelError, match="question 'q0', sample 1: contributions are not finite"):
        run(ROWS, broken)
    del broken.model.model.layers[1].mlp.act_fn
    with pytest.raises(UnsupportedModelError, match="Qwen3ForCausalLM, layer 1"):
        run(ROWS, broken)
