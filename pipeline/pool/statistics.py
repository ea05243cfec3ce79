"""What the pool is made of, for people: counts by domain, level, task and kind, and lengths. Never looks at answers."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from itertools import accumulate
from typing import Any, Final

import polars as pl

from pipeline.markdown import markdown_table

_MEASURES: Final[Mapping[str, pl.Expr]] = {
    **{f"by_{name}": pl.col(name) for name in ("domain", "level", "task", "kind")},
    "by_number_of_options": pl.col("options").list.len(),
    "question_characters": pl.col("question").str.len_chars(),
}
"""What is counted of a RAW_POOL frame, by the name of its table."""
N_SHOWN = 20
"""Rows of a table; the rest is summed up in one more."""
_QUANTILES: Final = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


class PoolStatistics:
    """Counts over the batches of a pool; memory grows with the number of different values only."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[Any]] = {name: Counter() for name in _MEASURES}

    def add(self, pool: pl.DataFrame) -> None:
        """Count the rows of a RAW_POOL frame."""
        for name, measure in _MEASURES.items():
            self._counts[name].update(dict(pool.select(measure).to_series().value_counts(name="count").iter_rows()))

    def tables(self) -> dict[str, str]:
        """Return Markdown tables by name."""
        *labels, lengths = self._counts
        tables = {name: count_table(name.rpartition("_")[2], self._counts[name]) for name in labels}
        return tables | {lengths: markdown_table(_quantiles(self._counts[lengths]))}


def _quantiles(counts: Counter[int]) -> pl.DataFrame:
    """Return quantiles of lengths: the smallest that at least that share of questions does not exceed."""
    lengths = sorted(counts)
    up_to = list(accumulate(counts[length] for length in lengths))
    rows = [(f"{q:.0%}", lengths[bisect_left(up_to, q * counts.total())]) for q in _QUANTILES if lengths]
    return pl.DataFrame(rows, schema=["share of questions up to", "characters"], orient="row")


def count_table(name: str, counter: Mapping[str, int] | Mapping[int, int]) -> str:
    """Return a Markdown table of values, their counts and shares, most frequent first."""
    total = sum(counter.values())
    ranked = sorted(counter.items(), key=lambda item: (-item[1], item[0]))
    rows = [(str(value) or "(none)", count) for value, count in ranked[:N_SHOWN]]
    if len(ranked) > N_SHOWN:
        rows.append((f"({len(ranked) - N_SHOWN} others)", sum(count for _, count in ranked[N_SHOWN:])))
    shown = [(value, count, f"{count / total:.1%}") for value, count in rows]
    return markdown_table(pl.DataFrame(shown, schema=[name, "rows", "share"], orient="row"))
