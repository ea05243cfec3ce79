"""Silencing does what removing the neurons would do, to that response alone; controls match and never overlap."""

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from pipeline.causal.config import CausalCheckConfig
from pipeline.causal.schemas import CAUSAL_CHECK
from pipeline.causal.silence import Trial, matched_neurons, mean_logprobs, silence_responses, summarise
from pipeline.errors import ArtifactError, ConfigError, ModelError
from pipeline.models import LanguageModel
from pipeline.neurons.architecture import find_mlp_stack
from pipeline.neurons.schemas import NEURON_SCORES
from pipeline.rollouts.schemas import ROLLOUTS
from pipeline.table import conform

D, M, L, V = 32, 48, 3, 60
SHAPE = {
    "hidden_size": D, "intermediate_size": M, "ffn_dim": M, "num_hidden_layers": L, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "vocab_size": V, "word_embed_proj_dim": D, "initializer_range": 0.2,
    "init_std": 0.2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
NOTHING = np.array([], dtype=np.int64)


def build(family="qwen3", **changes):
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **SHAPE, **changes)
    return LanguageModel(AutoModelForCausalLM.from_config(config).eval(), tokenizer=None)


@pytest.fixture(scope="module")
def language_model():
    return build()


def trial(silenced=NOTHING, n_prompt=4, n_response=7, seed=0):
    rng = np.random.default_rng(seed)
    prompt, response = rng.integers(V, size=n_prompt).tolist(), rng.integers(V, size=n_response).tolist()
    return Trial(f"q{seed}", 0, prompt, response, np.asarray(silenced, dtype=np.int64))


def read(batch, language_model, position="predicting"):
    return mean_logprobs(batch, language_model, find_mlp_stack(language_model.model), position)


def reference(one, language_model):
    """Work out the mean log-probability from the model's own logits, alone and token by token."""
    with torch.no_grad():
        logits = language_model.model(input_ids=torch.tensor([[*one.prompt_ids, *one.response_ids]])).logits[0]
    at = range(len(one.prompt_ids) - 1, one.n_tokens - 1)
    return np.mean([logits[i].float().log_softmax(0)[y].item() for i, y in zip(at, one.response_ids, strict=True)])


@pytest.mark.parametrize(
    ("family", "changes"),
    [("qwen3", {}), ("gemma2", {"final_logit_softcapping": 2.0}), ("cohere", {"logit_scale": 0.1}), ("opt", {})],
    ids=["qwen3", "soft-capped", "scaled", "flattened"],
)
def test_silencing_nothing_changes_nothing(family, changes):
    language_model = build(family, **changes)
    batch = [trial(seed=0), trial(n_prompt=2, n_response=11, seed=1), trial(n_response=1, seed=2)]
    np.testing.assert_allclose(read(batch, language_model), [reference(t, language_model) for t in batch], rtol=1e-5)


@pytest.mark.parametrize("position", ["predicting", "consuming"])
@pytest.mark.parametrize("family", ["qwen3", "gpt_neox", "opt"])
def test_silencing_all_neurons_of_a_layer_removes_its_mlp_there(family, position):
    language_model = build(family)
    stack = find_mlp_stack(language_model.model)
    one, others = trial(np.arange(M, 2 * M)), [trial(seed=1), trial([3, M + 5], n_response=3, seed=2)]
    silenced = read([others[0], one, others[1]], language_model, position)[1]
    first = len(one.prompt_ids) - (position == "predicting")

    def remove(module, _inputs, output):
        bias = 0.0 if module.bias is None else module.bias
        written = output.reshape(-1, D).clone()
        written[first : first + len(one.response_ids)] = bias
        return written.reshape(output.shape)

    untouched = reference(one, language_model)
    handle = stack.down_projections[1].register_forward_hook(remove)
    expected = reference(one, language_model)
    handle.remove()
    assert silenced == pytest.approx(expected, rel=1e-4)
    assert silenced != pytest.approx(untouched, rel=1e-3)


def test_low_precision_logits_are_normalised_in_float32():
    one, language_model = trial(), build()
    language_model.model.to(torch.bfloat16)
    assert read([one], language_model)[0] == pytest.approx(reference(one, language_model), rel=1e-5)


