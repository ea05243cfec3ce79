"""CSV with a header line; options stand in their cell as a JSON list."""

import csv
import json
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from pipeline.errors import SourceError
from pipeline.pool import lines
from pipeline.pool.config import RawPoolConfig
from pipeline.pool.lines import CARRIAGE_RETURN, Line, explain, read_lines
from pipeline.pool.source import Problem, Reason, Source, SourceRow, check_columns, damaged

MAX_CELL_CHARS = 2**20
"""Longest cell; also how far a quote that nobody closes is followed before its line is refused."""


class _Records:
    """Records of a CSV file, each with the physical lines that it came from."""

    def __init__(self, source: Source) -> None:
        self.lines: list[Line] = []
        self._ahead: deque[Line] = deque()
        self._n_bytes = 0
        self._file = read_lines(source)
        self._reader = self._new_reader()
        csv.field_size_limit(MAX_CELL_CHARS)

    def __iter__(self) -> Iterator[Sequence[str] | Problem]:
        while True:
            self.lines, self._n_bytes = [], 0
            try:
                yield next(self._reader)
            except StopIteration:
                return
            except _RecordTooLongError:
                self._reader = self._new_reader()
                yield Problem(Reason.LINE_TOO_LONG, f"the record is longer than {lines.MAX_LINE_BYTES:,} bytes")
            except csv.Error as error:
                # A stray quote swallows the lines after it: refuse only the first and read the others again.
                self._ahead.extendleft(reversed(self.lines[1:]))
                del self.lines[1:]
                self._reader = self._new_reader()
                detail = CARRIAGE_RETURN if "new-line" in str(error) else str(error)  # advises on an option of Python's
                yield Problem(Reason.MALFORMED_CSV, detail)

    def _new_reader(self) -> Iterator[list[str]]:
        return csv.reader(self._take(), strict=True)

    def _take(self) -> Iterator[str]:
        while line := self._ahead.popleft() if self._ahead else next(self._file, None):
            self.lines.append(line)
            self._n_bytes += len(line.data)
            if line.damage:
                raise csv.Error
            if self._n_bytes > lines.MAX_LINE_BYTES and len(self.lines) > 1:
                raise _RecordTooLongError
            yield line.text


class _RecordTooLongError(Exception):
    """Quoted line ends, each within its cell's limit, join more lines to one record than memory should hold."""


def read_csv(source: Source, config: RawPoolConfig) -> Iterator[SourceRow]:
    """Yield the records of a CSV file; raises SourceError when the header is unusable."""
    records = _Records(source)
    iterator = filter(None, records)  # a blank line is an empty record
    header = next(iterator, [])
    if isinstance(header, Problem):
        if records.lines[0].damage:
            yield damaged(source, 1, records.lines[0].damage)
            return
        raise SourceError(f"{source.path} has no readable CSV header ({header.detail}): mend its first line")
    if len(set(header)) < len(header):
        raise SourceError(f"{source.path} names a column twice in its header: give every column a name of its own")
    if not header:
        return
    check_columns(header, config, source.path)
    for fields in iterator:
        first = records.lines[0]
        if first.damage:
            yield damaged(source, first.number, first.damage)
            continue
        parsed = fields if isinstance(fields, Problem) else _parse(fields, header, config.options_column)
        yield SourceRow(source.name, first.number, explain(parsed, records.lines), partial(_show, records.lines))


def _show(record: Sequence[Line]) -> str:
    return "\n".join(line.show() for line in record)


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
