"""Exact top-k Jaccard: every target is compared with every candidate. Pinned by ``tests/retrieval/test_exact.py``.

The shared neurons of a target with all candidates are counted at once. A *rare* neuron has a posting list of the
candidates that hold it, whose counters go up by one; a *frequent* one is a bit of a matrix, which a population count
of ``target & candidate`` reads 64 at a time. An increment costs about 1 ns and a word 0.13 ns (AMD EPYC, AVX-512), so
bits win for a neuron in more than 1 / sqrt(64 / 0.13) = 1/22 of the sets; at 1/16, bits take no more memory than the
posting list would, 2 bytes an entry, which bounds the index by half of the sets themselves.

CPU time per pair, one thread, 500 against 5,000 sets of 5,300 neurons (``benchmarks.retrieval``): 0.5 us; scipy's
sparse product 1.0 us, ranking not included; sparse_dot_topn 1.0 us; usearch's exact Tanimoto on 350,000 bits 2.8 us.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit
from numba.extending import intrinsic
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline.retrieval.sets import Integers, Nearest, NeuronIds, NeuronSets, Similarities
from pipeline.retrieval.threads import over_blocks

NONE: Final = -1
"""Index of a neighbour that does not exist."""
_RARE: Final = -1
_FREQUENT_SHARE: Final = 1 / 16
_TILE: Final = 16  # targets that share one pass over the candidates' bits
_CANDIDATES: Final = 2**16  # per index: their numbers within it fit 16 bits
_TARGETS: Final = 256  # per call of the kernel, so that threads share the work and the progress bar moves


class CandidateIndex(NamedTuple):
    """Consecutive candidates, by the neurons that they hold."""

    first: int
    """Row of the first of them among all candidates."""
    sizes: Integers
    """Neurons of each, ``[C]``."""
    column: NDArray[np.int32]
    """Bit of each neuron id in ``bits``, or that it is rare, ``[largest neuron id + 1]``."""
    bits: NDArray[np.uint64]
    """Which frequent neurons each holds, ``[C, words]``."""
    starts: Integers
    """Neuron ``i`` is held by ``holders[starts[i]:starts[i + 1]]``, if it is rare."""
    holders: NDArray[np.uint16]
    """Candidates, counted from ``first``."""


def nearest_exact(
    targets: NeuronSets, candidates: NeuronSets, k: int, blocks: tuple[int, int] = (_TARGETS, _CANDIDATES)
) -> Nearest:
    """Return the k candidates with the largest similarity to each target, ``[T, k]``, and the similarities.

    Equal similarities are ordered by row. Where there are fewer than k candidates the rest is ``NONE`` with
    similarity 0. Neither ``blocks``, targets and candidates at a time, nor the number of threads change the result;
    an index holds at most 65,536 candidates.
    """
    indices = np.full((len(targets), k), NONE, dtype=np.int64)
    similarities = np.full((len(targets), k), -1.0)
    n_blocks = -(-len(candidates) // blocks[1])
    with tqdm(total=n_blocks * len(targets), desc="overlap", delay=2, mininterval=1) as bar:
        for first in range(0, len(candidates), blocks[1]):
            index = build_index(candidates.rows(first, first + blocks[1]), first)

            def compare(start: int, stop: int, index: CandidateIndex = index) -> None:
                own = targets.offsets[start : stop + 1]
                _compare(own, targets.neurons, index, indices[start:stop], similarities[start:stop])

            for n_compared in over_blocks(compare, len(targets), blocks[0]):
                bar.update(n_compared)
    return indices, np.maximum(similarities, 0)


def build_index(candidates: NeuronSets, first: int) -> CandidateIndex:
    """Return the index of at most 65,536 candidates, the first of which is row ``first`` of all."""
    counts = np.bincount(candidates.neurons)
    frequent = counts > _FREQUENT_SHARE * len(candidates)
    column = np.where(frequent, np.cumsum(frequent) - 1, _RARE).astype(np.int32)
    bits = _set_bits(candidates.offsets, candidates.neurons, column, -(-int(frequent.sum()) // 64))
    starts = np.concatenate([[0], np.cumsum(np.where(frequent, 0, counts))])
    holders = _list_holders(candidates.offsets, candidates.neurons, column, starts)
    return CandidateIndex(first, np.diff(candidates.offsets), column, bits, starts, holders)


@njit(cache=True, nogil=True)
def insert_ranked(candidate: int, similarity: float, indices: Integers, similarities: Similarities) -> None:
    """Put a candidate in its place among the k best, both ``[k]``, behind those with equal similarity."""
    place = len(indices)
    while place > 0 and similarities[place - 1] < similarity:
        place -= 1
    for rank in range(len(indices) - 1, place, -1):
        indices[rank], similarities[rank] = indices[rank - 1], similarities[rank - 1]
    if place < len(indices):
        indices[place], similarities[place] = candidate, similarity


@intrinsic
def _popcount(_typing: Any, word: Any) -> Any:
    # Numba has no population count of its own; LLVM's is vectorised.
    return word(word), lambda _context, builder, _signature, arguments: builder.ctpop(arguments[0])


@njit(cache=True, nogil=True)
def _set_bits(offsets: Integers, neurons: NeuronIds, column: NDArray[np.int32], words: int) -> NDArray[np.uint64]:
    bits = np.zeros((len(offsets) - 1, words), dtype=np.uint64)
    for row in range(len(offsets) - 1):
        for neuron in neurons[offsets[row] : offsets[row + 1]]:
            if neuron < len(column) and column[neuron] != _RARE:
                bits[row, column[neuron] >> 6] |= np.uint64(1) << np.uint64(column[neuron] & 63)
    return bits


@njit(cache=True, nogil=True)
def _list_holders(
    offsets: Integers, neurons: NeuronIds, column: NDArray[np.int32], starts: Integers
) -> NDArray[np.uint16]:
    holders = np.empty(starts[-1], dtype=np.uint16)
    free = starts[:-1].copy()
    for row in range(len(offsets) - 1):
        for neuron in neurons[offsets[row] : offsets[row + 1]]:
            if column[neuron] == _RARE:
                holders[free[neuron]] = row
                free[neuron] += 1
    return holders


@njit(cache=True, nogil=True)
def _compare(
    offsets: Integers, neurons: NeuronIds, index: CandidateIndex, indices: Integers, similarities: Similarities
) -> None:
    for first in range(0, len(indices), _TILE):
        last = min(len(indices), first + _TILE)
        bits = _set_bits(offsets[first : last + 1], neurons, index.column, index.bits.shape[1])
        shared = _count_frequent(bits, index.bits)
        for target in range(first, last):
            own = neurons[offsets[target] : offsets[target + 1]]
            _count_rare(own, index, shared[target - first])
            _rank(len(own), index, shared[target - first], indices[target], similarities[target])


@njit(cache=True, nogil=True)
def _count_frequent(targets: NDArray[np.uint64], candidates: NDArray[np.uint64]) -> NDArray[np.int32]:
    shared = np.empty((len(targets), len(candidates)), dtype=np.int32)
    for candidate in range(len(candidates)):
        for target in range(len(targets)):
            count = np.int64(0)
            for word in range(candidates.shape[1]):
                count += np.int64(_popcount(targets[target, word] & candidates[candidate, word]))
            shared[target, candidate] = count
    return shared


@njit(cache=True, nogil=True)
def _count_rare(neurons: NeuronIds, index: CandidateIndex, shared: NDArray[np.int32]) -> None:
    for neuron in neurons:
        if neuron < len(index.column):
            for posting in range(index.starts[neuron], index.starts[neuron + 1]):
                shared[index.holders[posting]] += 1


@njit(cache=True, nogil=True)
def _rank(
    size: int, index: CandidateIndex, shared: NDArray[np.int32], indices: Integers, similarities: Similarities
) -> None:
    for candidate in range(len(shared)):
        union = size + index.sizes[candidate] - shared[candidate]
        similarity = shared[candidate] / union if union else 0.0
        if similarity > similarities[-1]:
            insert_ranked(index.first + candidate, similarity, indices, similarities)