def test_silencing_every_position_that_matters_equals_a_zero_weight():
    one, language_model = trial(np.arange(M, 2 * M), n_prompt=1), build()
    silenced = read([one], language_model)[0]
    language_model.model.model.layers[1].mlp.down_proj.weight.data.zero_()
    assert silenced == pytest.approx(reference(one, language_model), rel=1e-5)


NEURON_SETS = st.sets(st.integers(0, 5 * 20 - 1), max_size=30).map(sorted)


@settings(max_examples=60, deadline=None)
@given(NEURON_SETS, st.integers(0, 2**64 - 1))
def test_controls_match_the_layers_and_never_overlap(neurons, seed):
    neurons = np.array(neurons, dtype=np.int64)
    counts = np.bincount(neurons // 20, minlength=5)
    if counts.max() > 10:
        with pytest.raises(ConfigError, match=r"causal_check\.top_n silences"):
            matched_neurons(neurons, 20, seed)
        return
    drawn = matched_neurons(neurons, 20, seed)
    assert np.bincount(drawn // 20, minlength=5).tolist() == counts.tolist()
    assert len({*drawn.tolist(), *neurons.tolist()}) == 2 * len(neurons)
    assert drawn.tolist() == matched_neurons(neurons[::-1], 20, seed).tolist()


def tables(n_questions=6, n_samples=2):
    """Rollouts and scores; the first sample of q0 has no response and that of q1 no scores."""
    rng = np.random.default_rng(0)
    rollouts, scores = [], []
    for i in range(n_questions * n_samples):
        key = {"id": f"q{i // n_samples}", "sample": i % n_samples}
        n_response = 0 if i == 0 else int(rng.integers(1, 20))
        tokens = {
            "prompt_ids": rng.integers(V, size=rng.integers(1, 9)),
            "response_ids": rng.integers(V, size=n_response),
        }
        rollouts.append({**dict.fromkeys(ROLLOUTS.names), **key, **tokens})
        neurons = np.sort(rng.choice(L * M, 30 if n_response else 0, replace=False))
        scores.append({**key, "neurons": neurons, "scores": rng.random(len(neurons))})
    kinds = {"sample": pl.Int32} | dict.fromkeys(("prompt_ids", "response_ids", "neurons"), pl.List(pl.Int32))
    del scores[n_samples]
    kinds |= {"scores": pl.List(pl.Float32)}
    return [
        pl.DataFrame(rows, schema_overrides={k: v for k, v in kinds.items() if k in rows[0]})
        for rows in (rollouts, scores)
    ]


ROLLOUT_ROWS, SCORE_ROWS = tables()
CONFIG = CausalCheckConfig(top_n=8, n_controls=2, n_resamples=200)


def check(language_model, rollouts=ROLLOUT_ROWS, scores=SCORE_ROWS, config=CONFIG, **changes):
    config = config.model_copy(update=changes)
    return silence_responses(rollouts.lazy(), scores.lazy(), language_model, config, "predicting")


def test_one_scored_response_per_question_is_read(language_model):
    table = check(language_model)
    conform(SCORE_ROWS, NEURON_SCORES, "scores")
    conform(table, CAUSAL_CHECK, "causal_check")
    assert dict(table.select("id", "sample").iter_rows()) == {f"q{i}": int(i < 2) for i in range(6)}
    for row in table.iter_rows(named=True):
        said = ROLLOUT_ROWS.filter(id=row["id"], sample=row["sample"]).to_dicts()[0]
        found = SCORE_ROWS.filter(id=row["id"], sample=row["sample"]).to_dicts()[0]
        leading = np.array(found["neurons"])[np.argsort(found["scores"])[-8:]]
        one = Trial(row["id"], row["sample"], said["prompt_ids"], said["response_ids"], leading)
        assert row["layer_counts"] == np.bincount(leading // M, minlength=L).tolist()
        assert (row["n_silenced"], row["n_response_tokens"]) == (8, len(said["response_ids"]))
        assert row["logprob"] == pytest.approx(reference(one, language_model), rel=1e-4)
        assert row["logprob_silenced"] == pytest.approx(read([one], language_model)[0], rel=1e-4)
        assert row["drop_silenced"] == row["logprob"] - row["logprob_silenced"]
        assert row["drop_random"] == row["logprob"] - row["logprob_random"] != 0


def test_neither_batch_nor_order_nor_other_questions_change_a_row(language_model):
    expected = check(language_model, batch_tokens=1)
    shuffled = (
        ROLLOUT_ROWS.sample(fraction=1, shuffle=True, seed=3),
        SCORE_ROWS.sample(fraction=1, shuffle=True, seed=4),
    )
    fewer = check(language_model, n_questions=3)
    for table in (check(language_model, *shuffled, batch_tokens=60), check(language_model, batch_tokens=10_000), fewer):
        rows = expected.join(table.select("id"), on="id", maintain_order="left")
        assert table.select("id", "sample", "layer_counts").equals(rows.select("id", "sample", "layer_counts"))
        for column in ("logprob", "logprob_silenced", "logprob_random"):
            np.testing.assert_allclose(table[column], rows[column], rtol=1e-5)
    assert len(fewer) == 3
    assert (check(language_model, n_controls=1)["logprob_random"] != expected["logprob_random"]).all()


def test_a_neuron_that_writes_the_token_is_worth_far_more_than_random_ones():
    language_model, token, neuron = build(tie_word_embeddings=False), 17, 7
    model = language_model.model.model
    model.embed_tokens.weight.data[:, 0] = 3.0  # what the neuron reads, in every token
    for block in model.layers:
        block.self_attn.o_proj.weight.data.zero_()
        block.mlp.down_proj.weight.data.mul_(0.01)
    mlp = model.layers[1].mlp
    mlp.gate_proj.weight.data[neuron] = mlp.up_proj.weight.data[neuron] = torch.eye(D)[0]
    mlp.down_proj.weight.data[:, neuron] = language_model.model.lm_head.weight.data[token] * 3
    said = {"id": ["q"], "sample": [0], "prompt_ids": [[1, 2]], "response_ids": [[token, token, token]]}
    scores = {"id": ["q"], "sample": [0], "neurons": [[5, M + neuron]], "scores": [[0.1, 2.0]]}
    table = check(language_model, pl.DataFrame(said), pl.DataFrame(scores), top_n=1)
    assert table["layer_counts"].to_list() == [[0, 1, 0]]
    assert table["drop_silenced"].item() > 1
    assert abs(table["drop_random"].item()) < 0.05


def test_what_cannot_be_checked_is_named(language_model):
    with pytest.raises(ArtifactError, match="no rollout has a scored response"):
        check(language_model, scores=SCORE_ROWS.head(1))
    foreign = SCORE_ROWS.with_columns(neurons=pl.col("neurons").list.eval(pl.element() + L * M))
    with pytest.raises(ArtifactError, match=f"question 'q0' has neuron .* of a model that has {L * M}"):
        check(language_model, scores=foreign)
    broken = build()
    broken.model.lm_head.weight.data.fill_(float("nan"))
    with pytest.raises(ModelError, match=r"question 'q\d', sample \d: the log-probability is not finite"):
        check(broken)


@pytest.mark.parametrize(
    ("shift", "verdict"),
    [(0.5, "the responses rest on."), (0.0, "not shown"), (-0.5, "do not select")],
)
def test_the_summary_pairs_the_drops(shift, verdict):
    random = np.random.default_rng(0).normal(scale=5, size=50)
    silenced = random + shift + np.linspace(-0.2, 0.2, 50)
    notes = summarise(pl.DataFrame({"drop_silenced": silenced, "drop_random": random}), CONFIG)
    assert verdict in notes["verdict"]
    assert notes["difference"]["mean"] == pytest.approx(shift)
    half = 1.96 * np.std(silenced - random) / np.sqrt(50)
    assert notes["difference"]["low"] == pytest.approx(shift - half, abs=0.2 * half)
    assert notes["difference"]["high"] == pytest.approx(shift + half, abs=0.2 * half)
    assert notes["drop_random"]["high"] - notes["drop_random"]["low"] > 1
    assert notes["share_silenced_costs_more"] == np.mean(silenced > random)
    assert notes["n_questions"] == 50
