"""Retrieval without a model: nearest by the words of the questions, BM25 (Robertson and Zaragoza, 2009) of bm25s."""

from collections.abc import Iterator

import bm25s
import numpy as np
from numpy.typing import NDArray

from pipeline.teacher.builder import Choice, ContextRequest
from pipeline.teacher.nearest import compare_all, show_nearest


def lexical(request: ContextRequest) -> Iterator[list[Choice]]:
    """Yield the nearest questions with a majority by BM25 of their stems, which must be above 0, for the target's.

    Tokens, English stop words, formula (Lucene's) and its constants (k1 = 1.5,
    b = 0.75) are the library's defaults, without stemming. Rarity of words is that in the candidates. Exact for pools
    of any size.
    """
    shown = request.sources.demonstrations()
    targets = request.targets.pool.sort("id")["question"].to_list()
    candidates = dict(request.sources.pool.select("id", "question").iter_rows())
    asked = bm25s.tokenize(targets, return_ids=False, show_progress=False)
    documents = bm25s.tokenize([candidates[example.id] for example in shown], show_progress=False)
    index = bm25s.BM25()
    if documents.vocab:  # the library cannot index documents without any word
        index.index(documents, show_progress=False)

    def relevance(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        scores = np.zeros((len(rows), len(shown)), dtype=np.float32)
        for own, row in zip(scores, rows, strict=True):
            if asked[row] and documents.vocab:
                own[:] = index.get_scores(asked[row])
        return scores

    return show_nearest(request, shown, compare_all(relevance, len(shown)))
