"""Questions about the same: nearest by the neurons that carry the tokens of the questions' own stems.

Read before any answer, these sets say what a question asks for and nothing of what it was answered. Neurons that the
stems of many questions share carry their common wording, not their subject; they are left out, as stop words are from
texts.
"""

from collections.abc import Iterator
from typing import Final

import polars as pl

from pipeline.teacher.builder import Choice, ContextRequest
from pipeline.teacher.neuron_overlap import nearest_sets
from pipeline.teacher.questions import Questions

N_ALWAYS_KEPT: Final = 10
"""Questions that may share a neuron in a pool of any size; own choice: of few questions some share their subject."""


def stem_overlap(request: ContextRequest) -> Iterator[list[Choice]]:
    """Yield the nearest questions with a majority by Jaccard similarity of the rarer neurons of their stems.

    Left out are neurons in the stems of more than ``config.max_stem_share`` of the source's questions. Raises
    ConfigError when no stem was scored.
    """
    sources = request.sources.held("stem_scores").join(request.sources.pool.lazy().select("id"), on="id", how="semi")
    counts = sources.select(pl.col("neurons").explode(empty_as_null=False)).group_by("neurons").len()
    limit = max(N_ALWAYS_KEPT, request.config.max_stem_share * request.sources.pool.height)
    common = counts.filter(pl.col("len") > limit).select("neurons").collect(engine="streaming")["neurons"]

    def rarer(questions: Questions) -> pl.LazyFrame:
        neurons = pl.col("neurons").list.set_difference(pl.lit(common).implode()).list.sort()
        return questions.held("stem_scores").select("id", neurons)

    return nearest_sets(request, rarer)
