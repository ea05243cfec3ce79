"""The paper's context: the questions whose neuron sets overlap most with the target's (arXiv 2607.02460, k = 3)."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.retrieval.nearest import nearest_by_overlap
from pipeline.retrieval.sets import NeuronSets
from pipeline.teacher.builder import Choice, ContextRequest, pick_distinct
from pipeline.teacher.questions import Demonstration

REACH = 4
"""Neighbours asked for per demonstration wanted: room for the target itself and for near-duplicates."""
_GROWTH = 8  # of the reach, for targets whose neighbours were used up by near-duplicates
_NEIGHBOURS = 2**24  # held at a time: 256 MiB


def neuron_overlap(request: ContextRequest) -> Iterator[list[Choice]]:
    """Yield the nearest questions with a majority by Jaccard similarity of neuron sets, which must be above 0.

    Equal similarities are ordered by id, a content hash. A target without scored neurons gets no demonstration.
    """
    shown = request.sources.demonstrations()
    ids = request.targets.pool["id"].to_list()
    targets = NeuronSets.of(request.targets.question_neurons(request.question_set), ids)
    candidates = NeuronSets.of(
        request.sources.question_neurons(request.question_set), [example.id for example in shown]
    )
    wordings = dict(zip(ids, request.targets.wordings(), strict=True))
    count, reach = request.config.n_demonstrations, REACH * request.config.n_demonstrations
    picked: dict[str, list[Choice]] = {}
    pending = np.arange(len(targets))
    while len(pending):
        exhausted = []
        for rows in np.split(pending, range(0, len(pending), max(1, _NEIGHBOURS // reach))[1:]):
            block = targets.take(rows)
            nearest = nearest_by_overlap(block, candidates, reach, request.config.exact_up_to)
            for row, key, ranked in zip(rows, block.ids, _choices(shown, *nearest), strict=True):
                picked[key] = pick_distinct(wordings[key], ranked, count)
                if len(picked[key]) < count and len(ranked) == reach < len(shown):
                    exhausted.append(row)
        pending, reach = np.array(exhausted, dtype=np.int64), min(_GROWTH * reach, len(shown))
    yield from (picked[key] for key in ids)


def _choices(
    shown: Sequence[Demonstration], indices: NDArray[np.int64], similarities: NDArray[np.float64]
) -> Iterator[list[Choice]]:
    """Yield each target's neighbours that overlap at all, nearest first."""
    for near, values in zip(indices, similarities, strict=True):
        yield [Choice(shown[i], float(value)) for i, value in zip(near, values, strict=True) if value > 0]
