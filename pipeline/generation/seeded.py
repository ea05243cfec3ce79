"""Token draws that depend on seed, question and sample alone, never on the batch they are made in.

Each row has its own stream of uniforms, one per response position, and a token is drawn by inverting the cumulative
distribution after temperature and top-p. Pinned by ``tests/generation/test_seeded.py``.
"""

from collections.abc import Sequence
from math import log

import numpy as np
import torch
from transformers import LogitsProcessor, LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

from pipeline.generation.config import Sampling


class SeededDraw(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped
    """Draws each row's next token, makes greedy decoding take it, and records its log-probability.

    One instance serves one call of ``generate`` with ``do_sample=False``. It must be the only processor: what it
    receives are the model's raw logits. No ``[B, V]`` tensor outlives its step.
    """

    def __init__(self, seeds: Sequence[int], config: Sampling, watched_ids: torch.Tensor, device: torch.device) -> None:
        """Draw all uniforms ``[B, max_new_tokens]``; of ``watched_ids [B, W]`` log-probabilities are kept."""
        streams = [np.random.Generator(np.random.Philox(seed)).random(config.max_new_tokens) for seed in seeds]
        self._uniforms = torch.from_numpy(np.stack(streams)).to(device)
        self._watched_ids = watched_ids.to(device)
        self._warp = LogitsProcessorList([TemperatureLogitsWarper(config.temperature)])
        if config.top_p < 1:
            self._warp.append(TopPLogitsWarper(config.top_p))
        self._logprobs: list[torch.Tensor] = []
        self._self_certainty: list[torch.Tensor] = []
        self._watched: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return scores ``[B, V]`` that are 0 at the drawn token and minus infinity elsewhere."""
        logits = scores.float()
        cumulative = self._warp(input_ids, logits).double().softmax(-1).cumsum(-1)
        target = self._uniforms[:, len(self._logprobs), None] * cumulative[:, -1:]
        # The first entry above the target always has mass; the clamp only meets NaN, which the caller refuses.
        token = torch.searchsorted(cumulative, target, right=True).clamp_(max=logits.shape[1] - 1)
        log_normaliser = logits.logsumexp(-1, keepdim=True)
        self._logprobs.append((logits.gather(1, token) - log_normaliser).squeeze(1))
        self._self_certainty.append((log_normaliser.squeeze(1) - logits.mean(-1)) - log(logits.shape[1]))
        self._watched.append(logits.gather(1, self._watched_ids) - log_normaliser)
        return torch.full_like(logits, -torch.inf).scatter_(1, token, 0.0)

    @property
    def logprobs(self) -> torch.Tensor:
        """Log-probabilities ``[B, T]`` of the drawn tokens at temperature 1 (nats), steps after the end included."""
        return torch.stack(self._logprobs, 1).cpu()

    @property
    def self_certainty(self) -> torch.Tensor:
        """KL(uniform, p) ``[B, T]`` over the vocabulary at temperature 1 (nats; arXiv 2505.19590)."""
        return torch.stack(self._self_certainty, 1).cpu()

    @property
    def watched(self) -> torch.Tensor:
        """Log-probabilities ``[B, T, W]`` of the watched tokens at temperature 1 (nats)."""
        return torch.stack(self._watched, 1).cpu()
