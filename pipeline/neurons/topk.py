"""From a stream of contributions to the sets of neurons that carry a rollout (method, sections 3 and 10).

There are two: that of all tokens, and the rationale's, without the tokens that state the answer. Both come from one
stream. Contributions arrive layer by layer and, within a layer, in chunks of positions of several rollouts; nothing of
one layer is needed when the next arrives. Equal scores are ranked in the order of the stream (layer, then position,
then neuron), so a set is determined whatever the chunks. Pinned by ``tests/neurons/test_topk.py``.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from pipeline.neurons.config import NeuronScoresConfig

_SMALLEST = 2.0**-149
"""Smallest positive float32: what is at least this is positive."""
_SLACK = 4
"""A chunk may bring this multiple of K candidates per part before the bar is raised within it."""
_NO_RANK = 2**40
"""More than there are entries."""


@dataclass(frozen=True)
class Chunk:
    """Contributions to some tokens at one layer."""

    contributions: Tensor
    """Logits, ``[N, M]``."""
    owners: Tensor
    """Rollout of each position, ``[N]``, from 0, ascending; positions of a rollout are in order."""
    stated: Tensor
    """Whether the token states the answer, ``[N]``."""

    @property
    def parts(self) -> Tensor:
        """2 * rollout + stated, ``[N]``: a rollout's rationale and its answer."""
        return 2 * self.owners + self.stated


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

    def where(self, chosen: Tensor) -> "Kept":
        """Return the entries that a mask ``[n]`` chooses."""
        return Kept(self.owners[chosen], self.neurons[chosen], self.scores[chosen])

    def merged(self) -> "Kept":
        """Return each neuron of a rollout once, with its largest score, by rollout and ascending neuron id."""
        keys, inverse = (self.owners << 32 | self.neurons).unique(return_inverse=True)
        scores = torch.zeros(len(keys), device=keys.device).scatter_reduce_(0, inverse, self.scores, "amax")
        return Kept(keys >> 32, keys & 0xFFFFFFFF, scores)


class Sets(NamedTuple):
    """Neurons of several rollouts, each by rollout and ascending id."""

    whole: Kept
    """Of all tokens."""
    rationale: Kept
    """Of the tokens that do not state the answer; the same where none does."""


class Cut(Protocol):
    """A rule that says which neurons of a rollout are kept."""

    def add_layer(self, layer: int, chunks: Iterable[Chunk]) -> None:
        """Take in all chunks of one layer; layers come in order, and chunks in the order of positions."""

    def result(self) -> Sets:
        """Return the kept neurons."""


class EntriesCut:
    """Top K over (layer, neuron, position) entries, merged to neurons afterwards: |N| varies with concentration.

    One list serves both sets: an entry stays while it is in the top K of all tokens or in that of the rationale.
    """

    def __init__(self, n_rollouts: int, top_k: int, device: torch.device) -> None:
        self.top_k = top_k
        self.kept = Kept.none(device)  # its owners are parts
        self.bar = torch.full((2 * n_rollouts,), _SMALLEST, device=device)  # of a part: no smaller entry can stay

    def add_layer(self, layer: int, chunks: Iterable[Chunk]) -> None:
        """See ``Cut.add_layer``."""
        for chunk in chunks:
            above = self._above(chunk)
            positions, index = above.nonzero(as_tuple=True)
            found = Kept(chunk.parts[positions], index + layer * above.shape[1], chunk.contributions[above])
            entries, whole, rationale = self._ranked(self.kept.joined(found))
            for ranks, part in ((whole, 1), (rationale, 0)):
                last = ranks == self.top_k - 1
                self.bar[entries.owners[last] // 2 * 2 + part] = entries.scores[last]
            self.kept = entries.where((whole < self.top_k) | (rationale < self.top_k))

    def result(self) -> Sets:
        """See ``Cut.result``."""
        entries, whole, rationale = self._ranked(self.kept)
        rollouts = Kept(entries.owners // 2, entries.neurons, entries.scores)
        return Sets(*(rollouts.where(ranks < self.top_k).merged() for ranks in (whole, rationale)))

    def _above(self, chunk: Chunk) -> Tensor:
        """Return which entries ``[N, M]`` may stay: all that do, and few others."""
        values, parts = chunk.contributions, chunk.parts
        above = values >= self.bar[parts, None]
        counts = torch.zeros_like(self.bar, dtype=torch.int64).index_add_(0, parts, above.sum(dim=1))
        crowded = (counts > _SLACK * self.top_k).nonzero().flatten().tolist()
        for part in crowded:
            self.bar[part] = values[parts == part].flatten().topk(self.top_k, sorted=False).values.min()
        return values >= self.bar[parts, None] if crowded else above

    @staticmethod
    def _ranked(entries: Kept) -> tuple[Kept, Tensor, Tensor]:
        """Return entries by rollout and descending, of equal ones the first first, and their ranks in both sets.

        Ranks count from 0; an entry of a stated token has none in the rationale, a very large one.
        """
        order = entries.scores.argsort(descending=True, stable=True)
        order = order[(entries.owners[order] // 2).argsort(stable=True)]
        parts = entries.owners[order]
        first = torch.searchsorted(parts // 2, parts // 2)
        stated = parts % 2
        n_stated = stated.cumsum(0) - stated
        whole = torch.arange(len(parts), device=parts.device) - first
        rationale = whole - (n_stated - n_stated[first]) + stated * _NO_RANK
        return Kept(parts, entries.neurons[order], entries.scores[order]), whole, rationale


class NeuronsCut:
    """Entries merged to neurons, top neurons of each layer, then global top K (arXiv 2607.02460, app. A).

    **Choice**: the paper takes the top of a layer within each chunk and merges afterwards, so that a layer with more
    neurons than its limit may keep some of the excess, depending on where chunks begin. Here chunks are merged first:
    the same as the paper's rule for a response of one chunk, whatever the chunks.
    """

    def __init__(self, n_rollouts: int, top_k: int, top_k_per_layer: int, device: torch.device) -> None:
        self.n_rollouts, self.top_k, self.top_k_per_layer = n_rollouts, top_k, top_k_per_layer
        self.kept = Sets(Kept.none(device), Kept.none(device))

    def add_layer(self, layer: int, chunks: Iterable[Chunk]) -> None:
        """See ``Cut.add_layer``."""
        by_part = reduce(torch.maximum, map(self._largest, chunks)).unflatten(0, (self.n_rollouts, 2))
        largest = (by_part.amax(dim=1), by_part[:, 0])
        self.kept = Sets(*(self._join(kept, layer, c) for kept, c in zip(self.kept, largest, strict=True)))

    def result(self) -> Sets:
        """See ``Cut.result``."""
        return Sets(*(kept.merged() for kept in self.kept))

    def _join(self, kept: Kept, layer: int, largest: Tensor) -> Kept:
        """Return the top K of ``kept`` and a layer's ``largest [R, M]``."""
        best = self._top(largest)
        owners, index = best.nonzero(as_tuple=True)
        return kept.joined(Kept(owners, index + layer * best.shape[1], best[owners, index])).largest(self.top_k)

    def _largest(self, chunk: Chunk) -> Tensor:
        """Return the largest score ``[2 R, M]`` of each neuron in the chunk, by part; 0 unless positive."""
        largest = chunk.contributions.new_zeros(2 * self.n_rollouts, chunk.contributions.shape[1])
        parts = chunk.parts[:, None].expand_as(chunk.contributions)
        return largest.scatter_reduce_(0, parts, chunk.contributions, "amax")

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
