"""Questions that together touch most neurons: greedy maximum coverage (method, section 4).

A neuron that c chosen questions hold is worth sqrt(c): the first holder counts most, and a further one still counts
something, so that the order goes on to mean something when every neuron is covered. (Plain coverage in rounds, begun
anew whenever no gain is left, was dropped: its rounds end where the last rare neuron falls.) The objective is monotone
and submodular, hence a greedy prefix of any length reaches at least 1 - 1/e of the best one's value (Nemhauser, Wolsey,
Fisher 1978).
"""

import heapq
from typing import Final

import numpy as np
import polars as pl

from pipeline.retrieval.sets import NeuronSets
from pipeline.seeding import derive_seed
from pipeline.selection.rule import Signals

_UNIT: Final = 2**40  # the worth of a first holder; sets of up to 2**23 neurons do not overflow


def stem_coverage(signals: Signals) -> pl.DataFrame:
    """Score a question by its place, from 0, in the greedy cover by the neurons of the questions' own stems."""
    return _cover(signals.stem_scores, signals)


def neuron_coverage(signals: Signals) -> pl.DataFrame:
    """Score a question by its place, from 0, in the greedy cover by the neurons of its rollouts, taken together."""
    return _cover(signals.neuron_scores, signals)


def _cover(scores: pl.LazyFrame, signals: Signals) -> pl.DataFrame:
    sets = NeuronSets.of(scores, signals.pool["id"])
    order = greedy_cover(sets, signals.seed)
    return pl.DataFrame({"id": [sets.ids[row] for row in order]}, schema={"id": pl.String}).with_row_index("score")


def greedy_cover(sets: NeuronSets, seed: int) -> list[int]:
    """Return the rows of the sets that are not empty, each the one that adds most to those before it.

    Lazy greedy, exact: gains only ever fall, so a set whose gain is up to date and above every other one's last known
    gain is the best. Equal gains, which sums of integers keep equal, are ordered by a hash of seed and id.
    """
    rows = [sets.neurons[start:stop] for start, stop in zip(sets.offsets[:-1], sets.offsets[1:], strict=True)]
    roots = np.sqrt(np.arange(len(sets) + 2))
    steps = np.rint(np.diff(roots) * _UNIT).astype(np.int64)  # worth of one more holder, by how many there are
    n_holders = np.zeros(int(sets.neurons.max(initial=-1)) + 1, dtype=np.int64)
    worth = np.full(len(n_holders), _UNIT)
    ties = [derive_seed(seed, "cover", key) for key in sets.ids]
    heap = [(-len(own) * _UNIT, ties[row], row) for row, own in enumerate(rows) if len(own)]
    heapq.heapify(heap)
    order: list[int] = []
    while heap:
        _, tie, row = heapq.heappop(heap)
        current = -int(worth[rows[row]].sum()), tie, row
        if heap and current > heap[0]:
            heapq.heappush(heap, current)
            continue
        order.append(row)
        n_holders[rows[row]] += 1
        worth[rows[row]] = steps[n_holders[rows[row]]]
    return order
