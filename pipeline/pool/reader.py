"""Sources of questions behind one interface: a reader is a function from a file to its rows.

A new format is one module with such a function and one line in ``READERS``.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Protocol

from pipeline.config import RawPoolConfig, resolve_path
from pipeline.errors import SourceError
from pipeline.pool.delimited import read_csv
from pipeline.pool.jsonl import read_jsonl
from pipeline.pool.parquet import read_parquet
from pipeline.pool.sciknoweval import read_sciknoweval
from pipeline.pool.source import Problem, SourceRow, check_columns, configured_columns

__all__ = ["ENDINGS", "READERS", "PoolReader", "Problem", "SourceRow", "open_reader", "read_rows"]


class PoolReader(Protocol):
    """Reads one source format, streaming; raises SourceError only when the file as a whole is unusable."""

    def __call__(self, path: Path, config: RawPoolConfig, /) -> Iterator[SourceRow]:
        """Yield the rows of ``path`` in order, those that cannot be parsed with their problem."""


READERS: dict[str, PoolReader] = {
    "jsonl": read_jsonl,
    "csv": read_csv,
    "parquet": read_parquet,
    "sciknoweval": read_sciknoweval,
}
ENDINGS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet", ".pq": "parquet"}


def open_reader(config: RawPoolConfig) -> tuple[Path, PoolReader]:
    """Return the source file and the reader of its format; raises SourceError when there is no such file or reader."""
    path = resolve_path(config.path)
    if path.is_dir():
        raise SourceError(f"{path} is a folder: give raw_pool.path as one file in it")
    if not path.is_file():
        raise SourceError(f"{path} is not an existing file: give raw_pool.path as a file of questions")
    name = ENDINGS.get(path.suffix.lower()) if config.format == "auto" else config.format
    if name is None:
        known, formats = ", ".join(ENDINGS), ", ".join(READERS)
        raise SourceError(
            f"{path} has the ending '{path.suffix}', not one of {known}: set raw_pool.format to one of {formats}"
        )
    return path, READERS[name]


def read_rows(config: RawPoolConfig) -> Iterator[SourceRow]:
    """Yield the rows of the configured source, at most ``config.limit``.

    Raises SourceError when the file is missing, unreadable, of unknown format or without rows, and, at the latest after
    the last row, when no row has a configured column.
    """
    path, reader = open_reader(config)
    no_rows = SourceError(f"{path} holds no rows: give raw_pool.path as a file with at least one question")
    wanted = configured_columns(config)
    columns: dict[str, None] = {}
    empty, parsed = True, False
    try:
        if not path.stat().st_size:
            raise no_rows
        for row in islice(reader(path, config), config.limit):
            empty = False
            if row.values is not None:
                parsed = True
                # All names of the first row, for the message; of later rows only what matters, as memory is bounded.
                columns |= dict.fromkeys(wanted & row.values.keys() if columns else row.values)
            yield row
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror}): check the file and its permissions") from error
    if empty:
        raise no_rows
    if parsed:
        check_columns(columns, config, path)
