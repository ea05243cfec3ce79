"""A trace as text: the story, then the rows of every table."""

from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl

from pipeline.inspection.reading import Rows
from pipeline.inspection.trace import Trace
from pipeline.stages import CATALOGUE, stage_of

_CELL, _LONG, _SHORT_LIST = 40, 400, 8
"""Characters of a cell in a table and of a value of its own, and values of a list that is shown whole; own choice."""


def show_trace(found: Trace) -> str:
    """Return a trace for people, long texts and lists cut."""
    parts = [f"{found.id or found.wanted} in run {found.run}\n" + "".join(f"  {line}\n" for line in found.story)]
    parts += [_block(rows) for rows in (*found.own, *found.mentions)]
    if found.silent:
        parts.append(f"No row in {', '.join(found.silent)}.\n")
    return "\n".join(parts)


def _block(found: Rows) -> str:
    title = f"{found.artifact}/{found.table}: {found.meaning or _description(found.artifact)}"
    rows = found.rows
    same = [name for name in rows.columns if rows.height == 1 or rows[name].n_unique() == 1]
    lines = [f"  {name}: {_value(rows[name][0], _LONG)}" for name in same if name != "id" or found.meaning]
    if varying := [name for name in rows.columns if name not in same]:
        cells = [[_value(value, _CELL) for value in row] for row in rows.select(varying).iter_rows()]
        lines += [f"    {line}" for line in aligned([varying, *cells])]
    return "\n".join([title, *lines]) + "\n"


def _description(artifact: str) -> str:
    if artifact not in CATALOGUE:
        return "of a stage that this code does not have"
    spec = stage_of(artifact)
    return spec.description if spec.name == artifact else spec.companions[artifact].description


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield rows of cells as lines of columns of one width."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _value(value: Any, longest: int) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, pl.Series | list):
        values = list(value)
        if len(values) > _SHORT_LIST:
            return f"{len(values)} values"
        return f"[{', '.join(_value(item, longest) for item in values)}]"
    text = " / ".join(str("-" if value is None else value).splitlines())
    return text if len(text) <= longest else f"{text[:longest]}…"
