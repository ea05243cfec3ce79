"""Stage ``rollouts``: G sampled responses per question (method: temperature 0.6, top-p 0.95, 256 new tokens).

``generate`` serves any prompts; ``sample_rollouts`` is the stage. Results depend on the pool, the model and the
configuration only: rows come in order of (prompt length, id, sample), and neither the batch budget nor the other rows
change a draw, up to the rounding of the model's own forward pass. Pinned by ``tests/rollouts/test_sampler.py``.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache

import polars as pl
import pyarrow as pa
import torch
from tqdm import tqdm
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, PreTrainedTokenizerBase

from pipeline.answers.extract import Extraction, extract_answer
from pipeline.batching import TokenBudget
from pipeline.errors import ModelError
from pipeline.generation.option_tokens import OptionTokens, decode
from pipeline.generation.seeded import SeededDraw
from pipeline.models import LanguageModel, encode_chat, has_special_tokens
from pipeline.prompts import LETTERS, reorder_options
from pipeline.rollouts.config import RolloutsConfig
from pipeline.rollouts.orders import shown_orders
from pipeline.rollouts.schemas import ROLLOUTS
from pipeline.rollouts.spans import Span, stem_span, token_span
from pipeline.seeding import derive_seed

Forms = Callable[[tuple[str, ...]], tuple[OptionTokens, OptionTokens]]
"""From options to the tokens that state them, by letter and by text."""

PROMPT_TOO_LONG = "prompt_too_long"
"""Finish reason and extraction of a row whose prompt leaves no room for ``max_new_tokens``."""
SPECIAL_TOKEN_IN_PROMPT = "special_token_in_prompt"  # noqa: S105  not a password
"""The same of a row whose question would be read as part of the chat template."""


@dataclass(frozen=True)
class Request:
    """One response to sample."""

    id: str
    """Question; with ``sample`` and the run's seed it determines the draws."""
    sample: int
    """Number of the response within its question, from 0."""
    prompt_ids: Sequence[int]
    """Token ids of the rendered prompt, chat template included."""
    options: tuple[str, ...]
    """Answer options in the order of their letters; empty for an open question."""
    stem: Span | None = None
    """Positions of the question's stem in ``prompt_ids``, where they are known."""


@dataclass(frozen=True)
class Completion:
    """A sampled response and what it states."""

    request: Request
    """What was asked."""
    response_ids: list[int]
    """Token ids, the end token included when it was reached."""
    response: str
    """Text without special tokens."""
    logprobs: list[float]
    """Log-probability of each response token at temperature 1 (nats)."""
    self_certainty: float | None
    """Mean over the response tokens of KL(uniform, p) (nats; arXiv 2505.19590); none without response."""
    finish_reason: str
    """``stop`` or ``length``; without response, ``prompt_too_long`` or ``special_token_in_prompt``."""
    extraction: Extraction
    """The answer, or why there is none."""
    option_probs: list[float] | None
    """Probability of each option where the answer is stated, normalised; none without a statement to judge by."""
    stated: Span | None = None
    """Positions of the stated answer in ``response_ids``; none without one."""


def sample_rollouts(
    pool: pl.DataFrame, language_model: LanguageModel, config: RolloutsConfig, progress: bool = True
) -> Iterator[pl.DataFrame]:
    """Yield rows of the ``rollouts`` schema for a table with the columns of ``raw_pool``, one frame per batch.

    A question that holds special tokens of the model, which could pass for the chat template's, gets no response.
    Raises ModelError when one response alone exceeds the device's memory or the logits are not finite.
    """
    permutations: dict[tuple[str, int], Sequence[int]] = {}
    tokenizer = language_model.tokenizer
    requests: list[Request] = []
    refused: list[Request] = []
    for row in pool.select("id", "question", "options", "permutation", "prompt").iter_rows(named=True):
        for order, samples in shown_orders(row["id"], row["permutation"], config).items():
            prompt = reorder_options(row["prompt"], row["question"], row["options"], row["permutation"], order)
            prompt_ids = encode_chat(tokenizer, prompt)
            stem = stem_span(tokenizer, row["question"], prompt, prompt_ids)
            options = tuple(row["options"][index] for index in order)
            asked = [Request(row["id"], sample, prompt_ids, options, stem) for sample in samples]
            permutations |= {(row["id"], sample): order for sample in samples}
            (refused if has_special_tokens(tokenizer, prompt) else requests).extend(asked)
    for completions in generate(requests, language_model, config, progress):
        yield _table(completions, permutations)
    if refused:
        yield _table([_unanswered(request, SPECIAL_TOKEN_IN_PROMPT) for request in refused], permutations)


