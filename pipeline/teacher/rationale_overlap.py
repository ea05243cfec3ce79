"""Questions answered by like reasoning: nearest by the responses' neurons without those of the stated answer."""

from collections.abc import Iterator

import polars as pl

from pipeline.teacher.builder import Choice, ContextRequest
from pipeline.teacher.neuron_overlap import nearest_sets
from pipeline.teacher.questions import Questions


def rationale_overlap(request: ContextRequest) -> Iterator[list[Choice]]:
    """Yield the nearest questions with a majority by Jaccard similarity of the neuron sets of their rationales.

    The rollouts that stand for a question are those of ``neuron_overlap``. Raises ConfigError when no rationale was
    scored.
    """

    def rationales(questions: Questions) -> pl.LazyFrame:
        return questions.question_neurons(request.question_set, questions.held("rationale_scores"))

    return nearest_sets(request, rationales)
