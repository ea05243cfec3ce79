"""Sparse overlap equals set arithmetic, ties and exclusions included."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.neurons.overlap import NONE, jaccard, nearest_by_overlap, neuron_sets

SETS = st.frozensets(st.integers(0, 12), max_size=8)


def naive(a, b):
    return len(a & b) / len(a | b) if a | b else 0.0


def frame(rows):
    kinds = {"id": pl.String, "neurons": pl.List(pl.Int32)}
    return pl.DataFrame({"id": [r[0] for r in rows], "neurons": [sorted(r[1]) for r in rows]}, schema=kinds)


@given(SETS, SETS)
def test_jaccard_is_set_arithmetic(a, b):
    assert jaccard(np.array(sorted(a), dtype=int), np.array(sorted(b), dtype=int)) == naive(a, b)


@given(st.lists(st.tuples(st.sampled_from("abcd"), SETS), max_size=8))
def test_a_questions_set_is_the_union_of_its_rows(rows):
    matrix = neuron_sets(frame(rows), ["c", "a", "nowhere", "b"])
    for row, question in enumerate(["c", "a", "nowhere", "b"]):
        union = frozenset().union(*(neurons for other, neurons in rows if other == question))
        assert frozenset(matrix[row].indices.tolist()) == union
    assert set(matrix.data.tolist()) <= {1.0}


@settings(deadline=None)
@given(
    st.lists(SETS, min_size=1, max_size=6), st.lists(SETS, min_size=1, max_size=6), st.integers(1, 4),
    st.integers(1, 4), st.randoms(use_true_random=False),
)  # fmt: skip
def test_nearest_is_a_full_sort_by_similarity_then_id(targets, candidates, k, block_rows, random):
    ids = [f"q{i}" for i in range(len(candidates))]
    random.shuffle(ids)
    exclude = [{other for other in [*ids, "elsewhere"] if random.random() < 0.3} for _ in targets]
    T = neuron_sets(frame([(str(i), s) for i, s in enumerate(targets)]), [str(i) for i in range(len(targets))])
    C = neuron_sets(frame(list(zip(ids, candidates, strict=True))), ids)
    indices, similarities = nearest_by_overlap(T, C, ids, k, exclude, block_rows=block_rows)
    assert indices.shape == similarities.shape == (len(targets), k)
    for row, target in enumerate(targets):
        allowed = [(-naive(target, s), i) for i, s in zip(ids, candidates, strict=True) if i not in exclude[row]]
        expected = sorted(allowed)[:k]
        found = [(-similarities[row, j], ids[i]) for j, i in enumerate(indices[row]) if i != NONE]
        assert found == expected
        assert (similarities[row, len(expected) :] == 0).all()


def test_one_exclusion_per_target_is_required():
    matrix = neuron_sets(frame([("a", {1}), ("b", {1, 2})]), ["a", "b"])
    with pytest.raises(ValueError, match="shorter"):
        nearest_by_overlap(matrix, matrix, ["a", "b"], 1, [{"a"}])
