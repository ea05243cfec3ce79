"""The stage equals the equation worked out token by token, whatever the batch, and loses no rollout."""

import numpy as np
import polars as pl
import pytest
import torch
from transformers import Phi3Config, Phi3ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from pipeline.answers.schemas import ANSWERS
from pipeline.errors import ModelError, UnsupportedModelError
from pipeline.models import LanguageModel
from pipeline.neurons import score
from pipeline.neurons.collector import collect_activations
from pipeline.neurons.config import NeuronScoresConfig
from pipeline.neurons.contribution import contributions, token_alignment, unembedding_rows
from pipeline.neurons.score import NeuronScorer, scorable
from pipeline.rollouts.schemas import ROLLOUTS
from pipeline.stages import CATALOGUE
from pipeline.table import conform

D, M, L, V = 32, 48, 3, 90
SMALL = {"top_k": 150, "top_k_per_layer": 20, "chunk_tokens": 5}
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA"))]


def build(dtype=torch.float32, **settings):
    torch.manual_seed(0)
    shape = {
        "vocab_size": V, "hidden_size": D, "intermediate_size": M, "num_hidden_layers": L, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "initializer_range": 0.2, "max_position_embeddings": 64,
    }  # fmt: skip
    config = Qwen3Config(**{**shape, **settings})
    return LanguageModel(Qwen3ForCausalLM(config).eval().to(dtype), tokenizer=None)


@pytest.fixture(scope="module")
def language_model():
    return build()


def no_rows(schema):
    return pl.LazyFrame(pl.DataFrame(schema.empty_table()))


SCORABLE = scorable(no_rows(ROLLOUTS), no_rows(ANSWERS)).collect_schema()


def rollout_table(lengths):
    """Rollouts of random tokens with the given (prompt, response) lengths."""
    rng = np.random.default_rng(0)
    rows = []
    for i, (n_prompt, n_response) in enumerate(lengths):
        row = dict.fromkeys(SCORABLE)
        row |= {"id": f"q{i // 2}", "sample": i % 2, "logprobs": rng.normal(size=n_response).tolist()}
        row |= {"self_certainty": float(i)}
        row |= {"prompt_ids": rng.integers(V, size=n_prompt), "response_ids": rng.integers(V, size=n_response)}
        rows.append(row)
    return pl.DataFrame(rows, schema=SCORABLE)


ROWS = rollout_table([(4, 11), (1, 1), (9, 23), (5, 4), (3, 12), (6, 9), (2, 30), (7, 8)])


def run(rollouts, language_model, **settings):
    tables = NeuronScorer(language_model, NeuronScoresConfig(**settings)).score(rollouts)
    for name, table in tables._asdict().items():
        conform(table, CATALOGUE["neuron_scores"][name], name)
    return tables


def as_dicts(tables):
    rows = tables.neuron_scores.iter_rows(named=True)
    return {(r["id"], r["sample"]): dict(zip(r["neurons"], r["scores"], strict=True)) for r in rows}


def assert_alike(found, expected, tolerance=1e-5):
    """The same neuron sets, scores and sizes to the tolerance, in any order."""
    found, expected = ([t.sort("id", "sample") for t in tables[:2]] for tables in (found, expected))
    assert found[0].select("id", "sample", "neurons").equals(expected[0].select("id", "sample", "neurons"))
    scores = [tables[0]["scores"].explode(empty_as_null=False).to_numpy() for tables in (found, expected)]
    np.testing.assert_allclose(*scores, rtol=tolerance, atol=tolerance)
    exact = ["id", "sample", "n_neurons", "n_response_tokens", "layer_counts", "mean_logprob", "self_certainty"]
    assert found[1].select(exact).equals(expected[1].select(exact))
    for name in ("score_sum", "participation_ratio", "entropy_size", "displacement"):
        np.testing.assert_allclose(found[1][name], expected[1][name], rtol=tolerance)


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
        peak = c[layer].max(axis=0)
        best |= {layer * M + i: peak[i] for i in np.argsort(-peak)[: config.top_k_per_layer]}
    top = sorted(best, key=best.get, reverse=True)[: config.top_k]
    return {int(n): best[n] for n in top if best[n] > 0}


