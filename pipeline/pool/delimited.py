"""CSV with a header line; options stand in their cell as a JSON list.

Python's reader, not Arrow's: to that one a stray quote joins all lines up to the next quote to one row, or refuses the
rest of the file; and it stops at a row longer than a block and at a row to refuse that is not UTF-8.
"""

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
from pipeline.pool.source import Problem, Reason, Source, SourceRow, damaged, find_columns

MAX_CELL_CHARS = 2**20
"""Longest cell; also how far a quote that nobody closes is followed before its line is refused."""


class _RecordTooLongError(Exception):
    """Quoted line ends, each within its cell's limit, join more lines to one record than memory should hold."""


def read_csv(source: Source, config: RawPoolConfig) -> Iterator[SourceRow]:
    """Yield the records of a CSV file; raises SourceError when the header is unusable."""
    header: Sequence[str] = []
    for record, fields in _records(source):
        first = record[0]
        if first.damage:
            yield damaged(source, first.number, first.damage)
        elif not header:
            header = _header(fields, source, config)
        else:
            parsed = fields if isinstance(fields, Problem) else _parse(fields, header, config.options_column)
            yield SourceRow(source.name, first.number, explain(parsed, record), partial(_show, record))


def _records(source: Source) -> Iterator[tuple[list[Line], Sequence[str] | Problem]]:
    """Yield the physical lines of each record that is not blank with its fields, or with what is wrong."""
    csv.field_size_limit(MAX_CELL_CHARS)
    file, again = read_lines(source), deque[Line]()
    while True:
        record: list[Line] = []
        try:
            if fields := next(csv.reader(_take(again, file, record), strict=True)):
                yield record, fields
        except StopIteration:
            return
        except _RecordTooLongError:
            yield record, Problem(Reason.LINE_TOO_LONG, f"the record is longer than {lines.MAX_LINE_BYTES:,} bytes")
        except csv.Error as error:
            # A stray quote swallows the lines after it: refuse only the first and read the others again.
            again.extendleft(reversed(record[1:]))
            detail = CARRIAGE_RETURN if "new-line" in str(error) else str(error)  # advises on an option of Python's
            yield record[:1], Problem(Reason.MALFORMED_CSV, detail)


def _take(again: deque[Line], file: Iterator[Line], record: list[Line]) -> Iterator[str]:
    """Yield the text of the next lines, those of ``again`` first, and put them into ``record``."""
    n_bytes = 0
    while line := again.popleft() if again else next(file, None):
        record.append(line)
        n_bytes += len(line.data)
        if line.damage:
            raise csv.Error
        if n_bytes > lines.MAX_LINE_BYTES and len(record) > 1:
            raise _RecordTooLongError
        yield line.text


def _header(fields: Sequence[str] | Problem, source: Source, config: RawPoolConfig) -> Sequence[str]:
    if isinstance(fields, Problem):
        raise SourceError(f"{source.path} has no readable CSV header ({fields.detail}): mend its first line")
    if len(set(fields)) < len(fields):
        raise SourceError(f"{source.path} names a column twice in its header: give every column a name of its own")
    find_columns(fields, config, source.path)
    return fields


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
