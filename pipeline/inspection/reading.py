"""The tables that a run shows, read as they stand: runs of older code have other columns, or other stages."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import polars as pl

from pipeline.errors import CurationError
from pipeline.registry import suggest
from pipeline.stages import CATALOGUE
from pipeline.store.artifact import Artifact
from pipeline.store.store import Run, Store

_OFFERED: Final = 3
"""Ids that an error offers; own choice."""


class Rows(NamedTuple):
    """Rows of a table that are about a question."""

    artifact: str
    table: str
    rows: pl.DataFrame
    meaning: str = ""
    """What the question, which they name, is to them; empty for its own rows."""


def open_run(store: Store, name: str) -> Run:
    """Return a run that has artifacts; raises CurationError naming the nearest run that there is."""
    run = store.run(name)
    if not any(_links(run)):
        there = sorted(folder.name for folder in store.runs.glob("[!.]*") if any(_links(store.run(folder.name))))
        known = f"{suggest(name, there)} There are {', '.join(there)}" if there else ": make one with 'make run'"
        raise CurationError(f"{store.runs} has no run '{name}'{known}")
    return run


def artifacts_of(run: Run) -> dict[str, Artifact]:
    """Return what a run shows, in the order of the stages; what this code does not know comes last."""
    order = {name: place for place, name in enumerate(CATALOGUE)}
    links = sorted(_links(run), key=lambda link: (order.get(link.name, len(order)), link.name))
    return {link.name: Artifact(link.resolve(), CATALOGUE.get(link.name, {})) for link in links}


def tables_of(artifacts: Mapping[str, Artifact]) -> Iterator[tuple[str, str, pl.LazyFrame]]:
    """Yield artifact, table and its rows, for every table that has any."""
    for name, artifact in artifacts.items():
        for table, n_rows in artifact.manifest.rows.items():
            if n_rows:
                yield name, table, pl.scan_parquet(artifact.files(table))


def nearest(wanted: str, known: Iterable[str]) -> list[str]:
    """Return up to three of the names that begin, or else end, longest as ``wanted`` does."""
    names = pl.Series(list(known), dtype=pl.String).unique().sort()
    for length in range(len(wanted) - 1, 0, -1):
        alike = names.filter(names.str.starts_with(wanted[:length]) | names.str.ends_with(wanted[-length:]))
        if len(alike):
            return alike.head(_OFFERED).to_list()
    return names.head(_OFFERED).to_list()


def _links(run: Run) -> Iterator[Path]:
    return (link for link in run.folder.glob("[!.]*") if link.is_symlink())
