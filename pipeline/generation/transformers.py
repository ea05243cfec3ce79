"""Sampling with a model of transformers, in batches that fit the memory.

Batches hold prompts of like length, shortest first. Pinned by ``tests/generation/test_transformers.py``.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby

import torch
from transformers import PreTrainedModel

from pipeline.batching import TokenBudget
from pipeline.errors import ModelError
from pipeline.generation.config import Sampling
from pipeline.generation.decoding import decode
from pipeline.generation.generator import LENGTH, PROMPT_TOO_LONG, STOP, Completion, Request
from pipeline.generation.seeded import SeededDraw
from pipeline.ledger.meter import count_tokens
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
        renewal = _long_rope_start(self._language_model.model) or self._language_model.max_length
        complete = partial(_complete, language_model=self._language_model, sampling=sampling, renewal=renewal)

        def rotations(request: Request) -> int:
            return min(len(request.prompt_ids), renewal + 1) if n_tokens(request) > renewal else 0

        for _, group in groupby(ordered[:n_fit], rotations):
            for _, completions in self._budget.run(list(group), n_tokens, complete):
                yield completions
        if n_fit < len(ordered):
            yield [Completion(request, [], [], PROMPT_TOO_LONG, None, []) for request in ordered[n_fit:]]


def _long_rope_start(model: PreTrainedModel) -> int | None:
    """Return the number of tokens beyond which a LongRoPE model rotates all of them by its long factors.

    It goes by the longest row of a batch, so rows are batched by when they pass that length, if they do.
    """
    rope = getattr(model.config.get_text_config(decoder=True), "rope_parameters", None) or {}
    return rope["original_max_position_embeddings"] if rope.get("rope_type") == "longrope" else None


def _complete(
    batch: Sequence[Request], language_model: LanguageModel, sampling: Sampling, renewal: int
) -> list[Completion]:
    """Sample one batch."""
    watched_width = max(len(request.watched_ids) for request in batch)
    watched_ids = [[*request.watched_ids, *[0] * (watched_width - len(request.watched_ids))] for request in batch]
    draw = SeededDraw(
        [request.seed for request in batch],
        sampling,
        torch.tensor(watched_ids, dtype=torch.long),
        language_model.device,
    )
    prompts, stop_ids = [request.prompt_ids for request in batch], language_model.stop_ids
    sampled = decode(language_model.model, prompts, draw, stop_ids, renewal).tolist()
    responses = [_until_stop(response, stop_ids) for response in sampled]
    count_tokens(generated=sum(map(len, responses)))
    recorded = zip(draw.logprobs.cpu(), draw.self_certainty.cpu(), draw.watched.cpu(), strict=True)
    return [
        _completion(request, response, seen, language_model)
        for request, response, seen in zip(batch, responses, recorded, strict=True)
    ]


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