def generate(
    requests: Sequence[Request], language_model: LanguageModel, config: RolloutsConfig, progress: bool = True
) -> Iterator[list[Completion]]:
    """Yield one list of completions per batch; every request is answered, shortest prompts first.

    ``config.n_samples`` is not used: a request is one response. Batches that exceed the memory are halved. Requests
    whose prompt does not fit come last, without a response.
    """

    def n_tokens(request: Request) -> int:
        return len(request.prompt_ids) + config.max_new_tokens

    ordered = sorted(requests, key=lambda request: (len(request.prompt_ids), request.id, request.sample))
    n_fit = bisect_right(ordered, language_model.max_length, key=n_tokens)
    forms = _option_tokens(language_model.tokenizer)
    budget = TokenBudget(config.batch_tokens)
    batches = budget.run(ordered[:n_fit], n_tokens, lambda batch: _complete(batch, language_model, config, forms))
    with tqdm(total=len(ordered), desc="rollouts", unit="response", mininterval=1, disable=not progress) as bar:
        for batch, completions in batches:
            yield completions
            bar.update(len(batch))
        if n_fit < len(ordered):
            yield [_unanswered(request, PROMPT_TOO_LONG) for request in ordered[n_fit:]]
            bar.update(len(ordered) - n_fit)


def _complete(
    batch: Sequence[Request], language_model: LanguageModel, config: RolloutsConfig, forms: Forms
) -> list[Completion]:
    """Sample one batch."""
    model, tokenizer, stop_ids = language_model.model, language_model.tokenizer, language_model.stop_ids
    width = max(len(request.prompt_ids) for request in batch)
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else stop_ids[0]
    padded = [[pad_id] * (width - len(request.prompt_ids)) + list(request.prompt_ids) for request in batch]
    mask = [[0] * (width - len(request.prompt_ids)) + [1] * len(request.prompt_ids) for request in batch]
    seeds = [derive_seed(config.seed, request.id, request.sample) for request in batch]
    tokens = [[*by_letter.options, *by_text.options] for by_letter, by_text in (forms(r.options) for r in batch)]
    watched_width = max(map(len, tokens))
    watched_ids = torch.tensor([row + [0] * (watched_width - len(row)) for row in tokens], dtype=torch.long)
    draw = SeededDraw(seeds, config, watched_ids, language_model.device)
    settings = GenerationConfig(
        do_sample=False, max_new_tokens=config.max_new_tokens, pad_token_id=pad_id, eos_token_id=stop_ids or None
    )
    with torch.inference_mode(), _without_generation_defaults(model):
        sequences = model.generate(
            input_ids=torch.tensor(padded, device=language_model.device),
            attention_mask=torch.tensor(mask, device=language_model.device),
            generation_config=settings,
            logits_processor=LogitsProcessorList([draw]),
        )
    responses = sequences[:, width:].tolist()
    recorded = zip(draw.logprobs, draw.self_certainty, draw.watched, strict=True)
    return [
        _completion(request, _until_stop(response, stop_ids), seen, language_model, forms)
        for request, response, seen in zip(batch, responses, recorded, strict=True)
    ]


@contextmanager
def _without_generation_defaults(model: PreTrainedModel) -> Iterator[None]:
    # A checkpoint's own temperature, top-k or repetition penalty would be merged into every setting left open.
    own, model.generation_config = model.generation_config, GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own


def _until_stop(response_ids: list[int], stop_ids: Sequence[int]) -> list[int]:
    end = next((i + 1 for i, token in enumerate(response_ids) if token in stop_ids), len(response_ids))
    return response_ids[:end]


