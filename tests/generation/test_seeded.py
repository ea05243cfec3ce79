"""What may not change a draw: memory, length limit, the checkpoint's own settings; and what is recorded beside it."""

import polars as pl
import pytest
import torch

from pipeline.answers.extract import Extraction
from pipeline.errors import ModelError
from pipeline.models import encode_chat
from pipeline.pool.schemas import RAW_POOL
from pipeline.prompts import LETTERS
from pipeline.rollouts import sampler
from pipeline.rollouts.config import RolloutsConfig
from pipeline.rollouts.sampler import Request, generate

CONFIG = RolloutsConfig(temperature=2.0, top_p=1.0, max_new_tokens=12, batch_tokens=2_000)
OPTIONS = ("red", "blue", "tan")


def ask(lm, config=CONFIG, n=24):
    prompts = [encode_chat(lm.tokenizer, "x" * (question * 3)) for question in range(n)]
    requests = [Request(f"q{i:02}", 0, prompt, OPTIONS) for i, prompt in enumerate(prompts)]
    return [completion for batch in generate(requests, lm, config, progress=False) for completion in batch]


def tokens(completions):
    return [completion.response_ids for completion in completions]


def test_out_of_memory_halves_the_batch_and_loses_nothing(tiny, monkeypatch):
    expected, whole, sizes = tokens(ask(tiny)), type(tiny.model).generate, []

    def short_of_memory(self, input_ids, **settings):
        sizes.append(len(input_ids))
        if len(input_ids) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(self, input_ids=input_ids, **settings)

    monkeypatch.setattr(type(tiny.model), "generate", short_of_memory)
    assert tokens(ask(tiny)) == expected
    assert sizes[0] > 5 >= sizes[-1]


def test_out_of_memory_with_one_response_names_the_question(tiny, monkeypatch):
    def no_memory(self, **settings):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(type(tiny.model), "generate", no_memory)
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
    short = ask(tiny, CONFIG.model_copy(update={"max_new_tokens": 5}))
    for brief, full in zip(short, ask(tiny), strict=True):
        assert brief.response_ids == full.response_ids[: len(brief.response_ids)]


def test_ends_with_the_end_token_or_at_the_limit(tiny):
    for completion in ask(tiny, CONFIG.model_copy(update={"temperature": 5.0, "max_new_tokens": 60})):
        *body, last = completion.response_ids
        assert not set(body) & set(tiny.stop_ids)
        assert completion.finish_reason == ("stop" if last in tiny.stop_ids else "length")
        assert len(completion.logprobs) == len(completion.response_ids)


def test_option_probs_are_those_of_a_forward_pass_where_the_letter_stands(tiny, monkeypatch):
    """The first capital letter of a random response is taken as its statement."""

    def first_letter(response, options, finished):
        at = next((i for i, character in enumerate(response) if character in LETTERS[: len(options)]), None)
        if at is None:
            return Extraction(None, None, "no_statement", None)
        index = LETTERS.index(response[at])
        return Extraction(options[index], index, "test", (at, at + 1))

    monkeypatch.setattr(sampler, "extract_answer", first_letter)
    stated = [completion for completion in ask(tiny, n=48) if completion.extraction.span]
    assert len(stated) >= 3
    letter_ids = [tiny.tokenizer.convert_tokens_to_ids(letter) for letter in LETTERS[: len(OPTIONS)]]
    for completion in stated:
        at = next(i for i, token in enumerate(completion.response_ids) if token in letter_ids)
        ids = torch.tensor([list(completion.request.prompt_ids) + completion.response_ids[:at]])
        with torch.inference_mode():
            expected = tiny.model(ids).logits[0, -1, letter_ids].softmax(-1)
        assert completion.option_probs == pytest.approx(expected.tolist(), abs=1e-4)


def test_logits_that_are_not_finite_are_refused(tiny, monkeypatch):
    weight = tiny.model.lm_head.weight
    monkeypatch.setattr(weight, "data", torch.full_like(weight, torch.nan))
    with pytest.raises(ModelError, match=r"not finite.*model.dtype"):
        ask(tiny)


def test_an_empty_pool_yields_nothing(tiny):
    empty = pl.DataFrame(RAW_POOL.empty_table())
    assert not list(sampler.sample_rollouts(empty, tiny, CONFIG, progress=False))
