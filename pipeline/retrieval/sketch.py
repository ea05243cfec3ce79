"""Approximate top-k Jaccard for large pools: signatures propose candidates, exact similarities rank them.

A signature has one bit (Li, Koenig, arXiv 0910.3349) of each minimum of a MinHash that hashes a set into bins until all
are filled (Dahlgaard, Knudsen, Thorup, arXiv 1704.04370). Two signatures agree in a share (1 + J) / 2 of their bits,
whatever the sizes of the sets, so Hamming distance ranks by similarity; faiss compares all of them and keeps the first
of equally distant ones. Where even the nearest sets share little, signatures cannot tell them apart: among sets drawn
at random, whose nearest have a similarity below 0.05, what was found had 0.71 to 0.96 of the exact mean similarity;
raise ``exact_up_to`` there. Pinned by ``tests/retrieval/test_sketch.py``; figures in
``benchmarks/results/retrieval.json``.

Dropped: usearch's HNSW graph over folded bits, whose cost grows more slowly but which lost 2 to 12 % of the similarity
where neighbours are weak, and could not find 3 to 20 % of the sets at all; and folded bits compared one by one, which
need twice the bits for the same quality.
"""

from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline.errors import ConfigError
from pipeline.retrieval.exact import NONE, insert_ranked
from pipeline.retrieval.sets import Integers, Nearest, NeuronIds, NeuronSets
from pipeline.retrieval.threads import over_blocks

_BINS: Final = 8192  # bits of a signature
_MIN_PROPOSED: Final = 128  # candidates ranked exactly per target
_PROPOSED_PER_K: Final = 8
_TARGETS: Final = 1024  # per search
_ROWS: Final = 64  # per thread and call of a kernel
_EMPTY: Final = np.uint64(2**64 - 1)


def nearest_sketched(targets: NeuronSets, candidates: NeuronSets, k: int) -> Nearest:
    """Return k near candidates of each target, ``[T, k]``, best first, and their exact similarities.

    As ``nearest_exact``, but of a few candidates whose signatures are nearest; equal similarities among them are
    ordered by row. Deterministic. Raises ConfigError without faiss.
    """
    index = _load_faiss().IndexBinaryFlat(_BINS)
    index.add(signatures(candidates.offsets, candidates.neurons))
    n_proposed = min(max(_MIN_PROPOSED, _PROPOSED_PER_K * k), len(candidates))
    width = int(candidates.neurons.max(initial=0)) + 1
    indices = np.full((len(targets), k), NONE, dtype=np.int64)
    similarities = np.full((len(targets), k), -1.0)
    with tqdm(total=len(targets), desc="sketched overlap", delay=2, mininterval=1) as bar:
        for first in range(0, len(targets), _TARGETS):
            block = targets.rows(first, first + _TARGETS)
            _, proposed = index.search(signatures(block.offsets, block.neurons), n_proposed)
            proposed.sort(axis=1)
            ranked = indices[first : first + _TARGETS], similarities[first : first + _TARGETS]

            def rerank(
                start: int, stop: int, block: NeuronSets = block, proposed: Any = proposed, ranked: Any = ranked
            ) -> None:
                own = block.offsets[start : stop + 1], block.neurons
                others = candidates.offsets, candidates.neurons
                _rerank(own, others, proposed[start:stop], width, (ranked[0][start:stop], ranked[1][start:stop]))

            for n_ranked in over_blocks(rerank, len(block), _ROWS):
                bar.update(n_ranked)
    return indices, np.maximum(similarities, 0)


def signatures(offsets: Integers, neurons: NeuronIds) -> NDArray[np.uint8]:
    """Return a signature for each set, ``[n, bytes]``; that of the empty set is 0."""
    packed = np.zeros((len(offsets) - 1, _BINS // 8), dtype=np.uint8)

    def sign(start: int, stop: int) -> None:
        _sign(offsets[start : stop + 1], neurons, packed[start:stop])

    list(over_blocks(sign, len(packed), _ROWS))
    return packed


@njit(cache=True, nogil=True)
def _sign(offsets: Integers, neurons: NeuronIds, packed: NDArray[np.uint8]) -> None:
    for row in range(len(packed)):
        if offsets[row + 1] > offsets[row]:
            minima = _bin_minima(neurons[offsets[row] : offsets[row + 1]])
            for place in range(_BINS):
                packed[row, place >> 3] |= np.uint8((minima[place] & np.uint64(1)) << np.uint64(place & 7))


def _load_faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ConfigError(
            "more candidates than teacher_contexts.exact_up_to are compared by faiss, which is not installed: "
            "pip install 'neuron-opsd[sketch]', or raise teacher_contexts.exact_up_to"
        ) from error
    return faiss


@njit(cache=True, nogil=True)
def _mix(number: int) -> np.uint64:
    # SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): every input bit flips half of the output bits.
    word = (np.uint64(number) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


@njit(cache=True, nogil=True)
def _bin_minima(neurons: NeuronIds) -> NDArray[np.uint64]:
    """Hash a set that is not empty into bins, again by another function until none is empty; earlier ones win."""
    minima, n_empty, attempt = np.full(_BINS, _EMPTY, dtype=np.uint64), _BINS, 0
    while n_empty:
        for neuron in neurons:
            word = _mix(neuron + (attempt << 32))
            place = word % np.uint64(_BINS)
            n_empty -= minima[place] == _EMPTY
            minima[place] = min(minima[place], (np.uint64(attempt) << np.uint64(40)) | (word >> np.uint64(24)))
        attempt += 1
    return minima


# Not cached: Numba's cache does not notice that a function of another file, insert_ranked, has changed.
@njit(nogil=True)
def _rerank(targets: Any, candidates: Any, proposed: Integers, width: int, ranked: Any) -> None:
    (offsets, neurons), (others, other_neurons), (indices, similarities) = targets, candidates, ranked
    for row in range(len(indices)):
        held = np.zeros(width, dtype=np.uint8)
        own = neurons[offsets[row] : offsets[row + 1]]
        for neuron in own:
            if neuron < width:
                held[neuron] = 1
        for candidate in proposed[row]:
            other = other_neurons[others[candidate] : others[candidate + 1]]
            shared = np.int64(0)
            for neuron in other:
                shared += np.int64(held[neuron])
            union = len(own) + len(other) - shared
            insert_ranked(candidate, shared / union if union else 0.0, indices[row], similarities[row])
