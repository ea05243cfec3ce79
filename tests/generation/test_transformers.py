"""Completions against a plain loop, and what may not change a draw: memory, length limit, the checkpoint's settings."""

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from pipeline.errors import ModelError
from pipeline.generation.config import Sampling
from pipeline.generation.generator import LENGTH, PROMPT_TOO_LONG, STOP, Request
from pipeline.generation.transformers import TransformersGenerator
from pipeline.models import LanguageModel, encode_chat
from pipeline.seeding import derive_seed

SAMPLING = Sampling(temperature=2.0, top_p=1.0, max_new_tokens=12)
WATCHED = [(), tuple(range(60, 90)), (200, 40, 100, 41)]


def requests(lm, n=24):
    prompts = [encode_chat(lm.tokenizer, "x" * (question * 3)) for question in range(n)]
    return [
        Request(f"q{i:02}", 0, derive_seed(0, f"q{i:02}", 0), prompt, WATCHED[i % 3])
        for i, prompt in enumerate(prompts)
    ]


def ask(lm, sampling=SAMPLING, batch_tokens=2_000, asked=None):
    batches = TransformersGenerator(lm, batch_tokens).sample(asked or requests(lm), sampling)
    return [completion for batch in batches for completion in batch]


def tokens(completions):
    return [completion.response_ids for completion in completions]


def plain_loop(request, lm, sampling):
    """Return tokens, their log-probabilities, those of the watched tokens, and self-certainty, one step at a time."""
    uniforms = np.random.Generator(np.random.Philox(request.seed)).random(sampling.max_new_tokens)
    response, logprobs, watched, certainty = [], [], [], []
    for uniform in uniforms:
        with torch.inference_mode():
            logits = lm.model(torch.tensor([[*request.prompt_ids, *response]])).logits[0, -1].double()
        p = (logits / sampling.temperature).softmax(-1)
        ranked = p.argsort(descending=True)
        before = p[ranked].cumsum(0) - p[ranked]
        p[ranked[before >= sampling.top_p]] = 0
        token = int((p.cumsum(0) <= uniform * p.sum()).sum())
        raw = logits.log_softmax(-1)
        response.append(token)
        logprobs.append(float(raw[token]))
        certainty.append(float((-np.log(len(raw)) - raw).mean()))
        if token in request.watched_ids:
            watched += raw[list(request.watched_ids)].tolist()
        if token in lm.stop_ids:
            break
    return response, logprobs, watched, np.mean(certainty)


@pytest.mark.parametrize("top_p", [1.0, 0.8])
def test_completions_equal_a_plain_loop_over_the_full_logits(tiny, top_p):
    sampling = SAMPLING.model_copy(update={"top_p": top_p, "max_new_tokens": 30})
    completions = ask(tiny, sampling)
    assert len(completions) == 24
    assert sum(len(completion.watched_logprobs) for completion in completions) > 100
    for completion in completions:
        response, logprobs, watched, certainty = plain_loop(completion.request, tiny, sampling)
        assert completion.response_ids == response
        assert completion.logprobs == pytest.approx(logprobs, abs=1e-4)
        assert completion.watched_logprobs == pytest.approx(watched, abs=1e-4)
        assert completion.self_certainty == pytest.approx(certainty, abs=1e-4)


def test_every_request_is_answered_once_whatever_order_and_batch(tiny):
    asked = requests(tiny)
    expected = {completion.request.id: completion.response_ids for completion in ask(tiny)}
    assert len(expected) == len(asked)
    for batch_tokens in (1, 100, 10_000):
        again = ask(tiny, batch_tokens=batch_tokens, asked=asked[::-1])
        assert [completion.request.id for completion in again] == sorted(expected)
        assert {completion.request.id: completion.response_ids for completion in again} == expected


def test_a_prompt_that_does_not_fit_is_kept_without_response(tiny):
    done = ask(tiny, asked=[Request("long", 0, 1, [5] * 510), Request("short", 0, 2, [5] * 10)])
    assert [c.request.id for c in done] == ["short", "long"]
    assert done[1].finish_reason == PROMPT_TOO_LONG
    assert done[1].response_ids == done[1].logprobs == done[1].watched_logprobs == []
    assert done[1].self_certainty is None


def test_out_of_memory_halves_the_batch_and_loses_nothing(tiny, monkeypatch):
    expected, whole, sizes = tokens(ask(tiny)), tiny.model.forward, []

    def short_of_memory(input_ids, position_ids, past_key_values, **settings):
        sizes.append(len(input_ids))
        if len(input_ids) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(input_ids, position_ids=position_ids, past_key_values=past_key_values, **settings)

    monkeypatch.setattr(tiny.model, "forward", short_of_memory)
    assert tokens(ask(tiny)) == expected
    assert sizes[0] > 5 >= sizes[-1]


def test_a_budget_once_lowered_stays_lowered(tiny, monkeypatch):
    whole, refused = tiny.model.forward, []

    def short_of_memory(input_ids, position_ids, past_key_values, **settings):
        if len(input_ids) > 5:
            refused.append(len(input_ids))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(input_ids, position_ids=position_ids, past_key_values=past_key_values, **settings)

    monkeypatch.setattr(tiny.model, "forward", short_of_memory)
    generator, asked = TransformersGenerator(tiny, 300), requests(tiny)[:6]
    once = [completion for batch in generator.sample(asked, SAMPLING) for completion in batch]
    n_refused = len(refused)
    assert tokens(completion for batch in generator.sample(asked, SAMPLING) for completion in batch) == tokens(once)
    assert len(refused) == n_refused > 0


