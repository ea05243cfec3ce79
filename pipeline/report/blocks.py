"""What a page is made of. Python says what stands there, templates (``templates/blocks.html``) how it looks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

import polars as pl


class Estimate(NamedTuple):
    """A figure in a table with its interval."""

    value: str
    interval: str


Cell: TypeAlias = str | int | float | Estimate | None


@dataclass(frozen=True)
class Prose:
    """The project's own words as Markdown; never data, which is shown as it is."""

    block: ClassVar = "prose"
    markdown: str


@dataclass(frozen=True)
class Remark:
    """A line of its own: something to know, to be warned of, or what is not there."""

    block: ClassVar = "remark"
    text: str
    kind: Literal["note", "warning", "missing"] = "note"


Mood: TypeAlias = Literal["", "good", "bad"]


class Tile(NamedTuple):
    """A figure that people look at first."""

    label: str
    value: str
    detail: str = ""
    mood: Mood = ""


@dataclass(frozen=True)
class Tiles:
    """Figures side by side."""

    block: ClassVar = "tiles"
    tiles: Sequence[Tile]


@dataclass(frozen=True)
class Table:
    """Rows of cells; text is shown as it is."""

    block: ClassVar = "table"
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    left_out: int = 0
    """Rows that there are besides."""

    def is_numeric(self, column: int) -> bool:
        """Return whether a column holds figures only."""
        cells = [row[column] for row in self.rows if row[column] not in (None, "", "-")]
        return bool(cells) and all(isinstance(cell, int | float | Estimate) for cell in cells)


@dataclass(frozen=True)
class Plot:
    """A picture that answers to the pointer and follows the page's width and colours."""

    block: ClassVar = "plot"
    name: str
    """Unlike that of any other plot of the page."""
    title: str
    spec: Mapping[str, Any]
    """Of Vega-Lite; colours are those of the page, as ``var(--name)``."""
    described: str = ""
    """What is to be seen, under the picture."""
    is_wide: bool = False
    """Whether it takes the whole width."""


@dataclass(frozen=True)
class Plots:
    """Pictures side by side, where the page is wide enough."""

    block: ClassVar = "plots"
    plots: Sequence[Plot]


class Card(NamedTuple):
    """An example out of the data."""

    title: str
    facts: Sequence[str]
    lines: Sequence[tuple[str, str]] = ()
    """Label and text."""


@dataclass(frozen=True)
class Cards:
    """Examples out of the data."""

    block: ClassVar = "cards"
    title: str
    cards: Sequence[Card]


@dataclass(frozen=True)
class Fold:
    """What is there for who wants to know more."""

    block: ClassVar = "fold"
    title: str
    blocks: Sequence["Block"]


@dataclass(frozen=True)
class Explorer:
    """Rows that can be searched, filtered and sorted; the page's script draws them, as text."""

    block: ClassVar = "explorer"
    name: str
    """Unlike that of any other explorer of the page."""
    title: str
    facet: str
    """What the rows are filtered by."""
    columns: Sequence[str]
    """Figures of a row, to sort by."""
    rows: Sequence["Row"]
    n_all: int
    """Rows that there are, those that were left out included."""
    left_out: str = ""
    """Which were left out, in words."""

    def data(self) -> dict[str, Any]:
        """Return what the script reads."""
        return {"columns": self.columns, "rows": self.rows, "total": self.n_all}


class Row(NamedTuple):
    """A row of an explorer, short as the page holds thousands."""

    title: str
    facet: str
    values: Sequence[float | str | None]
    """As many as columns."""
    details: Sequence[tuple[str, str | Sequence[str]]]
    """Label, and text or list of texts."""
    id: str = ""


Block: TypeAlias = Prose | Remark | Tiles | Table | Plot | Plots | Cards | Fold | Explorer


@dataclass(frozen=True)
class Section:
    """A chapter."""

    anchor: str
    title: str
    lead: str
    """What it is about, in a sentence or two."""
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A whole page."""

    title: str
    subtitle: str
    verdict: str
    """What came out, in a paragraph."""
    summary: Sequence[Block]
    """What stands before the first chapter."""
    sections: Sequence[Section] = field(default_factory=tuple)


def table_of(caption: str, rows: pl.DataFrame, limit: int | None = None) -> Table:
    """Return a frame as a table, at most ``limit`` rows of it."""
    shown = rows if limit is None else rows.head(limit)
    cells = [[_cell(value) for value in row] for row in shown.iter_rows()]
    return Table(caption, [name.replace("_", " ") for name in rows.columns], cells, rows.height - shown.height)


def _cell(value: object) -> Cell:
    return value if isinstance(value, str | int | float | None) else str(value)
