"""Sketches return nearly the best, ranked exactly, and always the same."""

import sys

import numba
import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.retrieval.exact import nearest_exact
from pipeline.retrieval.nearest import nearest_by_overlap
from pipeline.retrieval.sets import NeuronSets, jaccard
from pipeline.retrieval.sketch import signatures

WIDTH = 20_000


def neuron_sets(neurons):
    sizes = [len(s) for s in neurons]
    flat = np.concatenate(neurons).astype(np.int32)
    return NeuronSets([f"q{i:05}" for i in range(len(sizes))], np.concatenate([[0], np.cumsum(sizes)]), flat)


def structured_pool(n, seed=0):
    """Draw questions of one topic in 20, which share a part of its neurons, besides popular ones and noise."""
    rng = np.random.default_rng(seed)
    topics = [rng.choice(WIDTH, 400, replace=False) for _ in range(n // 20)]
    for _ in range(n):
        topic, size = topics[rng.integers(len(topics))], rng.integers(20, 400)
        popular = WIDTH * rng.random(size // 3) ** 4
        yield np.unique(
            np.concatenate([rng.choice(topic, size // 2), popular, rng.integers(0, WIDTH, size // 3)]).astype(int)
        )


@pytest.fixture(scope="module")
def pool():
    return neuron_sets(list(structured_pool(2000)))


def test_mean_similarity_is_nearly_that_of_the_exact_search(pool):
    exact, sketched = nearest_exact(pool, pool, 13), nearest_by_overlap(pool, pool, 13, exact_up_to=100)
    assert (sketched[0][:, 0] == np.arange(len(pool))).all()
    for k in (3, 12):
        assert sketched[1][:, 1 : k + 1].mean() >= 0.98 * exact[1][:, 1 : k + 1].mean()
    assert (sketched[1] <= exact[1]).all()


def test_similarities_are_exact_and_ordered(pool):
    indices, similarities = nearest_by_overlap(pool.rows(0, 50), pool, 10, exact_up_to=0)
    for row in range(50):
        own = pool.neurons[pool.offsets[row] : pool.offsets[row + 1]]
        others = [pool.neurons[pool.offsets[i] : pool.offsets[i + 1]] for i in indices[row]]
        assert similarities[row].tolist() == [jaccard(own, other) for other in others]
        order = [(-s, i) for s, i in zip(similarities[row], indices[row], strict=True)]
        assert order == sorted(order)


def test_ties_go_by_id_even_among_more_copies_than_are_ranked():
    copies = neuron_sets([np.arange(100), *([np.arange(50, 150)] * 500)])
    indices, similarities = nearest_by_overlap(copies, copies, 5, exact_up_to=0)
    assert indices[1:].tolist() == [[1, 2, 3, 4, 5]] * 500
    assert (similarities[1:] == 1).all()


def test_fewer_candidates_than_k_and_empty_sets():
    few = neuron_sets([np.array([], dtype=int), np.array([1, 2]), np.array([2])])
    exact, sketched = nearest_exact(few, few, 5), nearest_by_overlap(few, few, 5, exact_up_to=2)
    assert all(np.array_equal(a, b) for a, b in zip(exact, sketched, strict=True))


def test_neither_threads_nor_other_targets_change_anything(pool):
    everything = nearest_by_overlap(pool, pool, 4, exact_up_to=0)
    numba.set_num_threads(1)
    try:
        some = nearest_by_overlap(pool.rows(1100, 1200), pool, 4, exact_up_to=0)
    finally:
        numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)
    assert all(np.array_equal(a[1100:1200], b) for a, b in zip(everything, some, strict=True))


def test_signatures_estimate_jaccard():
    rng = np.random.default_rng(0)
    for n_own in (30, 300, 3000):
        for shared in (0, n_own // 2, n_own):
            ids = rng.choice(WIDTH * 10, 2 * n_own, replace=False)
            pair = neuron_sets([ids[:n_own], ids[n_own - shared : 2 * n_own - shared]])
            a, b = np.unpackbits(signatures(pair.offsets, pair.neurons), axis=1)
            # Estimates vary by 2 sqrt(p (1 - p) / bins) and more where few minima fill many bins.
            spread = 2 * np.sqrt(0.25 / min(n_own, len(a)))
            assert 2 * (a == b).mean() - 1 == pytest.approx(shared / (2 * n_own - shared), abs=4 * spread)


def test_without_faiss_the_extra_and_the_key_are_named(pool, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ConfigError, match=r"neuron-opsd\[sketch\].*teacher_contexts.exact_up_to"):
        nearest_by_overlap(pool, pool, 3, exact_up_to=1999)
