"""Neuron sets of many questions in two arrays, and the Jaccard similarity |A and B| / |A or B| of two of them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Self, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

Integers: TypeAlias = NDArray[np.int64]
"""Offsets of sets, or rows."""
NeuronIds: TypeAlias = NDArray[np.int32]
"""Neuron ids, one set after the other."""
Similarities: TypeAlias = NDArray[np.float64]
"""Jaccard similarities, 0 to 1."""
Nearest: TypeAlias = tuple[Integers, Similarities]
"""Rows of the most similar candidates, best first, and how similar they are; both ``[T, k]``."""

_UNITED: Final = 512  # sets at a time


@dataclass(frozen=True, eq=False)
class NeuronSets:
    """Sets of neuron ids, sorted by the id of their question: the order of rows is the order of ties."""

    ids: Sequence[str]
    """Question of each set, ascending."""
    offsets: Integers
    """Set ``i`` is ``neurons[offsets[i]:offsets[i + 1]]``; ``[len(ids) + 1]``."""
    neurons: NeuronIds
    """Different neuron ids, one set after the other."""

    @classmethod
    def of(cls, scores: pl.DataFrame | pl.LazyFrame, ids: Collection[str]) -> Self:
        """Return the sets of the questions ``ids`` from a table with columns ``id`` and ``neurons``.

        A question's set is the union over its rows, so a caller who wants the representative rollout only passes only
        that one. Rows of other questions are ignored; a question without rows has the empty set. The neurons of one
        row must differ. Takes two to three times the memory of the rows that are read, for a moment.
        """
        ordered = sorted(ids)
        row_of = pl.LazyFrame({"id": ordered, "row": np.arange(len(ordered))}, schema_overrides={"id": pl.String})
        entries = scores.lazy().select("id", pl.col("neurons").cast(pl.List(pl.Int32)))
        rows = entries.join(row_of, on="id").select("row", "neurons").sort("row").collect()
        if rows["row"].n_unique() < rows.height:
            rows = _unite(rows, len(ordered))
        sizes = np.zeros(len(ordered) + 1, dtype=np.int64)
        sizes[rows["row"].to_numpy() + 1] = rows["neurons"].list.len().to_numpy()
        return cls(ordered, np.cumsum(sizes), rows["neurons"].explode(empty_as_null=False).to_numpy())

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, start: int, stop: int) -> Self:
        """Return the sets of rows ``start`` to ``stop``, exclusive, without a copy of their neurons."""
        offsets = self.offsets[start : min(stop, len(self)) + 1]
        neurons = self.neurons[offsets[0] : offsets[-1]]
        return type(self)(self.ids[start:stop], offsets - offsets[0], neurons)

    def take(self, rows: Integers) -> Self:
        """Return a copy of the sets of ``rows``, which must ascend."""
        offsets = np.concatenate([[0], np.cumsum(np.diff(self.offsets)[rows])])
        parts = [self.neurons[self.offsets[row] : self.offsets[row + 1]] for row in rows]
        return type(self)([self.ids[row] for row in rows], offsets, np.concatenate([self.neurons[:0], *parts]))


def _unite(rows: pl.DataFrame, n_sets: int) -> pl.DataFrame:
    """Merge rows of the same set, some sets at a time: polars needs several times their memory."""
    union = pl.col("neurons").explode(empty_as_null=False).unique().sort()
    starts = range(0, n_sets, _UNITED)
    parts = (rows.filter(pl.col("row").is_between(start, start + _UNITED, closed="left")) for start in starts)
    return pl.concat([part.group_by("row", maintain_order=True).agg(union) for part in parts])


def jaccard(a: NDArray[np.integer], b: NDArray[np.integer]) -> float:
    """Return the Jaccard similarity of two arrays of different neuron ids; 0 when both are empty."""
    shared = len(np.intersect1d(a, b, assume_unique=True))
    union = len(a) + len(b) - shared
    return shared / union if union else 0.0
