"""CSV with a header line; options stand in their cell as a JSON list."""

import csv
import json
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.config import RawPoolConfig
from pipeline.errors import SourceError
from pipeline.pool.lines import Line, explain, read_lines
from pipeline.pool.source import Problem, Reason, SourceRow, check_columns, place

MAX_CELL_CHARS = 2**20
"""Longest cell; also how far a quote that nobody closes is followed before its line is refused."""


class _Records:
    """Records of a CSV file, each with the physical lines that it came from."""

    def __init__(self, path: Path) -> None:
        self.lines: list[Line] = []
        self._ahead: deque[Line] = deque()
        self._file = read_lines(path)
        self._reader = self._new_reader()
        csv.field_size_limit(MAX_CELL_CHARS)

    def __iter__(self) -> Iterator[Sequence[str] | Problem]:
        while True:
            self.lines = []
            try:
                yield next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                # A stray quote swallows the lines after it: refuse only the first and read the others again.
                self._ahead.extendleft(reversed(self.lines[1:]))
                del self.lines[1:]
                self._reader = self._new_reader()
                yield Problem(Reason.MALFORMED_CSV, str(error))

    def _new_reader(self) -> Iterator[list[str]]:
        return csv.reader(self._take(), strict=True)

    def _take(self) -> Iterator[str]:
        while line := self._ahead.popleft() if self._ahead else next(self._file, None):
            self.lines.append(line)
            yield line.text


def read_csv(path: Path, config: RawPoolConfig) -> Iterator[SourceRow]:
    """Yield the records of a CSV file; raises SourceError when the header is unusable."""
    records = _Records(path)
    iterator = filter(None, records)  # a blank line is an empty record
    header = next(iterator, [])
    if isinstance(header, Problem):
        raise SourceError(f"{path} has no readable CSV header ({header.detail}): mend its first line")
    if len(set(header)) < len(header):
        raise SourceError(f"{path} names a column twice in its header: give every column a name of its own")
    check_columns(header, config, path)
    for fields in iterator:
        parsed = fields if isinstance(fields, Problem) else _parse(fields, header, config.options_column)
        raw = "\n".join(line.shown for line in records.lines)
        yield SourceRow.of(place(path, records.lines[0].number), raw, explain(parsed, records.lines))


def _parse(fields: Sequence[str], header: Sequence[str], options_column: str | None) -> dict[str, Any] | Problem:
    if len(fields) != len(header):
        return Problem(Reason.WRONG_FIELD_COUNT, f"{len(fields)} fields where the header has {len(header)}")
    values: dict[str, Any] = dict(zip(header, fields, strict=True))
    if options_column in values:
        values[options_column] = _options(values[options_column])
    return values


def _options(cell: str) -> object:
    if not cell.strip():
        return None
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        return cell  # not a list: refused with the other bad options