@pytest.mark.parametrize("unit", ["act_fn", "down_proj_input"])
@pytest.mark.parametrize("position", ["predicting", "consuming"])
@pytest.mark.parametrize("cut", ["entries", "neurons"])
def test_scores_and_sizes_equal_the_equation(language_model, unit, position, cut):
    config = NeuronScoresConfig(unit=unit, position=position, cut=cut, **SMALL)
    tables = run(ROWS, language_model, **config.model_dump())
    found, size_of = as_dicts(tables), {(r["id"], r["sample"]): r for r in tables.neuron_sizes.iter_rows(named=True)}
    for row in ROWS.iter_rows(named=True):
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
        assert size["layer_counts"] == np.bincount([n // M for n in expected], minlength=L).tolist()
        assert size["layer_scores"] == pytest.approx(np.maximum(c, 0).sum(axis=(1, 2)), rel=1e-4)
        assert size["mean_logprob"] == pytest.approx(np.mean(row["logprobs"]), rel=1e-5)
        assert size["self_certainty"] == row["self_certainty"]


@pytest.mark.parametrize("position", ["predicting", "consuming"])
def test_displacement_is_the_mean_distance_of_the_residual_stream(language_model, position):
    sizes = run(ROWS, language_model, position=position).neuron_sizes
    for row, size in zip(ROWS.iter_rows(named=True), sizes.iter_rows(named=True), strict=True):
        ids, states = torch.tensor([row["prompt_ids"] + row["response_ids"]]), {}
        hook = language_model.model.model.norm.register_forward_pre_hook(
            lambda _, args, to=states: to.update(end=args[0])
        )
        with torch.no_grad():
            language_model.model(input_ids=ids)
            start = language_model.model.model.embed_tokens(ids)
        hook.remove()
        first = len(row["prompt_ids"]) - (position == "predicting")
        moved = (states["end"] - start)[0, first : first + len(row["response_ids"])]
        assert size["displacement"] == pytest.approx(float(moved.norm(dim=1).mean() / D**0.5), rel=1e-5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("cut", ["entries", "neurons"])
def test_neither_batch_nor_order_nor_chunks_nor_device_matter(language_model, cut, device):
    alone = run(ROWS, language_model, cut=cut, batch_tokens=1, **SMALL)
    shuffled = ROWS.sample(fraction=1, shuffle=True, seed=1)
    there = LanguageModel(build().model.to(device), None)
    for batch_tokens, chunk_tokens in ((40, 1), (10_000, 5), (10_000, 1_000)):
        settings = {**SMALL, "batch_tokens": batch_tokens, "chunk_tokens": chunk_tokens}
        tables = run(shuffled, there, cut=cut, **settings)
        assert_alike(tables, alone)
        assert tables.neuron_scores.select("id", "sample").equals(shuffled.select("id", "sample"))


def test_the_side_of_the_padding_does_not_matter(language_model):
    """Rows are padded on the right; padded on the left, with a mask, every contribution is the same."""
    stack, width = NeuronScorer(language_model, NeuronScoresConfig()).stack, 40
    found = as_dicts(run(ROWS, language_model, top_k=L * M * width))
    rows = [row["prompt_ids"] + row["response_ids"] for row in ROWS.iter_rows(named=True)]
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    ids = torch.tensor([[7] * (width - len(row)) + row for row in rows])
    best = torch.zeros(len(rows), L, M)

    def consume(layer, activations):
        for i, row in enumerate(ROWS.iter_rows(named=True)):
            said = unembedding_rows(stack.W_U, torch.tensor(row["response_ids"]))
            read = activations[i, -len(row["response_ids"]) - 1 : -1]
            best[i, layer] = contributions(read, token_alignment(said, stack.W_down[layer])).amax(dim=0)

    with torch.no_grad(), collect_activations(stack, "act_fn", consume):
        stack.backbone(input_ids=ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0))
    for i, key in enumerate(found):
        positive = {n: float(c) for n, c in enumerate(best[i].flatten()) if c > 1e-6}
        assert {n: s for n, s in found[key].items() if s > 1e-6} == pytest.approx(positive, rel=1e-4, abs=1e-6)


def test_bfloat16_sets_hardly_depend_on_the_batch():
    """Products of bfloat16 are rounded differently in batches of other sizes; at the paper's K hardly a set notices."""
    torch.manual_seed(0)
    model = build(torch.bfloat16, hidden_size=256, intermediate_size=768, initializer_range=0.02)
    rows = rollout_table([(20, 30), (9, 40), (31, 22), (5, 50), (14, 44), (25, 17)])
    sets = [run(rows, model, batch_tokens=n).neuron_scores["neurons"].to_list() for n in (1, 150, 10_000)]
    for other in sets[1:]:
        overlaps = [len({*a} & {*b}) / len({*a} | {*b}) for a, b in zip(sets[0], other, strict=True)]
        assert np.mean(overlaps) >= 0.999
        assert np.min(overlaps) >= 0.995


def test_what_cannot_be_scored_is_told_apart_with_its_reason(language_model):
    rows = rollout_table([(4, 11), (5, 0), (0, 3), (30, 35), (3, 3), (3, 3), (3, 3), (9, 23)])
    ids = rows.select("prompt_ids", "response_ids").to_dict(as_series=False)
    ids["response_ids"][4][1] = V
    ids["prompt_ids"][5][1] = -1
    rows = rows.with_columns(**{name: pl.Series(lists, dtype=pl.List(pl.Int32)) for name, lists in ids.items()})
    tables = run(rows, language_model)
    assert tables.unscored_rollouts.select("id", "sample", "reason").rows() == [
        ("q0", 1, "empty_response"),
        ("q1", 0, "missing_prompt"),
        ("q1", 1, "exceeds_context"),
        ("q2", 0, "out_of_vocabulary"),
        ("q2", 1, "out_of_vocabulary"),
    ]
    details = tables.unscored_rollouts["detail"]
    assert "65 tokens, but the model has 64 positions" in details[2]
    assert f"response token {V}, but the model knows 0 to {V - 1}" in details[3]
    assert "prompt token -1" in details[4]
    kept = rows.filter(pl.Series([row in (0, 6, 7) for row in range(8)]))
    assert_alike(tables, run(kept, language_model))


def test_activations_that_are_no_numbers_touch_no_other_rollout(language_model):
    """One token's embedding is broken: the rollouts that hold it are refused, their batch mates are untouched."""
    broken = build(tie_word_embeddings=False)
    intact = build(tie_word_embeddings=False)
    broken.model.model.embed_tokens.weight.data[5] = float("nan")
    broken.model.model.embed_tokens.weight.data[6] = float("inf")
    held = ROWS.select(
        held=pl.concat_list("prompt_ids", "response_ids").list.eval(pl.element().is_in([5, 6])).list.any()
    )
    assert 0 < held["held"].sum() < len(ROWS)
    tables = run(ROWS, broken)
    refused = ROWS.filter(held["held"]).select("id", "sample")
    assert tables.unscored_rollouts.select("id", "sample").equals(refused)
    assert set(tables.unscored_rollouts["reason"]) == {"not_finite"}
    assert_alike(tables, run(ROWS.filter(~held["held"]), intact))


def test_padding_reads_no_embedding_of_its_own():
    """Token 0, with which sequences are often padded, is broken and stands in no rollout."""
    rows = rollout_table([(3 + i, 5 + 3 * i) for i in range(8)])
    rows = rows.with_columns(pl.col("prompt_ids", "response_ids").list.eval(pl.element().clip(1)))
    broken = build()
    broken.model.model.embed_tokens.weight.data[0] = float("nan")
    assert_alike(run(rows, broken), run(rows, build()))


def test_longrope_does_not_choose_its_factors_by_batch_mates():
    torch.manual_seed(0)
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [9.0, 2.0, 5.0, 3.0]}
    config = Phi3Config(
        vocab_size=V, hidden_size=D, intermediate_size=M, num_hidden_layers=L, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, original_max_position_embeddings=20, pad_token_id=0,
        rope_parameters={**rope, "rope_theta": 10_000.0, "original_max_position_embeddings": 20}, initializer_range=0.2,
    )  # fmt: skip
    model = LanguageModel(Phi3ForCausalLM(config).eval(), None)
    assert_alike(run(ROWS, model, top_k=150), run(ROWS, model, top_k=150, batch_tokens=1))


def test_scores_beyond_float16_stay_finite_and_positive():
    for factor in (1e6, 1e-9):
        model = build(tie_word_embeddings=False)
        model.model.lm_head.weight.data *= factor
        scores = run(ROWS, model, score_dtype="float16").neuron_scores["scores"].explode(empty_as_null=False)
        assert scores.is_finite().all()
        assert (scores > 0).all()


def test_no_rollouts_give_empty_tables(language_model):
    assert [table.height for table in run(ROWS.clear(), language_model)] == [0] * 6
    assert run(rollout_table([(3, 0)]), language_model).unscored_rollouts.height == 1


def test_rows_beyond_the_tokenizers_vocabulary_change_nothing(language_model):
    padded = build(vocab_size=V + 38)
    padded.model.model.embed_tokens.weight.data[:V] = language_model.model.model.embed_tokens.weight.data
    padded.model.lm_head.weight.data[:V] = language_model.model.lm_head.weight.data
    own = {k: v for k, v in language_model.model.state_dict().items() if v.shape[:1] != (V,)}
    padded.model.load_state_dict(own, strict=False)
    assert_alike(run(ROWS, padded), run(ROWS, language_model))


def test_scores_are_rounded_where_asked(language_model):
    full, rounded = (
        run(ROWS, language_model, score_dtype=t).neuron_scores["scores"].explode(empty_as_null=False)
        for t in ("float32", "float16")
    )
    assert rounded.dtype == pl.Float32
    np.testing.assert_array_equal(rounded, full.to_numpy().astype(np.float16).astype(np.float32))


def test_out_of_memory_halves_the_budget_and_changes_nothing(language_model, monkeypatch):
    expected, tried, original = run(ROWS, language_model), [], score.score_shared

    def limited(batch, *rest):
        tried.append(len(batch))
        if len(batch) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(batch, *rest)

    limit = 3
    monkeypatch.setattr(score, "score_shared", limited)
    scorer = NeuronScorer(language_model, NeuronScoresConfig())
    assert_alike(scorer.score(ROWS), expected)
    assert tried[:2] == [7, 3]  # the eighth has no prompt to share
    assert max(tried[3:]) <= 3
    tried.clear()
    assert_alike(scorer.score(ROWS), expected)
    assert max(tried) <= 3
    limit = 0
    with pytest.raises(ModelError, match="question 'q1', sample 0: out of memory"):
        run(ROWS.filter(id="q1", sample=0), language_model)


def test_an_unusable_model_is_named():
    broken = build()
    del broken.model.model.layers[1].mlp.act_fn
    with pytest.raises(UnsupportedModelError, match="Qwen3ForCausalLM, layer 1"):
        run(ROWS, broken)
