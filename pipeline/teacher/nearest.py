"""From a measure of similarity to choices: what every builder that shows the most similar questions has in common."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline.teacher.builder import REACH, Choice, ContextRequest, pick_distinct
from pipeline.teacher.questions import Demonstration

Found: TypeAlias = tuple[NDArray[np.int64], NDArray[np.floating]]
"""Rows of candidates, most similar first, and their similarities, both ``[T, k]``, or narrower if there are fewer."""
Search: TypeAlias = Callable[[NDArray[np.int64], int], Found]
"""From rows of targets ``[T]``, ascending, and k to the k nearest candidates; equal similarities by row."""

_GROWTH = 8  # of what is asked for, for targets whose neighbours were used up by near-duplicates
_NEIGHBOURS = 2**24  # held at a time: 256 MiB
_CELLS = 2**22  # similarities compared with all candidates at a time: 32 MiB, and as much again per copy


def show_nearest(request: ContextRequest, shown: Sequence[Demonstration], search: Search) -> Iterator[list[Choice]]:
    """Yield the nearest of ``shown`` for each target; a similarity of 0 or less is none.

    ``search`` counts targets by their id, ascending, and candidates as in ``shown``, which is sorted by id: so equal
    similarities are ordered by id, a content hash.
    """
    groups = dict(request.targets.pool.select("id", "group").iter_rows())
    keys, count, asked = sorted(groups), request.reach, REACH * request.reach
    picked: dict[str, list[Choice]] = {}
    pending = np.arange(len(keys))
    while len(pending):
        exhausted = []
        for rows in np.split(pending, range(0, len(pending), max(1, _NEIGHBOURS // asked))[1:]):
            for row, ranked in zip(rows, _choices(shown, *search(rows, asked)), strict=True):
                key = keys[row]
                picked[key] = pick_distinct(key, groups[key], ranked, count)
                if len(picked[key]) < count and len(ranked) == asked < len(shown):
                    exhausted.append(row)
        pending, asked = np.array(exhausted, dtype=np.int64), min(_GROWTH * asked, len(shown))
    yield from (picked[key] for key in groups)


def compare_all(compare: Callable[[NDArray[np.int64]], NDArray[np.float32]], n_candidates: int) -> Search:
    """Return the search over the similarities ``[T, n_candidates]`` that ``compare`` gives for rows of targets.

    A block of targets is compared with all candidates at a time, which bounds the memory.
    """

    def search(rows: NDArray[np.int64], k: int) -> Found:
        size = max(1, _CELLS // max(1, n_candidates))
        blocks = [_rank(compare(rows[start : start + size]), k) for start in range(0, len(rows), size)]
        indices, similarities = zip(*blocks, strict=True)
        return np.concatenate(indices), np.concatenate(similarities)

    return search


def _rank(similarities: NDArray[np.float32], k: int) -> Found:
    indices = np.argsort(-similarities, axis=1, kind="stable")[:, :k]
    return indices, np.take_along_axis(similarities, indices, axis=1)


def _choices(
    shown: Sequence[Demonstration], indices: NDArray[np.int64], similarities: NDArray[np.floating]
) -> Iterator[list[Choice]]:
    """Yield each target's neighbours that are similar at all, nearest first."""
    for near, values in zip(indices, similarities, strict=True):
        yield [Choice(shown[i], float(value)) for i, value in zip(near, values, strict=True) if value > 0]
