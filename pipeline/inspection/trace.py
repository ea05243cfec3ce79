"""Everything that a run's tables hold about one row: a question of the pool or of a test, or a refused row.

All tables are asked alike, so that a new stage needs nothing here: rows of the same ``id``, and rows that name the id
in a column of ``MENTIONS``. What a table says in short is in ``pipeline.inspection.story``.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import polars as pl

from pipeline.errors import CurationError
from pipeline.inspection.reading import Rows, artifacts_of, nearest, tables_of
from pipeline.inspection.story import tell
from pipeline.store.artifact import Artifact
from pipeline.store.store import Run

MENTIONS: Final[Mapping[str, str]] = {
    "demonstration_ids": "a worked example in contexts",
    "twin": "stands for questions that were left out",
    "evaluation_id": "repeated by questions that were left out",
    "examples": "shown to the model that proposes questions",
}
"""Columns that name other questions, and what this question is to a row that names it."""
_DUPLICATE: Final = "the same question and options as "  # how ``pipeline.pool.ingest`` says it in the quarantine


class Trace(NamedTuple):
    """What there is about a row."""

    run: str
    wanted: str
    id: str | None
    """Of the question; none for a row that was refused."""
    story: Sequence[str]
    """What happened to it, a line for each table that says something."""
    own: Sequence[Rows]
    mentions: Sequence[Rows]
    silent: Sequence[str]
    """Artifacts with questions, but not with this one."""

    def document(self) -> dict[str, Any]:
        """Return it for machines."""
        tables: dict[str, dict[str, Any]] = {}
        for found in self.own:
            tables.setdefault(found.artifact, {})[found.table] = found.rows.to_dicts()
        mentions = [{**found._asdict(), "rows": found.rows.to_dicts()} for found in self.mentions]
        return {**self._asdict(), "own": tables, "mentions": mentions}


def trace(run: Run, wanted: str) -> Trace:
    """Return all that a run tells about a row.

    Args:
        run: A run that has artifacts.
        wanted: Id of a question, or enough of its beginning; or place of a row in its source, such as pool.jsonl:12.

    Raises:
        CurationError: No row has this id or place, or several do; the message names the nearest.
    """
    artifacts = artifacts_of(run)
    refused = _refused(artifacts, wanted)
    own: list[Rows] = []
    mentions: list[Rows] = []
    silent: list[Rows] = []
    question = None if refused.height else _identify(run, artifacts, wanted)
    places = [wanted]
    for name, table, rows in tables_of(artifacts) if question else ():
        columns = rows.collect_schema()
        if "id" in columns:
            found = rows.filter(pl.col("id") == question).collect()
            places += found["source"].to_list() if "source" in columns else []
            (own if found.height else silent).append(Rows(name, table, found))
        for column in MENTIONS.keys() & columns.keys():
            is_list = isinstance(columns[column], pl.List)
            names_it = pl.col(column).list.contains(question) if is_list else pl.col(column) == question
            if (found := rows.filter(names_it).collect()).height:
                mentions.append(Rows(name, table, found, MENTIONS[column]))
    if refused.height:
        own.append(Rows("quarantine", "quarantine", refused))
    if (again := _repeats(artifacts, places)).height:
        mentions.append(Rows("quarantine", "quarantine", again, "refused rows are the same question"))
    story = tell(own, mentions, artifacts)
    mute = sorted({found.artifact for found in silent} - {found.artifact for found in own}, key=list(artifacts).index)
    return Trace(run.name, wanted, question, story, own, mentions, mute)


def _refused(artifacts: Mapping[str, Artifact], place: str) -> pl.DataFrame:
    """Return the refused rows of a place: file and line."""
    source, _, line = place.rpartition(":")
    return _quarantine(artifacts, (pl.col("source") == source) & (pl.col("line").cast(pl.String) == line))


def _repeats(artifacts: Mapping[str, Artifact], places: Sequence[str]) -> pl.DataFrame:
    """Return the rows that were refused because they repeat the question of one of the places."""
    return _quarantine(artifacts, pl.col("detail").is_in([_DUPLICATE + place for place in places]))


def _quarantine(artifacts: Mapping[str, Artifact], chosen: pl.Expr) -> pl.DataFrame:
    tables = [rows for name, _, rows in tables_of(artifacts) if name == "quarantine"]
    return pl.concat(tables).filter(chosen).collect() if tables else pl.DataFrame()


def _identify(run: Run, artifacts: Mapping[str, Artifact], wanted: str) -> str:
    """Return the id that is meant; raises CurationError where none is, or several are."""
    alike, known = set[str](), []
    for _, _, rows in tables_of(artifacts):
        columns = rows.collect_schema()
        if "id" in columns and "question" in columns:
            is_meant = pl.col("id").str.starts_with(wanted)
            if "source" in columns:
                is_meant |= pl.col("source") == wanted
            alike |= set(rows.filter(is_meant).select("id").unique().collect()["id"])
            known.append(rows.select("id").drop_nulls())
    if wanted in alike:
        return wanted
    if len(alike) == 1:
        return alike.pop()
    if alike:
        raise CurationError(
            f"'{wanted}' begins {len(alike)} ids: write more of it, as in {', '.join(sorted(alike)[:3])}"
        )
    there = pl.concat(known).collect()["id"].to_list() if known else list[str]()
    raise CurationError(
        f"run '{run.name}' has no row '{wanted}': give the id of a question, or the place of a row such as "
        f"pool.jsonl:12; nearest ids: {', '.join(nearest(wanted, there)) or 'none, the run has no questions yet'}"
    )