def _completion(
    request: Request,
    response_ids: list[int],
    recorded: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    language_model: LanguageModel,
    forms: Forms,
) -> Completion:
    """Assemble a row from its tokens and what was recorded: two ``[T]`` and the watched probabilities ``[T, W]``."""
    logprobs, self_certainty = (values[: len(response_ids)] for values in recorded[:2])
    if not logprobs.isfinite().all():
        raise ModelError(
            f"question '{request.id}', sample {request.sample}: the model's logits are not finite in "
            f"{language_model.model.dtype}: set model.dtype to float32 or bfloat16"
        )
    response = decode(language_model.tokenizer, response_ids)
    finish_reason = "stop" if response_ids[-1] in language_model.stop_ids else "length"
    extraction = extract_answer(response, request.options, finished=finish_reason == "stop")
    completion = Completion(
        request=request,
        response_ids=response_ids,
        response=response,
        logprobs=logprobs.tolist(),
        self_certainty=self_certainty.double().mean().item(),
        finish_reason=finish_reason,
        extraction=extraction,
        option_probs=None,
        stated=extraction.span and token_span(language_model.tokenizer, response_ids, extraction.span),
    )
    return replace(completion, option_probs=_option_probs(completion, recorded[2], forms))


def _option_probs(completion: Completion, watched: torch.Tensor, forms: Forms) -> list[float] | None:
    """Return the probability of each option where the answer is stated, from the watched ones ``[T, W]``."""
    extraction, options = completion.extraction, completion.request.options
    if extraction.index is None or extraction.span is None or completion.stated is None:
        return None
    position = completion.stated[0]
    said, probs = completion.response_ids[position], watched[position]
    by_letter, by_text = forms(options)
    n_letters = len(by_letter.options)
    if completion.response[slice(*extraction.span)] == LETTERS[extraction.index]:
        return by_letter.option_probs(said, probs[:n_letters], len(options))
    return by_text.option_probs(said, probs[n_letters : n_letters + len(by_text.options)], len(options))


def _option_tokens(tokenizer: PreTrainedTokenizerBase) -> Forms:
    """Return a function that gives the tokens by which options are stated, by letter and by text."""
    by_letter = cache(lambda n_options: OptionTokens.by_letter(tokenizer, n_options))
    return cache(lambda options: (by_letter(len(options)), OptionTokens.by_text(tokenizer, options)))


def _unanswered(request: Request, reason: str) -> Completion:
    extraction = Extraction(answer=None, index=None, rule=reason, span=None)
    return Completion(request, [], "", [], None, reason, extraction, None)


def _table(completions: Sequence[Completion], permutations: Mapping[tuple[str, int], Sequence[int]]) -> pl.DataFrame:
    rows = [_row(each, permutations[each.request.id, each.request.sample]) for each in completions]
    return pl.DataFrame(pa.Table.from_pylist(rows, schema=ROLLOUTS))


def _row(completion: Completion, permutation: Sequence[int]) -> dict[str, object]:
    """Return the row of ROLLOUTS, options counted in the source's order, from a completion that saw them permuted."""
    shown, shown_probs = completion.extraction.index, completion.option_probs
    source_probs = None
    if shown_probs is not None:
        source_probs = [prob for _, prob in sorted(zip(permutation, shown_probs, strict=True))]
    stem_start, stem_stop = completion.request.stem or (None, None)
    answer_start, answer_stop = completion.stated or (None, None)
    return {
        "id": completion.request.id,
        "sample": completion.request.sample,
        "prompt_ids": completion.request.prompt_ids,
        "permutation": permutation,
        "response_ids": completion.response_ids,
        "response": completion.response,
        "logprobs": completion.logprobs,
        "self_certainty": completion.self_certainty,
        "finish_reason": completion.finish_reason,
        "answer": completion.extraction.answer,
        "answer_index": None if shown is None else permutation[shown],
        "extraction": completion.extraction.rule,
        "option_probs": source_probs,
        "stem_start": stem_start,
        "stem_stop": stem_stop,
        "answer_start": answer_start,
        "answer_stop": answer_stop,
    }