def test_out_of_memory_with_one_response_names_the_question(tiny, monkeypatch):
    def no_memory(**settings):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(tiny.model, "forward", no_memory)
    with pytest.raises(ModelError, match=r"'q00'.*max_new_tokens"):
        ask(tiny)


def test_the_checkpoints_own_sampling_settings_are_ignored_and_kept(tiny, monkeypatch, recwarn):
    expected, own = tokens(ask(tiny)), tiny.model.generation_config
    for name, value in {"do_sample": True, "top_k": 1, "temperature": 0.1, "repetition_penalty": 9.0}.items():
        monkeypatch.setattr(own, name, value)
    assert tokens(ask(tiny)) == expected
    assert tiny.model.generation_config is own
    assert not recwarn.list


def test_a_longer_limit_only_continues_a_response(tiny):
    short = ask(tiny, SAMPLING.model_copy(update={"max_new_tokens": 5}))
    for brief, full in zip(short, ask(tiny), strict=True):
        assert brief.response_ids == full.response_ids[: len(brief.response_ids)]


def test_ends_with_the_end_token_or_at_the_limit(tiny):
    for completion in ask(tiny, SAMPLING.model_copy(update={"temperature": 5.0, "max_new_tokens": 60})):
        *body, last = completion.response_ids
        assert not set(body) & set(tiny.stop_ids)
        assert completion.finish_reason == (STOP if last in tiny.stop_ids else LENGTH)
        assert len(completion.logprobs) == len(completion.response_ids)


def test_logits_that_are_not_finite_are_refused(tiny, monkeypatch):
    weight = tiny.model.lm_head.weight
    monkeypatch.setattr(weight, "data", torch.full_like(weight, torch.nan))
    with pytest.raises(ModelError, match=r"not finite.*model.dtype"):
        ask(tiny)


def test_no_requests_yield_nothing(tiny):
    assert not list(TransformersGenerator(tiny, 100).sample([], SAMPLING))


FAMILY_SAMPLING = Sampling(temperature=1.5, top_p=0.9, max_new_tokens=10)
SHAPE = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "head_dim": 8,
    "num_key_value_heads": 2, "vocab_size": 260, "max_position_embeddings": 64, "initializer_range": 0.3,
    "pad_token_id": 0, "bos_token_id": 3, "eos_token_id": 1,
}  # fmt: skip
LAYERS = ["sliding_attention", "full_attention", "sliding_attention"]
LONG_ROPE = {
    "rope_type": "longrope", "rope_theta": 100.0, "original_max_position_embeddings": 16, "factor": 4.0,
    "short_factor": [1.0] * 2, "long_factor": [8.0] * 2,
}  # fmt: skip
FAMILIES = {
    "llama": {"tie_word_embeddings": True},
    "gpt2": {"n_positions": 64},
    "bloom": {},
    "mistral": {"sliding_window": 6},
    "gemma2": {"sliding_window": 6, "layer_types": LAYERS},
    "gemma3_text": {"sliding_window": 6, "layer_types": LAYERS},
    "phi3": {"head_dim": 4, "rope_parameters": LONG_ROPE, "original_max_position_embeddings": 16},
    "qwen3_5_text": {"layer_types": ["linear_attention", "linear_attention", "full_attention"]},
    "falcon_h1": {"mamba_d_ssm": 16, "mamba_n_heads": 2, "mamba_d_head": 8, "mamba_d_state": 8},
}
SAMPLES = {"qwen3_5_text": (3, 2)}  # whose forward without a cache is a Python loop over 64 positions
CACHELESS = {"mamba": {}, "openai-gpt": {"n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 64}}


def family_model(family, tokenizer):
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **{**SHAPE, **(FAMILIES | CACHELESS)[family]})
    model = AutoModelForCausalLM.from_config(config).eval()
    model.generation_config.eos_token_id = list(range(1, 260, 12))
    return LanguageModel(model, tokenizer)


def family_requests(n_samples):
    """Prompts around the sliding window, and such that LongRoPE changes never, on the way, and before the start."""
    prompts = [list(range(50 + 10 * i, 50 + 10 * i + n)) for i, n in enumerate((3, 6, 7, 7, 12, 15, 16, 17, 20))]
    return [Request(f"q{i}", k, 100 * i + k, p) for i, p in enumerate(prompts) for k in range(n_samples)]


@pytest.mark.slow
@pytest.mark.parametrize("family", [*FAMILIES, *CACHELESS])
def test_every_family_draws_what_a_plain_loop_draws(tiny, family):
    """At 1, 5 and 7 responses a prompt, in any batch and order; what needs not be run is not run."""
    most, fewer = SAMPLES.get(family, (7, 5))
    lm, asked, ran = family_model(family, tiny.tokenizer), family_requests(most), []
    expected = {(r.id, r.sample): plain_loop(r, lm, FAMILY_SAMPLING)[0] for r in asked}
    assert len({len(response) for response in expected.values()}) > 5
    lm.model.register_forward_pre_hook(lambda _, args, known: ran.append(known["input_ids"].shape), with_kwargs=True)
    for n_samples, batch_tokens in [(most, 10_000), (fewer, 150), (1, 10_000), (fewer, 1)]:
        ran.clear()
        done = ask(
            lm, FAMILY_SAMPLING, batch_tokens, [request for request in asked if request.sample < n_samples][::-1]
        )
        assert len(done) == 9 * n_samples
        for completion in done:
            assert completion.response_ids == expected[completion.request.id, completion.request.sample]
        if family in FAMILIES and family != "phi3":  # where LongRoPE changes, rows run all of their tokens once more
            assert sum(n for n, width in ran if width == 1) == sum(len(c.response_ids) - 1 for c in done)
            assert batch_tokens < 10_000 or sum(n for n, width in ran if width > 1) == 9
