"""Questions about the same: nearest by the neurons that carry the tokens of the questions' own stems.

Read before any answer, these sets say what a question asks for and nothing of what it was answered.
"""

from collections.abc import Iterator

from pipeline.teacher.builder import Choice, ContextRequest
from pipeline.teacher.neuron_overlap import nearest_sets


def stem_overlap(request: ContextRequest) -> Iterator[list[Choice]]:
    """Yield the nearest questions with a majority by Jaccard similarity of the neuron sets of their stems.

    Raises ConfigError when no stem was scored.
    """
    return nearest_sets(request, lambda questions: questions.held("stem_scores").select("id", "neurons"))
