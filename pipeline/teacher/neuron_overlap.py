"""The paper's context: the questions whose neuron sets overlap most with the target's (arXiv 2607.02460, k = 3)."""

from collections.abc import Callable, Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.retrieval.nearest import nearest_by_overlap
from pipeline.retrieval.sets import NeuronSets
from pipeline.teacher.builder import Choice, ContextRequest
from pipeline.teacher.nearest import Found, show_nearest
from pipeline.teacher.questions import Questions


def neuron_overlap(request: ContextRequest) -> Iterator[list[Choice]]:
    """Yield the nearest questions with a majority by Jaccard similarity of the neuron sets of their responses.

    The sets hold what drove the stated answer too, so examples of the same answer come first: see ``echo``.
    """
    return nearest_sets(request, lambda questions: questions.question_neurons(request.question_set))


def nearest_sets(request: ContextRequest, sets: Callable[[Questions], pl.LazyFrame]) -> Iterator[list[Choice]]:
    """Yield the nearest questions by Jaccard similarity, which must be above 0, of the sets that stand for questions.

    ``sets`` returns ``id`` and ``neurons``. A target without scored neurons gets no demonstration.
    """
    shown = request.sources.demonstrations()
    targets = NeuronSets.of(sets(request.targets), request.targets.pool["id"])
    candidates = NeuronSets.of(sets(request.sources), [example.id for example in shown])

    def search(rows: NDArray[np.int64], k: int) -> Found:
        return nearest_by_overlap(targets.take(rows), candidates, k, request.config.exact_up_to)

    return show_nearest(request, shown, search)
