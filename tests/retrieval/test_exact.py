"""Retrieval equals set arithmetic and a full sort, ties, empty sets and short pools included."""

import numba
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.retrieval.exact import NONE, build_index, nearest_exact
from pipeline.retrieval.nearest import nearest_by_overlap
from pipeline.retrieval.sets import NeuronSets

SETS = st.frozensets(st.integers(0, 70) | st.just(1000), max_size=12)
POOLS = st.lists(SETS, max_size=40)


def neuron_sets(neurons, order=None):
    ids = [f"q{i:03}" for i in range(len(neurons))]
    frame = pl.DataFrame(
        {"id": ids, "neurons": [sorted(s) for s in neurons]}, schema={"id": pl.String, "neurons": pl.List(pl.Int32)}
    )
    return NeuronSets.of(frame if order is None else frame[order], ids)


def naive(targets, candidates, k):
    """Rank by (-similarity, row) with Python sets."""
    padding = [(0.0, NONE)] * k
    for target in targets:
        similarity = [len(target & c) / len(target | c) if target | c else 0.0 for c in candidates]
        yield (sorted((-s, row) for row, s in enumerate(similarity)) + padding)[:k]


def ranked(result):
    return [
        [(-s, i) for s, i in zip(*row, strict=True)] for row in zip(result[1].tolist(), result[0].tolist(), strict=True)
    ]


@settings(deadline=None)
@given(POOLS, POOLS, st.integers(1, 12), st.integers(1, 50), st.integers(1, 50), st.randoms(use_true_random=False))
def test_nearest_is_a_full_sort_by_similarity_then_id(targets, candidates, k, target_block, candidate_block, random):
    order = random.sample(range(len(candidates)), len(candidates))
    blocks = (target_block, candidate_block)
    found = nearest_exact(neuron_sets(targets), neuron_sets(candidates, order), k, blocks=blocks)
    assert found[0].shape == found[1].shape == (len(targets), k)
    assert (found[0].dtype, found[1].dtype) == (np.int64, np.float64)
    assert ranked(found) == list(naive(targets, candidates, k))
    assert np.signbit(found[1]).sum() == 0


def random_pool(n, seed=0):
    """Draw sets in which some neurons are in nearly every set and most in few."""
    rng = np.random.default_rng(seed)
    return [frozenset((2000 * rng.random(rng.integers(0, 120)) ** 4).astype(int).tolist()) for _ in range(n)]


def test_rare_and_frequent_neurons_both_count():
    pool = random_pool(150)
    sets = neuron_sets(pool)
    index = build_index(sets, 0)
    assert index.bits.shape[1] > 1
    assert len(index.holders) > 300
    assert ranked(nearest_by_overlap(sets, sets, 7)) == list(naive(pool, pool, 7))


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one core")
def test_threads_change_nothing():
    sets = neuron_sets(random_pool(200))
    several = nearest_exact(sets, sets, 5)
    numba.set_num_threads(1)
    try:
        one = nearest_exact(sets, sets, 5)
    finally:
        numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)
    assert all(np.array_equal(a, b) for a, b in zip(several, one, strict=True))
