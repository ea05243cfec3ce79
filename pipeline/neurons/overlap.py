"""Exact overlap of neuron sets: Jaccard |A and B| / |A or B| (method, section 5; arXiv 2607.02460).

Pinned by ``tests/neurons/test_overlap.py``.
"""

from collections.abc import Collection, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

NONE = -1
"""Index of a neighbour that does not exist."""


def jaccard(a: NDArray[np.integer], b: NDArray[np.integer]) -> float:
    """Return the Jaccard similarity of two arrays of different neuron ids; 0 when both are empty."""
    shared = len(np.intersect1d(a, b, assume_unique=True))
    union = len(a) + len(b) - shared
    return shared / union if union else 0.0


def neuron_sets(scores: pl.DataFrame, ids: Sequence[str]) -> csr_matrix:
    """Return the neuron sets of ``ids`` as rows of a 0/1 matrix ``[len(ids), largest neuron id + 1]``.

    ``scores`` has columns ``id`` and ``neurons``; a question's set is the union over its rows, so a caller who wants
    the representative rollout only passes only that one. Rows of other questions are ignored; a question without rows
    has the empty set.
    """
    row_of = pl.DataFrame({"id": ids, "row": np.arange(len(ids))}, schema_overrides={"id": pl.String})
    entries = scores.lazy().select("id", "neurons").join(row_of.lazy(), on="id").explode("neurons", empty_as_null=False)
    pairs = entries.select("row", "neurons").collect()
    rows, neurons = pairs["row"].to_numpy(), pairs["neurons"].to_numpy()
    width = int(neurons.max()) + 1 if len(neurons) else 0
    matrix = csr_matrix((np.ones(len(rows), dtype=np.float32), (rows, neurons)), shape=(len(ids), width))
    matrix.data[:] = 1  # a neuron of several rollouts was summed
    return matrix


def nearest_by_overlap(
    targets: csr_matrix,
    candidates: csr_matrix,
    candidate_ids: Sequence[str],
    k: int,
    exclude: Sequence[Collection[str]],
    block_rows: int = 256,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the k candidates with the largest Jaccard similarity to each target, and the similarities.

    ``exclude`` holds, per target, the ids that must not be returned, its own among them. Both results are ``[T, k]``;
    equal similarities are ordered by id; where fewer than k candidates are allowed, the rest is index ``NONE`` and
    similarity 0. ``block_rows`` targets are compared at a time, so memory is ``block_rows`` x candidates.
    """
    by_id = np.argsort(np.asarray(candidate_ids, dtype=object), kind="stable")
    place = {candidate_ids[index]: column for column, index in enumerate(by_id)}
    width = max(targets.shape[1], candidates.shape[1])
    sorted_candidates, sizes = _widened(candidates, width)[by_id].T.tocsr(), candidates.getnnz(axis=1)[by_id]
    targets, target_sizes = _widened(targets, width), targets.getnnz(axis=1)
    indices = np.full((targets.shape[0], k), NONE, dtype=np.int64)
    similarities = np.zeros((targets.shape[0], k))
    for start in range(0, targets.shape[0], block_rows):
        block = slice(start, start + block_rows)
        shared = (targets[block] @ sorted_candidates).toarray().astype(np.float64)
        union = target_sizes[block, None] + sizes[None, :] - shared
        similarity = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
        for row, forbidden in zip(similarity, exclude[block], strict=True):
            row[[place[other] for other in forbidden if other in place]] = -1
        best = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
        value = np.take_along_axis(similarity, best, axis=1)
        indices[block, : best.shape[1]] = np.where(value < 0, NONE, by_id[best])
        similarities[block, : best.shape[1]] = np.maximum(value, 0)
    return indices, similarities


def _widened(matrix: csr_matrix, width: int) -> csr_matrix:
    return csr_matrix((matrix.data, matrix.indices, matrix.indptr), shape=(matrix.shape[0], width))
