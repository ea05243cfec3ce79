"""Stage ``rollouts``: G sampled responses per question (method: temperature 0.6, top-p 0.95, 256 new tokens).

``generate`` serves any prompts; ``sample_rollouts`` is the stage. Results depend on the pool, the model and the
configuration only: rows come in order of (prompt length, id, sample), and neither the batch budget nor the other rows
change a draw, up to the rounding of the model's own forward pass. Pinned by ``tests/rollouts/test_sampler.py``.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import polars as pl
import pyarrow as pa
import torch
from tqdm import tqdm
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, PreTrainedTokenizerBase

from pipeline.config import RolloutsConfig
from pipeline.errors import ModelError
from pipeline.models import LanguageModel, encode_chat
from pipeline.prompts import LETTERS
from pipeline.rollouts.extract import Extraction, extract_answer
from pipeline.rollouts.option_tokens import OptionTokens, decode, token_at
from pipeline.rollouts.seeded import SeededDraw
from pipeline.schemas import ROLLOUTS
from pipeline.seeding import derive_seed

Forms = Callable[[tuple[str, ...]], tuple[OptionTokens, OptionTokens]]
"""From options to the tokens that state them, by letter and by text."""

PROMPT_TOO_LONG = "prompt_too_long"
"""Finish reason and extraction of a row whose prompt leaves no room for ``max_new_tokens``."""


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
    finish_reason: str
    """``stop``, ``length`` or ``prompt_too_long``; the last has no response."""
    extraction: Extraction
    """The answer, or why there is none."""
    option_probs: list[float] | None
    """Probability of each option where the answer is stated, normalised; none without a statement to judge by."""


def sample_rollouts(
    pool: pl.DataFrame, language_model: LanguageModel, config: RolloutsConfig, progress: bool = True
) -> Iterator[pl.DataFrame]:
    """Yield rows of the ``rollouts`` schema for a table with the columns of ``raw_pool``, one frame per batch.

    Raises ModelError when one response alone exceeds the device's memory or the logits are not finite.
    """
    permutations: dict[str, list[int]] = dict(pool.select("id", "permutation").iter_rows())
    requests = [
        Request(row["id"], sample, prompt_ids, tuple(row["options"][index] for index in permutations[row["id"]]))
        for row in pool.select("id", "options", "prompt").iter_rows(named=True)
        for prompt_ids in [encode_chat(language_model.tokenizer, row["prompt"])]
        for sample in range(config.n_samples)
    ]
    for completions in generate(requests, language_model, config, progress):
        rows = [_row(completion, permutations[completion.request.id]) for completion in completions]
        yield pl.DataFrame(pa.Table.from_pylist(rows, schema=ROLLOUTS))


def generate(
    requests: Sequence[Request], language_model: LanguageModel, config: RolloutsConfig, progress: bool = True
) -> Iterator[list[Completion]]:
    """Yield one list of completions per batch; every request is answered, shortest prompts first.

    ``config.n_samples`` is not used: a request is one response. A batch that exceeds the CUDA memory is halved, and
    so are those after it. Requests whose prompt does not fit come last, without a response.
    """
    ordered = sorted(requests, key=lambda request: (len(request.prompt_ids), request.id, request.sample))
    longest_prompt = language_model.max_length - config.max_new_tokens
    n_fit = bisect_right(ordered, longest_prompt, key=lambda request: len(request.prompt_ids))
    forms = _option_tokens(language_model.tokenizer)
    done, batch_tokens = 0, config.batch_tokens
    with tqdm(total=len(ordered), desc="rollouts", unit="response", mininterval=1, disable=not progress) as bar:
        while done < n_fit:
            batch = _next_batch(ordered[done:n_fit], batch_tokens, config.max_new_tokens)
            completions = _complete_if_it_fits(batch, language_model, config, forms)
            if completions is None:
                batch_tokens = len(batch) // 2 * (len(batch[-1].prompt_ids) + config.max_new_tokens)
                continue
            yield completions
            done += len(batch)
            bar.update(len(batch))
        if n_fit < len(ordered):
            yield [_unanswered(request) for request in ordered[n_fit:]]
            bar.update(len(ordered) - n_fit)


def _next_batch(ordered: Sequence[Request], batch_tokens: int, max_new_tokens: int) -> list[Request]:
    """Return the first requests that fit the budget when padded to the longest of them; at least one."""
    size = 1
    while size < len(ordered) and (size + 1) * (len(ordered[size].prompt_ids) + max_new_tokens) <= batch_tokens:
        size += 1
    return list(ordered[:size])


def _complete_if_it_fits(
    batch: list[Request], language_model: LanguageModel, config: RolloutsConfig, forms: Forms
) -> list[Completion] | None:
    """Sample one batch, or return None when it exceeds the device's memory and can be made smaller."""
    try:
        return _complete(batch, language_model, config, forms)
    except torch.OutOfMemoryError as error:
        if len(batch) == 1:
            raise ModelError(
                f"question '{batch[0].id}': out of memory with one response of {len(batch[0].prompt_ids)} + "
                f"{config.max_new_tokens} tokens: lower max_new_tokens or use a larger device"
            ) from error
    torch.cuda.empty_cache()  # only after the handler, whose traceback holds the batch's tensors
    return None


