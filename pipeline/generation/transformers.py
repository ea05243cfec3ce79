"""Sampling with ``generate`` of transformers, in batches that fit the memory.

Batches hold prompts of like length, shortest first. Pinned by ``tests/generation/test_transformers.py``.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel

from pipeline.batching import TokenBudget
from pipeline.errors import ModelError
from pipeline.generation.config import Sampling
from pipeline.generation.generator import LENGTH, PROMPT_TOO_LONG, STOP, Completion, Request
from pipeline.generation.seeded import SeededDraw
from pipeline.models import LanguageModel


class TransformersGenerator:
    """A ``Generator``; the batch budget, once lowered for want of memory, stays lowered."""

    def __init__(self, language_model: LanguageModel, batch_tokens: int) -> None:
        """Take a model, and how many padded prompt and response tokens a batch may hold."""
        self._language_model = language_model
        self._budget = TokenBudget(batch_tokens)

    def sample(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[list[Completion]]:
        """Yield one list of completions per batch, shortest prompts first, as ``Generator.sample`` says.

        Requests whose prompt does not fit come last, in a list of their own.
        """

        def n_tokens(request: Request) -> int:
            return len(request.prompt_ids) + sampling.max_new_tokens

        ordered = sorted(requests, key=lambda request: (len(request.prompt_ids), request.id, request.sample))
        n_fit = bisect_right(ordered, self._language_model.max_length, key=n_tokens)
        complete = partial(_complete, language_model=self._language_model, sampling=sampling)
        for _, completions in self._budget.run(ordered[:n_fit], n_tokens, complete):
            yield completions
        if n_fit < len(ordered):
            yield [Completion(request, [], [], PROMPT_TOO_LONG, None, []) for request in ordered[n_fit:]]


def _complete(batch: Sequence[Request], language_model: LanguageModel, sampling: Sampling) -> list[Completion]:
    """Sample one batch."""
    model, tokenizer, stop_ids = language_model.model, language_model.tokenizer, language_model.stop_ids
    width = max(len(request.prompt_ids) for request in batch)
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else stop_ids[0]
    padded = [[pad_id] * (width - len(request.prompt_ids)) + list(request.prompt_ids) for request in batch]
    mask = [[0] * (width - len(request.prompt_ids)) + [1] * len(request.prompt_ids) for request in batch]
    watched_width = max(len(request.watched_ids) for request in batch)
    watched_ids = [[*request.watched_ids, *[0] * (watched_width - len(request.watched_ids))] for request in batch]
    draw = SeededDraw(
        [request.seed for request in batch],
        sampling,
        torch.tensor(watched_ids, dtype=torch.long),
        language_model.device,
    )
    settings = GenerationConfig(
        do_sample=False, max_new_tokens=sampling.max_new_tokens, pad_token_id=pad_id, eos_token_id=stop_ids or None
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
        _completion(request, _until_stop(response, stop_ids), seen, language_model)
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
) -> Completion:
    """Assemble a response from its tokens and what was recorded: two ``[T]`` and the watched tokens' ``[T, W]``."""
    logprobs, self_certainty, watched = (values[: len(response_ids)] for values in recorded)
    if not logprobs.isfinite().all():
        raise ModelError(
            f"question '{request.id}', sample {request.sample}: the model's logits are not finite in "
            f"{language_model.model.dtype}: set model.dtype to float32 or bfloat16"
        )
    stated = torch.tensor([token in request.watched_ids for token in response_ids])
    return Completion(
        request=request,
        response_ids=response_ids,
        logprobs=logprobs.tolist(),
        finish_reason=STOP if response_ids[-1] in language_model.stop_ids else LENGTH,
        self_certainty=self_certainty.double().mean().item(),
        watched_logprobs=watched[stated, : len(request.watched_ids)].flatten().tolist(),
    )
