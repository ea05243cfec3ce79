"""Signals of a rollout that need no threshold, gathered while the layers run (method, section 3).

Pinned by ``tests/neurons/test_sizes.py``.
"""

import torch
from torch import Tensor

from pipeline.neurons.topk import Chunk


class SupportSizes:
    """Accumulates sum c per layer, sum c^2 and sum c log c of a rollout's positive contributions c.

    Sums are taken in float32 within a position and in float64 across them.
    """

    def __init__(self, n_rollouts: int, n_layers: int, device: torch.device) -> None:
        self.layer_scores = torch.zeros(n_rollouts, n_layers, dtype=torch.float64, device=device)
        """Sum of positive contributions per layer, ``[R, L]`` (logits): the layer profile."""
        self._totals = torch.zeros(n_rollouts, 2, dtype=torch.float64, device=device)

    def add(self, layer: int, chunk: Chunk) -> None:
        """Take in a chunk; no order is assumed."""
        c = chunk.contributions
        c_log_c = c.clamp(min=torch.finfo(c.dtype).tiny).log_().mul_(c)  # the clamp spares log its slow path at 0
        self.layer_scores[:, layer].index_add_(0, chunk.owners, c.sum(1).double())
        per_position = torch.stack([torch.linalg.vector_norm(c, dim=1).square(), c_log_c.sum(1)], dim=1)  # [N, 2]
        self._totals.index_add_(0, chunk.owners, per_position.double())

    @property
    def finite(self) -> Tensor:
        """Whether all contributions of a rollout are finite numbers, ``[R]``."""
        return self._totals.isfinite().all(dim=1) & self.layer_scores.isfinite().all(dim=1)

    @property
    def score_sum(self) -> Tensor:
        """Sum of positive contributions, ``[R]`` (logits)."""
        return self.layer_scores.sum(dim=1)

    @property
    def participation_ratio(self) -> Tensor:
        """(sum c)^2 / sum c^2, ``[R]`` (entries); 0 without positive contributions."""
        squares = self._totals[:, 0]
        return torch.where(squares > 0, self.score_sum.square() / squares, 0.0)

    @property
    def entropy_size(self) -> Tensor:
        """Exp of the entropy of c / sum c, ``[R]`` (entries); 0 without positive contributions."""
        entropy = self.score_sum.log() - self._totals[:, 1] / self.score_sum
        return torch.where(self.score_sum > 0, entropy.exp(), 0.0)
