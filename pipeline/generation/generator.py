"""What a generation backend is asked and what it answers: tokens in, tokens and their log-probabilities out.

A backend knows neither questions nor options, and no text: it gets token ids and gives token ids.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from pipeline.generation.config import Sampling

STOP: Final = "stop"
"""Finish reason of a response that ends with one of the model's end tokens."""
LENGTH: Final = "length"
"""Finish reason of a response that was cut at ``max_new_tokens``."""
PROMPT_TOO_LONG: Final = "prompt_too_long"
"""Finish reason of a request whose prompt and ``max_new_tokens`` exceed the model's positions: no response."""


@dataclass(frozen=True)
class Request:
    """One response to sample."""

    id: str
    """Question; names the request in errors."""
    sample: int
    """Number of the response within its question, from 0; likewise."""
    seed: int
    """Seed of this response's draws, 64 bits."""
    prompt_ids: Sequence[int]
    """Token ids of the rendered prompt, chat template included; not empty."""
    watched_ids: tuple[int, ...] = ()
    """Different tokens whose log-probabilities are wanted wherever one of them is drawn."""


@dataclass(frozen=True)
class Completion:
    """A sampled response."""

    request: Request
    """What was asked."""
    response_ids: list[int]
    """Token ids, the end token included when it was reached; empty without a response."""
    logprobs: list[float]
    """Log-probability of each response token (nats), by the raw logits: at temperature 1, before top-p."""
    finish_reason: str
    """``STOP``, ``LENGTH`` or ``PROMPT_TOO_LONG``."""
    self_certainty: float | None
    """Mean over the response tokens of KL(uniform, p), p by the raw logits (nats; arXiv 2505.19590); none without."""
    watched_logprobs: list[float]
    """For each response token that is itself a watched one, in order, the log-probability of every watched token in
    its place (nats, by the raw logits), in the order of ``request.watched_ids``; all one flat list."""


class Generator(Protocol):
    """A backend that samples responses; results must not depend on how it batches them."""

    def sample(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[list[Completion]]:
        """Yield lists of completions, in any order, such that every request is answered exactly once.

        Determinism: what is drawn for a request is a function of the model, ``sampling``, its prompt and its seed. The
        other requests, their order, the size of batches and earlier calls change no token, up to the rounding of the
        model's own forward pass; a larger ``max_new_tokens`` only continues a response. The checkpoint's own sampling
        settings (top-k, repetition penalty) are not applied. Requests of the same prompt and seed get the same
        response.

        Order: a list is what became ready together. It is yielded when it is ready, so that callers can store and
        count it; nothing yielded is asked for again.

        Prompts that do not fit: a request of more tokens than the model has positions, ``sampling.max_new_tokens``
        included, is answered without a response and with ``PROMPT_TOO_LONG``; it is neither cut nor an error.

        Memory: a batch that exceeds the device's memory is made again in smaller ones, with the same result.

        Raises:
            ModelError: One response alone exceeds the memory, or the logits are not finite; the message names
                question and sample.
        """
