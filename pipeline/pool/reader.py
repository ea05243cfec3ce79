"""Sources of questions behind one interface: a reader is a function from a source to its rows.

A new format is one module with such a function and one line in ``READERS``.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final, Protocol

from pipeline.errors import SourceError
from pipeline.pool.config import RawPoolConfig
from pipeline.pool.delimited import read_csv
from pipeline.pool.files import ENDINGS, ending, find_files
from pipeline.pool.jsonl import read_jsonl
from pipeline.pool.mmlu_pro import is_mmlu_pro, read_mmlu_pro
from pipeline.pool.parquet import read_parquet
from pipeline.pool.sciknoweval import is_sciknoweval, read_sciknoweval
from pipeline.pool.source import Problem, Source, SourceRow, columns_of, find_columns


class PoolReader(Protocol):
    """Reads one source format, streaming; raises SourceError only when the configuration does not fit the source."""

    def __call__(self, source: Source, config: RawPoolConfig, /) -> Iterator[SourceRow]:
        """Yield the rows of ``source`` in order, those that cannot be parsed with their problem."""


_HUB_DATA_SET: Final = re.compile(r"hf://datasets/([^/]+(?:/[^/]+)?)/?")
"""A data set on the hub as a whole; what goes on behind its name is a file in it, or a pattern of files."""


def _read_huggingface(source: Source, config: RawPoolConfig) -> Iterator[SourceRow]:
    from pipeline.pool.huggingface import read_huggingface  # a second and more of imports, for data sets only

    return read_huggingface(source, config)


READERS: dict[str, PoolReader] = {
    "jsonl": read_jsonl,
    "csv": read_csv,
    "parquet": read_parquet,
    "sciknoweval": read_sciknoweval,
    "mmlu_pro": read_mmlu_pro,
    "huggingface": _read_huggingface,
}
_PUBLISHED = {"jsonl": ("sciknoweval", is_sciknoweval), "parquet": ("mmlu_pro", is_mmlu_pro)}
"""Layouts that ``auto`` recognises in files of a format, by their columns."""


def find_sources(config: RawPoolConfig) -> list[Source]:
    """Return what the paths of ``config`` mean; raises SourceError when one means nothing, or there is no reader."""
    paths = (config.path, *config.further_paths)
    return [source for path in paths for source in _find(config.model_copy(update={"path": path}))]


def _find(config: RawPoolConfig) -> list[Source]:
    named = _HUB_DATA_SET.fullmatch(config.path)
    if named or config.format == "huggingface":
        from pipeline.pool.huggingface import find_dataset

        return [find_dataset(config, named[1] if named else config.path)]
    sources = find_files(config.path)
    for source in sources:
        _format(source, config)
    return sources


def read_rows(sources: Sequence[Source], config: RawPoolConfig) -> Iterator[SourceRow]:
    """Yield the rows of all sources in turn, at most ``config.limit``; what is damaged becomes a row with a problem.

    Raises SourceError when a file cannot be opened, when there are no rows, and, at the latest after the last row of a
    source, when none of its rows has a configured column.
    """
    limit = sys.maxsize if config.limit is None else config.limit
    n_left = limit
    for source in sources:
        for row in _checked(source, config, n_left):
            n_left -= 1
            yield row
        if not n_left:
            return
    if n_left == limit:
        raise SourceError(f"{config.path} holds no rows: give a source with at least one question")


def _checked(source: Source, config: RawPoolConfig, limit: int) -> Iterator[SourceRow]:
    """Yield at most ``limit`` rows of a source, and check its columns in the end."""
    wanted = set(columns_of(config).values())
    columns: dict[str, None] = {}
    parsed = False
    try:
        for row in islice(_reader(source, config)(source, config), limit):
            if not isinstance(row.parsed, Problem):
                # All names of the first row, for the message; of later rows only what matters, as memory is bounded.
                if found := row.parsed.keys() if not parsed else wanted & row.parsed.keys():
                    columns |= dict.fromkeys(found)
                    wanted -= columns.keys()
                parsed = True
            yield row
    except OSError as error:
        raise SourceError(
            f"{source.path} cannot be read ({error.strerror or error}): check the file and its permissions"
        ) from error
    if parsed:
        find_columns(columns, config, source.path)


def _reader(source: Source, config: RawPoolConfig) -> PoolReader:
    found = _format(source, config)
    if config.format == "auto" and found in _PUBLISHED:
        layout, recognised = _PUBLISHED[found]
        found = layout if recognised(source, config) else found
    return READERS[found]


def _format(source: Source, config: RawPoolConfig) -> str:
    if _HUB_DATA_SET.fullmatch(config.path):
        return "huggingface"
    if config.format != "auto":
        return config.format
    found = ending(source.name)
    if found not in ENDINGS:
        known, formats = ", ".join(ENDINGS), ", ".join(READERS)
        raise SourceError(
            f"{source.path} has the ending '{found}', not one of {known}: set raw_pool.format to one of {formats}"
        )
    return ENDINGS[found]
