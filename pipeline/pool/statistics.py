"""What the pool is made of, for people: counts by domain, level, task and kind, and lengths. Never looks at answers."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from itertools import accumulate
from typing import Final

import polars as pl

from pipeline.markdown import markdown_table

LABELS: Final = ("domain", "level", "task", "kind")
"""Columns of RAW_POOL that are counted by value."""
N_SHOWN = 20
"""Rows of a table; the rest is summed up in one more."""
_QUANTILES: Final = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


class PoolStatistics:
    """Counts over the batches of a pool; memory grows with the number of different values only."""

    def __init__(self) -> None:
        self.labels: Mapping[str, Counter[str]] = {name: Counter() for name in LABELS}
        """Questions per value, by column."""
        self.characters: Counter[int] = Counter()
        """Questions per length of their text."""
        self.options: Counter[int] = Counter()
        """Questions per number of options."""

    def add(self, pool: pl.DataFrame) -> None:
        """Count the rows of a RAW_POOL frame."""
        for name, counter in self.labels.items():
            _count(pool[name], counter)
        _count(pool["question"].str.len_chars(), self.characters)
        _count(pool["options"].list.len(), self.options)

    def tables(self) -> dict[str, str]:
        """Return Markdown tables by name."""
        tables = {f"by_{name}": count_table(name, counter) for name, counter in self.labels.items()}
        tables["by_number_of_options"] = count_table("options", self.options)
        tables["question_characters"] = markdown_table(self._lengths())
        return tables

    def _lengths(self) -> pl.DataFrame:
        """Return quantiles of the lengths: the smallest that at least that share of questions does not exceed."""
        lengths, total = sorted(self.characters), self.characters.total()
        up_to = list(accumulate(self.characters[length] for length in lengths))
        rows = [(f"{q:.0%}", lengths[bisect_left(up_to, q * total)]) for q in _QUANTILES if lengths]
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


def _count(values: pl.Series, counter: Counter[str] | Counter[int]) -> None:
    counter.update(dict(values.value_counts(name="count").iter_rows()))
