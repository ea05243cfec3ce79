"""Questions about the same: nearest by the neurons that carry the tokens of the questions' own stems.

Read before any answer, these sets say what a question asks for and nothing of what it was answered. Neurons that the
stems of many questions share carry their common wording, not their subject; they are left out, as stop words are from
texts.
"""

from collections.abc import Iterator

import polars as pl

from pipeline.retrieval.rare import common_neurons, without
from pipeline.teacher.builder import Choice, ContextRequest
from pipeline.teacher.neuron_overlap import nearest_sets
from pipeline.teacher.questions import Questions


def stem_overlap(request: ContextRequest) -> Iterator[list[Choice]]:
    """Yield the nearest questions with a majority by Jaccard similarity of the rarer neurons of their stems.

    Left out are neurons in the stems of more than ``config.max_stem_share`` of the source's questions. Raises
    ConfigError when no stem was scored.
    """
    sources = request.sources.held("stem_scores").join(request.sources.pool.lazy().select("id"), on="id", how="semi")
    common = common_neurons(sources, request.sources.pool.height, request.config.max_stem_share)

    def rarer(questions: Questions) -> pl.LazyFrame:
        return questions.held("stem_scores").select("id", without(common))

    return nearest_sets(request, rarer)
