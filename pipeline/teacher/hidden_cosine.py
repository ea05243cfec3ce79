"""The common alternative to neurons: nearest by the model's hidden states, averaged over the question's stem."""

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.teacher.builder import Choice, ContextRequest
from pipeline.teacher.nearest import compare_all, show_nearest
from pipeline.teacher.questions import Questions


def hidden_cosine(request: ContextRequest) -> Iterator[list[Choice]]:
    """Yield the nearest questions with a majority by the cosine of their stems' states, which must be above 0.

    A target without a state gets no demonstration. Exact for pools of any size, 8 bytes a state's entry in memory.
    Raises ConfigError when no state is stored.
    """
    shown = request.sources.demonstrations()
    targets = _directions(request.targets, sorted(request.targets.pool["id"]))
    candidates = _directions(request.sources, [example.id for example in shown])

    def cosines(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        # The last bits of a matrix product depend on the block; what is stored, hence compared, has fewer.
        return (targets[rows] @ candidates.T).astype(np.float32)

    return show_nearest(request, shown, compare_all(cosines, len(shown)))


def _directions(questions: Questions, ids: Sequence[str]) -> NDArray[np.float64]:
    """Return the states of ``ids`` at length 1, ``[ids, d_model]``; zeros for a question without one."""
    states = questions.held("stem_states")
    width = states.select(pl.col("state").list.len()).head(1).collect().item()
    row_of = pl.LazyFrame({"id": ids, "row": np.arange(len(ids))}, schema_overrides={"id": pl.String})
    held = states.join(row_of, on="id").select("row", "state").collect()
    directions = np.zeros((len(ids), width))
    directions[held["row"].to_numpy()] = held["state"].explode(empty_as_null=False).to_numpy().reshape(-1, width)
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    return np.divide(directions, lengths, out=directions, where=lengths > 0)
