"""Rollouts that are carried by the same neurons first (method, section 4)."""

from collections.abc import Iterator
from itertools import combinations
from math import fsum
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.retrieval.sets import jaccard
from pipeline.selection.rule import Signals

_ROWS: Final = 1_024  # read at once: 20 MB of sets of 5,000 neurons


def neuron_agreement(signals: Signals) -> pl.DataFrame:
    """Score a question by 1 - the mean Jaccard similarity of its rollouts' neuron sets, over all pairs of them.

    Rollouts that no neuron supports do not count; a question with fewer than two others is not scored. The sets are
    read once, and a question's are held until its last one: where its rows lie together, as they are stored, the
    memory is that of ``_ROWS`` rows.
    """
    missing = dict(signals.neuron_scores.group_by("id").len().collect().iter_rows())
    held: dict[str, list[NDArray[np.int32]]] = {}
    scores = {}
    for question, neurons in _read_sets(signals.neuron_scores, sum(missing.values())):
        held.setdefault(question, []).append(neurons)
        missing[question] -= 1
        if not missing[question]:
            sets = [found for found in held.pop(question) if len(found)]
            pairs = [jaccard(one, other) for one, other in combinations(sets, 2)]
            scores[question] = 1 - fsum(pairs) / len(pairs) if pairs else None  # fsum: whatever the order of the rows
    return pl.DataFrame({"id": list(scores), "score": list(scores.values())}, schema={"id": pl.String, "score": float})


def _read_sets(scores: pl.LazyFrame, n_rows: int) -> Iterator[tuple[str, NDArray[np.int32]]]:
    """Yield question and neuron set of each row."""
    for start in range(0, n_rows, _ROWS):
        rows = scores.select("id", "neurons").slice(start, _ROWS).collect()
        for question, neurons in zip(rows["id"], rows["neurons"], strict=True):
            yield question, neurons.to_numpy()
