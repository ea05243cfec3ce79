"""What a run has to show: its artifacts as far as they are there, and in words why others are not."""

from typing import Any, Final

import polars as pl

from pipeline.report.blocks import Block, Remark
from pipeline.stages import stage_of
from pipeline.store.artifact import Artifact
from pipeline.store.store import Run

MAX_CHARS: Final = 600
"""Characters of a text of the data in a page; a question of a book's length says no more."""


class Shown:
    """The artifacts of a run; those that are missing, or were left empty on purpose, are none."""

    def __init__(self, run: Run) -> None:
        """Look at a run as it is now."""
        self.run = run
        self._found = {name: run.find(name) for name in run.store.catalogue}

    def find(self, name: str) -> Artifact | None:
        """Return an artifact that holds something."""
        artifact = self._found[name]
        return None if artifact is None or "skipped" in artifact.manifest.notes else artifact

    def notes(self, name: str) -> dict[str, Any]:
        """Return what a stage noted, nothing where it did not run."""
        artifact = self.find(name)
        return artifact.manifest.notes if artifact else {}

    def settings(self, name: str) -> dict[str, Any]:
        """Return all settings of a stage that ran."""
        artifact = self._found[name]
        return artifact.manifest.settings if artifact else {}

    def made(self) -> dict[str, Artifact]:
        """Return every artifact that there is, those left empty included."""
        return {name: artifact for name, artifact in self._found.items() if artifact}

    def missing(self, name: str) -> list[Block]:
        """Return why there is nothing to show of an artifact; nothing where there is."""
        artifact = self._found[name]
        if artifact is None:
            optional = " It is optional: ask for it by name." if stage_of(name).optional else ""
            return [Remark(f"This run has no {name}: materialize it and make the page again.{optional}", "missing")]
        skipped = artifact.manifest.notes.get("skipped")
        return [Remark(f"{name} was left out: {skipped}", "missing")] if skipped else []


def cut(text: str | None, limit: int = MAX_CHARS) -> str:
    """Return a text, a long one cut with the number of characters left out."""
    if text is None:
        return "-"
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text) - limit:,} more characters)"


def share(part: float, whole: float) -> str:
    """Return a part in percent."""
    return f"{100 * part / whole:.1f} %" if whole else "-"


def warnings_of(shown: Shown, name: str) -> list[Block]:
    """Return what a stage warns of."""
    warning = shown.notes(name).get("warning")
    return [Remark(str(warning), "warning")] if warning else []


def counts_of(artifact: Artifact, column: str, table: str | None = None) -> dict[str, int]:
    """Return the rows of each value of a column, the most frequent first."""
    counts = artifact.scan(table).group_by(column).len().collect().sort(["len", column], descending=[True, False])
    return {str(name or "(none)"): count for name, count in counts.iter_rows()}


def column(artifact: Artifact, expression: pl.Expr, table: str | None = None) -> pl.Series:
    """Return one column of a table, without nulls."""
    return artifact.scan(table).select(expression).collect().to_series().drop_nulls()
