"""Sizes of neuron support that need no threshold, over all positive contributions of a rollout (method, section 3).

Pinned by ``tests/neurons/test_sizes.py``.
"""

import torch
from torch import Tensor

from pipeline.neurons.topk import Chunk


class SupportSizes:
    """Accumulates sum c, sum c^2 and sum c log c per rollout; within a position in float32, across them in float64."""

    def __init__(self, n_rollouts: int, device: torch.device) -> None:
        self.totals = torch.zeros(n_rollouts, 3, dtype=torch.float64, device=device)

    def add(self, chunk: Chunk) -> None:
        """Take in a chunk; no order is assumed."""
        c = chunk.contributions.clamp(min=0)
        c_log_c = c.clamp(min=torch.finfo(c.dtype).tiny).log_().mul_(c)  # the inner clamp spares log its slow path at 0
        per_position = torch.stack([c.sum(1), c.square().sum(1), c_log_c.sum(1)], dim=1)  # [N, 3]
        self.totals.index_add_(0, chunk.owners, per_position.double())

    @property
    def score_sum(self) -> Tensor:
        """Sum of positive contributions, ``[R]`` (logits)."""
        return self.totals[:, 0]

    @property
    def participation_ratio(self) -> Tensor:
        """(sum c)^2 / sum c^2, ``[R]`` (entries); 0 without positive contributions."""
        return torch.where(self.totals[:, 1] > 0, self.totals[:, 0].square() / self.totals[:, 1], 0.0)

    @property
    def entropy_size(self) -> Tensor:
        """Exp of the entropy of c / sum c, ``[R]`` (entries); 0 without positive contributions."""
        entropy = self.score_sum.log() - self.totals[:, 2] / self.score_sum
        return torch.where(self.score_sum > 0, entropy.exp(), 0.0)
