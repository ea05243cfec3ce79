"""From a stream of contributions to the sets of neurons that carry a rollout (method, sections 3 and 10).

There are two: that of all tokens, and the rationale's, without the tokens that state the answer. Both come from one
stream. Contributions arrive layer by layer and, within a layer, in chunks of positions of several rollouts; nothing of
one layer is needed when the next arrives. Equal scores are ranked in the order of the stream (layer, then position,
then neuron), so a set is determined whatever the chunks. Pinned by ``tests/neurons/test_topk.py``.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from math import gcd
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from pipeline.neurons.config import NeuronScoresConfig

_SMALLEST = 2.0**-149
"""Smallest positive float32: what is at least this is positive."""
_BLOCK = 32
"""Neurons that are looked through together: few hold an entry that may stay, and to find single ones is slow."""
_SLACK = 4
"""A list is cut when it is longer than this multiple of K."""


@dataclass(frozen=True)
class Chunk:
    """Contributions to some tokens at one layer."""

    contributions: Tensor
    """Logits, ``[N, M]``, 0 in place of negative ones."""
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

    One list serves both sets: an entry stays while it is in the top K of all tokens or in that of the rationale. Lists
    are rows ``[R, C]`` in the order of the stream, filled up with scores of 0, and cut when they have grown.
    """

    def __init__(self, n_rollouts: int, top_k: int, device: torch.device) -> None:
        self.top_k = top_k
        self.scores = torch.zeros(n_rollouts, 1, device=device)
        self.neurons = self.scores.long()
        self.stated = self.scores.bool()
        self.bar = torch.full((n_rollouts, 2), _SMALLEST, device=device)  # of a part: no smaller entry can stay

    def add_layer(self, layer: int, chunks: Iterable[Chunk]) -> None:
        """See ``Cut.add_layer``."""
        for chunk in chunks:
            n_neurons, bars = chunk.contributions.shape[1], self.bar.flatten()[chunk.parts]
            width = gcd(n_neurons, _BLOCK)
            blocks = chunk.contributions.unflatten(1, (-1, width))
            positions, numbers = (blocks.amax(dim=2) >= bars[:, None]).nonzero(as_tuple=True)
            values = blocks.flatten(0, 1).index_select(0, positions * blocks.shape[1] + numbers)
            found, within = (values >= bars[positions, None]).nonzero(as_tuple=True)
            positions, index = positions[found], numbers[found] * width + within
            new = self._rows(
                chunk.owners[positions],
                values[found, within],
                index + layer * n_neurons,
                chunk.stated[positions],
            )
            old = (self.scores, self.neurons, self.stated)
            self.scores, self.neurons, self.stated = (torch.cat(pair, dim=1) for pair in zip(old, new, strict=True))
            if self.scores.shape[1] > _SLACK * self.top_k:
                self._cut()

    def result(self) -> Sets:
        """See ``Cut.result``."""
        return Sets(*(Kept(m.nonzero()[:, 0], self.neurons[m], self.scores[m]).merged() for m in self._largest()))

    def _cut(self) -> None:
        whole, rationale = self._largest()
        for part, largest in enumerate((rationale, whole)):
            least = self.scores.masked_fill(~largest, torch.inf).amin(dim=1)
            self.bar[:, part] = torch.where(largest.sum(dim=1) == self.top_k, least, self.bar[:, part])
        kept = whole | rationale
        self.scores, self.neurons, self.stated = self._rows(
            kept.nonzero()[:, 0], self.scores[kept], self.neurons[kept], self.stated[kept]
        )

    def _largest(self) -> tuple[Tensor, Tensor]:
        """Return which entries ``[R, C]`` are in the top K of all tokens, and which in that of the rationale."""
        return self._top(self.scores), self._top(self.scores.masked_fill(self.stated, 0))

    def _top(self, scores: Tensor) -> Tensor:
        """Return the K largest of each row, if positive; of equal ones, the first."""
        least = scores.topk(min(self.top_k, scores.shape[1]), sorted=False).values.amin(dim=1, keepdim=True)
        equal, above = scores == least, scores > least
        first = equal & (equal.cumsum(dim=1) <= self.top_k - above.sum(dim=1, keepdim=True))
        return (above | first) & (scores > 0)

    def _rows(self, owners: Tensor, *vectors: Tensor) -> list[Tensor]:
        """Return vectors ``[n]`` as rows ``[R, C]``, by ascending ``owners [n]``."""
        counts = owners.bincount(minlength=len(self.bar))
        columns = torch.arange(len(owners), device=owners.device) - (counts.cumsum(0) - counts)[owners]
        rows = [vector.new_zeros(len(counts), int(counts.max())) for vector in vectors]
        for row, vector in zip(rows, vectors, strict=True):
            row[owners, columns] = vector
        return rows


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
