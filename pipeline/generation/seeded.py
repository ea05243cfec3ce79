"""Token draws that depend on seed, question and sample alone, never on the batch they are made in.

Each row has its own stream of uniforms, one per response position, and a token is drawn by inverting the cumulative
distribution after temperature and top-p. Pinned by ``tests/generation/test_seeded.py``.
"""

from collections.abc import Sequence
from math import log
from typing import Final

import numpy as np
import torch
from torch import Tensor
from transformers import TopPLogitsWarper

from pipeline.generation.config import Sampling

_CANDIDATES: Final = 128
"""Leading tokens among which the nucleus is looked for first: it holds 42 in SmolLM2's 99th percentile."""
_MARGIN: Final = 1e-5
"""Probability mass, ten times what summing a vocabulary in float32 can err by."""


class SeededDraw:
    """Draws the next tokens of the rows of a batch, and records their log-probabilities.

    One instance serves one batch. No ``[B, V]`` tensor outlives its step.
    """

    def __init__(self, seeds: Sequence[int], config: Sampling, watched_ids: Tensor, device: torch.device) -> None:
        """Draw all uniforms ``[B, max_new_tokens]``; of ``watched_ids [B, W]`` log-probabilities are kept."""
        streams = [np.random.Generator(np.random.Philox(seed)).random(config.max_new_tokens) for seed in seeds]
        self._uniforms = torch.from_numpy(np.stack(streams)).to(device)
        self._watched_ids = watched_ids.to(device)
        self._config = config
        shape = self._uniforms.shape
        self.logprobs = torch.zeros(shape, device=device)
        """Log-probabilities ``[B, T]`` of the drawn tokens at temperature 1 (nats); 0 where none was drawn."""
        self.self_certainty = torch.zeros(shape, device=device)
        """KL(uniform, p) ``[B, T]`` over the vocabulary at temperature 1 (nats; arXiv 2505.19590); likewise."""
        self.watched = torch.zeros(*shape, watched_ids.shape[1], device=device)
        """Log-probabilities ``[B, T, W]`` of the watched tokens at temperature 1 (nats); likewise."""

    def __call__(self, logits: Tensor, rows: Tensor, step: int) -> Tensor:
        """Return token number ``step`` of each of ``rows [R]``, drawn by its raw ``logits [R, V]``."""
        logits = logits.float()
        token = draw_tokens(logits / self._config.temperature, self._config.top_p, self._uniforms[rows, step, None])
        log_normaliser = logits.logsumexp(-1, keepdim=True)
        self.logprobs[rows, step] = (logits.gather(1, token) - log_normaliser).squeeze(1)
        self.self_certainty[rows, step] = (log_normaliser.squeeze(1) - logits.mean(-1)) - log(logits.shape[1])
        self.watched[rows, step] = logits.gather(1, self._watched_ids[rows]) - log_normaliser
        return token.squeeze(1)


def draw_tokens(scores: Tensor, top_p: float, uniforms: Tensor) -> Tensor:
    """Return the tokens ``[R, 1]`` of ``scores [R, V]`` at which ``uniforms [R, 1]`` fall within the nucleus.

    The nucleus is that of ``TopPLogitsWarper`` of transformers, which sorts the vocabulary: that takes most of a draw's
    time. Where the nucleus ends clearly among the leading tokens, neither at a tie nor within rounding, it is told and
    drawn from by them alone.
    """
    if top_p == 1:
        return _invert(scores, uniforms)
    sort = TopPLogitsWarper(top_p)
    if scores.shape[1] <= _CANDIDATES:
        return _invert(sort(None, scores), uniforms)
    leading, tokens = scores.topk(_CANDIDATES)
    p = (leading - scores.logsumexp(-1, keepdim=True)).double().exp()
    before = p.cumsum(-1) - p
    kept = before < top_p
    last = kept.sum(-1, keepdim=True) - 1
    least, following = (leading.gather(1, (last + i).clamp(0, _CANDIDATES - 1)) for i in (0, 1))
    tokens, order = tokens.sort(-1)
    drawn = tokens.gather(1, _invert(leading.masked_fill(~kept, -torch.inf).gather(1, order), uniforms))
    # Negated, so that NaN is sorted, too.
    unclear = ~(((before - top_p).abs().amin(-1, keepdim=True) > _MARGIN) & (least > following)).squeeze(1)
    drawn[unclear] = _invert(sort(None, scores[unclear]), uniforms[unclear])
    return drawn


def _invert(scores: Tensor, uniforms: Tensor) -> Tensor:
    """Return the columns ``[R, 1]`` at which ``uniforms [R, 1]`` fall, by the softmax of ``scores [R, N]``."""
    cumulative = scores.double().softmax(-1).cumsum(-1)
    # The first entry above the target always has mass; the clamp only meets NaN, which the caller refuses.
    columns = torch.searchsorted(cumulative, uniforms * cumulative[:, -1:], right=True)
    return columns.clamp_(max=scores.shape[1] - 1)