def _complete(
    batch: list[Request], language_model: LanguageModel, config: RolloutsConfig, forms: Forms
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
    logprobs, watched = draw.logprobs, draw.watched
    return [
        _completion(request, _until_stop(response, stop_ids), (logprobs[row], watched[row]), language_model, forms)
        for row, (request, response) in enumerate(zip(batch, responses, strict=True))
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
    recorded: tuple[torch.Tensor, torch.Tensor],
    language_model: LanguageModel,
    forms: Forms,
) -> Completion:
    """Assemble a row from its tokens and what was recorded: log-probabilities ``[T]``, watched ones ``[T, W]``."""
    logprobs, watched = recorded[0][: len(response_ids)], recorded[1]
    if not logprobs.isfinite().all():
        raise ModelError(
            f"question '{request.id}', sample {request.sample}: the model's logits are not finite in "
            f"{language_model.model.dtype}: set model.dtype to float32 or bfloat16"
        )
    response = decode(language_model.tokenizer, response_ids)
    extraction = extract_answer(response, request.options)
    option_probs = None
    if extraction.index is not None and extraction.span:
        position = token_at(language_model.tokenizer, response_ids, extraction.span[0])
        by_letter, by_text = forms(request.options)
        n_letters, n_options = len(by_letter.options), len(request.options)
        if response[slice(*extraction.span)] == LETTERS[extraction.index]:
            option_probs = by_letter.option_probs(response_ids[position], watched[position, :n_letters], n_options)
        else:
            stated = watched[position, n_letters : n_letters + len(by_text.options)]
            option_probs = by_text.option_probs(response_ids[position], stated, n_options)
    finish_reason = "stop" if response_ids[-1] in language_model.stop_ids else "length"
    return Completion(request, response_ids, response, logprobs.tolist(), finish_reason, extraction, option_probs)


def _option_tokens(tokenizer: PreTrainedTokenizerBase) -> Forms:
    """Return a function that gives the tokens by which options are stated, by letter and by text."""
    by_letter = cache(lambda n_options: OptionTokens.by_letter(tokenizer, n_options))
    return cache(lambda options: (by_letter(len(options)), OptionTokens.by_text(tokenizer, options)))


def _unanswered(request: Request) -> Completion:
    extraction = Extraction(answer=None, index=None, rule=PROMPT_TOO_LONG, span=None)
    return Completion(request, [], "", [], PROMPT_TOO_LONG, extraction, None)


def _row(completion: Completion, permutation: Sequence[int]) -> dict[str, object]:
    """Return the row of ROLLOUTS, options counted in the source's order, from a completion that saw them permuted."""
    shown, shown_probs = completion.extraction.index, completion.option_probs
    source_probs = None
    if shown_probs is not None:
        source_probs = [prob for _, prob in sorted(zip(permutation, shown_probs, strict=True))]
    return {
        "id": completion.request.id,
        "sample": completion.request.sample,
        "prompt_ids": completion.request.prompt_ids,
        "response_ids": completion.response_ids,
        "response": completion.response,
        "logprobs": completion.logprobs,
        "finish_reason": completion.finish_reason,
        "answer": completion.extraction.answer,
        "answer_index": None if shown is None else permutation[shown],
        "extraction": completion.extraction.rule,
        "option_probs": source_probs,
    }
