"""Near-duplicates: candidates by MinHash-LSH, each verified exactly, joined to groups with one keeper.

The signature is taken over n-grams repeated in proportion to their weight, so it estimates the *weighted* Jaccard index
(Haveliwala et al., "Scalable Techniques for Clustering the Web", 2000): questions of one template, which share most of
their words, do not even become candidates unless their fillings agree too.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl
from rensa import RMinHash
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline.deduplication.config import Comparison
from pipeline.deduplication.features import Features, Hashes, RarityWeights
from pipeline.deduplication.meaning import ask_differently

BATCH_ROWS: Final = 1_000
RECALL: Final = 0.99
"""Probability with which a pair exactly at the threshold becomes a candidate."""
NEIGHBOURS: Final = 32
"""Members of a bucket with which each member is compared: all in small buckets; large ones hold one group anyway."""
SEED: Final = 1
"""Of the signatures: no setting, as it only decides which pairs below the threshold are verified in vain."""
_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
"""Odd constant of Fibonacci hashing: tells the copies of an n-gram apart."""


def near_duplicates(pool: pl.DataFrame, config: Comparison) -> pl.DataFrame:
    """Return ``id``, ``group`` and ``similarity`` for every question of ``pool`` (columns id, question, options).

    Questions that differ in a number, formula, name, negation or opposite word are none, however alike they read.
    ``group`` is the smallest id among the question's near-duplicates: its keeper. ``similarity`` is the smaller of the
    weighted Jaccard indices of stem and options with the keeper, 1 for the keeper itself. Rows come sorted by id; the
    order of ``pool`` does not matter.
    """
    pool = pool.select("id", "question", "options").sort("id")
    features = [Features.of(question, options, config.ngram_size) for _, question, options in pool.iter_rows()]
    weights = RarityWeights(features)
    pairs = _candidates(_signatures(features, weights, config), config)
    questions = pool["question"]
    near = [
        (a, b)
        for a, b in pairs
        if similarity(features[a], features[b], weights) >= config.near_duplicate_threshold
        and not ask_differently(questions[a], questions[b])
    ]
    keepers = smallest_members(near, pool.height)
    return pl.DataFrame(
        {
            "id": pool["id"],
            "group": pool["id"].gather(keepers),
            "similarity": [
                1.0 if row == keeper else similarity(features[row], features[keeper], weights)
                for row, keeper in enumerate(keepers.tolist())
            ],
        },
        schema={"id": pl.String, "group": pl.String, "similarity": pl.Float64},
    )


def similarity(a: Features, b: Features, weights: RarityWeights) -> float:
    """Return the smaller of the weighted Jaccard indices of two questions' stems and of their options."""
    # A question that comes with options once and without them once is the same question.
    stem = weights.jaccard(a.stem, b.stem)
    return min(stem, weights.jaccard(a.options, b.options)) if a.options.size and b.options.size else stem


def _signatures(features: list[Features], weights: RarityWeights, config: Comparison) -> npt.NDArray[np.uint32]:
    """Return MinHash signatures, shape [questions, n_permutations]."""
    rows = [np.empty((0, config.n_permutations), dtype=np.uint32)]
    for start in range(0, len(features), BATCH_ROWS):
        copies = [_weighted_copies(document.all, weights) for document in features[start : start + BATCH_ROWS]]
        offsets = np.cumsum([0, *map(len, copies)], dtype=np.uint64)
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(
            np.concatenate(copies), offsets, config.n_permutations, SEED
        )
        rows.append(np.array(matrix.to_rows(), dtype=np.uint32))
    return np.concatenate(rows)


def _weighted_copies(hashes: Hashes, weights: RarityWeights) -> npt.NDArray[np.uint64]:
    counts = np.rint(weights(hashes)).astype(np.int64)
    copy = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return (np.repeat(hashes, counts).astype(np.uint64) << np.uint64(8) | copy.astype(np.uint64)) * _GOLDEN


def _band_rows(config: Comparison) -> int:
    """Return the largest number of rows per band with which a pair at the threshold is found with ``RECALL``."""
    for rows in range(config.n_permutations, 1, -1):
        missed = (1 - config.near_duplicate_threshold**rows) ** (config.n_permutations // rows)
        if 1 - missed >= RECALL:
            return rows
    return 1


def _candidates(signatures: npt.NDArray[np.uint32], config: Comparison) -> Iterator[tuple[int, int]]:
    """Yield pairs of rows, the smaller first, that agree in a whole band of their signatures."""
    rows = _band_rows(config)
    seen: set[tuple[int, int]] = set()
    for start in range(0, config.n_permutations - rows + 1, rows):
        band = np.ascontiguousarray(signatures[:, start : start + rows]).view(np.dtype((np.void, 4 * rows)))[:, 0]
        order = np.argsort(band, kind="stable")
        for distance in range(1, NEIGHBOURS + 1):
            same = band[order[:-distance]] == band[order[distance:]]
            if not same.any():
                break
            for a, b in zip(order[:-distance][same].tolist(), order[distance:][same].tolist(), strict=True):
                if (a, b) not in seen:
                    seen.add((a, b))
                    yield a, b


def smallest_members(pairs: npt.ArrayLike, n_rows: int) -> npt.NDArray[np.int64]:
    """Return for each row the smallest row that ``pairs``, [n, 2], connect it to, itself included."""
    edges = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(edges), dtype=bool), (edges[:, 0], edges[:, 1])), shape=(n_rows, n_rows))
    _, labels = connected_components(graph, directed=False)
    _, first = np.unique(labels, return_index=True)
    return np.asarray(first[labels], dtype=np.int64)
