"""From a stream of contributions to the set of neurons that carries a rollout (method, section 3).

Contributions arrive layer by layer and, within a layer, in chunks of response positions of several rollouts; nothing
of one layer is needed when the next arrives. Equal scores are ranked in the order of the stream (layer, then position,
then neuron), so a set is determined whatever the chunks. Pinned by ``tests/neurons/test_topk.py``.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Protocol

import torch
from torch import Tensor

from pipeline.config import NeuronScoresConfig

_SMALLEST = 2.0**-149
"""Smallest positive float32: what is at least this is positive."""
_SLACK = 4
"""A chunk may bring this multiple of K candidates per rollout before the bar is raised within it."""


@dataclass(frozen=True)
class Chunk:
    """Contributions to some response tokens at one layer."""

    contributions: Tensor
    """Logits, ``[N, M]``."""
    owners: Tensor
    """Rollout of each position, ``[N]``, from 0, ascending; positions of a rollout are in order."""


@dataclass(frozen=True)
class Kept:
    """Entries or neurons of several rollouts as parallel vectors ``[n]``."""

    owners: Tensor
    """Rollout, from 0."""
    neurons: Tensor
    """Neuron id, layer * d_mlp + index."""
    scores: Tensor
    """Contribution (logits), positive."""

    @classmethod
    def none(cls, device: torch.device) -> "Kept":
        """Return no entries."""
        ids = torch.empty(0, dtype=torch.int64, device=device)
        return cls(ids, ids, torch.empty(0, device=device))

    def joined(self, later: "Kept") -> "Kept":
        """Return these entries followed by ``later`` ones."""
        return Kept(
            torch.cat([self.owners, later.owners]),
            torch.cat([self.neurons, later.neurons]),
            torch.cat([self.scores, later.scores]),
        )

    def largest(self, k: int) -> "Kept":
        """Return the k largest scores of each rollout, descending; of equal ones, the first."""
        order = self.scores.argsort(descending=True, stable=True)
        order = order[self.owners[order].argsort(stable=True)]
        owners = self.owners[order]
        rank = torch.arange(len(owners), device=owners.device) - torch.searchsorted(owners, owners)
        order = order[rank < k]
        return Kept(self.owners[order], self.neurons[order], self.scores[order])

    def merged(self) -> "Kept":
        """Return each neuron of a rollout once, with its largest score, by rollout and ascending neuron id."""
        keys, inverse = (self.owners << 32 | self.neurons).unique(return_inverse=True)
        scores = torch.zeros(len(keys), device=keys.device).scatter_reduce_(0, inverse, self.scores, "amax")
        return Kept(keys >> 32, keys & 0xFFFFFFFF, scores)


class Cut(Protocol):
    """A rule that says which neurons of a rollout are kept."""

    def add_layer(self, layer: int, chunks: Iterable[Chunk]) -> None:
        """Take in all chunks of one layer; layers come in order, and chunks in the order of positions."""

    def result(self) -> Kept:
        """Return the kept neurons by rollout and ascending id."""


class EntriesCut:
    """Top K over (layer, neuron, position) entries, merged to neurons afterwards: |N| varies with concentration."""

    def __init__(self, n_rollouts: int, top_k: int, device: torch.device) -> None:
        self.top_k = top_k
        self.kept = Kept.none(device)
        self.bar = torch.full((n_rollouts,), _SMALLEST, device=device)  # no smaller entry can be in the top K

    def add_layer(self, layer: int, chunks: Iterable[Chunk]) -> None:
        """See ``Cut.add_layer``."""
        for chunk in chunks:
            above = self._above(chunk)
            positions, index = above.nonzero(as_tuple=True)
            found = Kept(chunk.owners[positions], index + layer * above.shape[1], chunk.contributions[above])
            self.kept = self.kept.joined(found).largest(self.top_k)
            self._raise_bar()

    def result(self) -> Kept:
        """See ``Cut.result``."""
        return self.kept.merged()

    def _above(self, chunk: Chunk) -> Tensor:
        """Return which entries ``[N, M]`` may be in the top K: all that are, and few others."""
        values, owners = chunk.contributions, chunk.owners
        above = values >= self.bar[owners, None]
        counts = torch.zeros_like(self.bar, dtype=torch.int64).index_add_(0, owners, above.sum(dim=1))
        crowded = (counts > _SLACK * self.top_k).nonzero().flatten().tolist()
        for rollout in crowded:
            self.bar[rollout] = values[owners == rollout].flatten().topk(self.top_k, sorted=False).values.min()
        return values >= self.bar[owners, None] if crowded else above

    def _raise_bar(self) -> None:
        # The kept scores of a rollout are in descending order, so the K-th, if there is one, is at a fixed offset.
        first = torch.searchsorted(self.kept.owners, torch.arange(len(self.bar), device=self.bar.device))
        counts = torch.bincount(self.kept.owners, minlength=len(self.bar))
        full = counts == self.top_k
        self.bar[full] = self.kept.scores[first[full] + self.top_k - 1]


class NeuronsCut:
    """Entries merged to neurons, top neurons of each layer, then global top K (arXiv 2607.02460, app. A).

    **Choice**: the paper takes the top of a layer within each chunk and merges afterwards, so that a layer with more
    neurons than its limit may keep some of the excess, depending on where chunks begin. Here chunks are merged first:
    the same as the paper's rule for a response of one chunk, whatever the chunks.
    """

    def __init__(self, n_rollouts: int, top_k: int, top_k_per_layer: int, device: torch.device) -> None:
        self.n_rollouts, self.top_k, self.top_k_per_layer = n_rollouts, top_k, top_k_per_layer
        self.kept = Kept.none(device)

    def add_layer(self, layer: int, chunks: Iterable[Chunk]) -> None:
        """See ``Cut.add_layer``."""
        best = self._top(reduce(torch.maximum, map(self._largest, chunks)))
        owners, index = best.nonzero(as_tuple=True)
        found = Kept(owners, index + layer * best.shape[1], best[owners, index])
        self.kept = self.kept.joined(found).largest(self.top_k)

    def result(self) -> Kept:
        """See ``Cut.result``."""
        return self.kept.merged()

    def _largest(self, chunk: Chunk) -> Tensor:
        """Return the largest score ``[R, M]`` of each neuron in the chunk; 0 unless positive."""
        largest = chunk.contributions.new_zeros(self.n_rollouts, chunk.contributions.shape[1])
        owners = chunk.owners[:, None].expand_as(chunk.contributions)
        return largest.scatter_reduce_(0, owners, chunk.contributions, "amax")

    def _top(self, largest: Tensor) -> Tensor:
        """Return ``largest [R, M]`` with 0 for all but the top neurons of the layer; of equal ones, the first stay."""
        if self.top_k_per_layer >= largest.shape[1]:
            return largest
        top = largest.argsort(dim=1, descending=True, stable=True)[:, : self.top_k_per_layer]
        return torch.zeros_like(largest).scatter(1, top, largest.gather(1, top))


def make_cut(config: NeuronScoresConfig, n_rollouts: int, device: torch.device) -> Cut:
    """Return the configured cut for ``n_rollouts`` rollouts."""
    if config.cut == "entries":
        return EntriesCut(n_rollouts, config.top_k, device)
    return NeuronsCut(n_rollouts, config.top_k, config.top_k_per_layer, device)
