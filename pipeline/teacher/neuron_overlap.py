"""The paper's context: the questions whose neuron sets overlap most with the target's (arXiv 2607.02460, k = 3)."""

from collections.abc import Iterator, Sequence

from scipy.sparse import csr_matrix

from pipeline.neurons.overlap import nearest_by_overlap, neuron_sets
from pipeline.teacher.builder import Choice, ContextRequest, pick_distinct
from pipeline.teacher.questions import Demonstration

REACH = 4
"""Neighbours asked for per demonstration wanted: room for the target itself and for near-duplicates."""


def neuron_overlap(request: ContextRequest) -> Iterator[list[Choice]]:
    """Yield the nearest questions with a majority by Jaccard similarity of neuron sets, which must be above 0.

    Equal similarities are ordered by id, a content hash. A target without scored neurons gets no demonstration.
    """
    targets = request.targets.pool["id"].to_list()
    shown = request.sources.demonstrations()
    sets = neuron_sets(request.targets.question_neurons(request.question_set), targets)
    candidates = neuron_sets(request.sources.question_neurons(request.question_set), [example.id for example in shown])
    ranked = _rank(sets, candidates, shown, REACH * request.config.n_demonstrations)
    for wording, nearest in zip(request.targets.wordings(), ranked, strict=True):
        yield pick_distinct(wording, nearest, request.config.n_demonstrations)


def _rank(
    targets: csr_matrix, candidates: csr_matrix, shown: Sequence[Demonstration], reach: int
) -> Iterator[Iterator[Choice]]:
    """Yield for each target the overlapping candidates, nearest first; all are compared only if ``reach`` run out."""
    ids = [example.id for example in shown]
    indices, similarities = nearest_by_overlap(targets, candidates, ids, reach, exclude=[()] * targets.shape[0])

    def ranking(row: int) -> Iterator[Choice]:
        near, values = indices[row], similarities[row]
        if reach < len(ids) and values[-1] > 0:
            yield from (Choice(shown[i], float(value)) for i, value in zip(near, values, strict=True))
            every, all_values = nearest_by_overlap(targets[row], candidates, ids, len(ids), exclude=[()])
            near, values = every[0, reach:], all_values[0, reach:]
        yield from (Choice(shown[i], float(value)) for i, value in zip(near, values, strict=True) if value > 0)

    return (ranking(row) for row in range(targets.shape[0]))
