"""JSON Lines: one object a line."""

import json
from collections.abc import Iterator
from typing import Any

from pipeline.pool.config import RawPoolConfig
from pipeline.pool.lines import CARRIAGE_RETURN, Line, explain, read_lines
from pipeline.pool.source import Problem, Reason, Source, SourceRow, damaged


def read_jsonl(source: Source, _config: RawPoolConfig) -> Iterator[SourceRow]:
    """Yield the objects of a JSON Lines file; blank lines are passed over."""
    for line in read_lines(source):
        if line.damage:
            yield damaged(source, line.number, line.damage)
        elif line.overlong or line.data.strip():
            yield SourceRow(source.name, line.number, explain(_parse(line), [line]), line.show)


def _parse(line: Line) -> dict[str, Any] | Problem:
    try:
        value = json.loads(line.text)
    except json.JSONDecodeError as error:
        if "\r" in line.text.strip():
            return Problem(Reason.MALFORMED_JSON, CARRIAGE_RETURN)
        return Problem(Reason.MALFORMED_JSON, f"{error.msg} at column {error.colno}")
    except RecursionError:
        return Problem(Reason.MALFORMED_JSON, "nested too deeply")
    except ValueError as error:  # an integer of more digits than Python converts
        return Problem(Reason.MALFORMED_JSON, str(error))
    if not isinstance(value, dict):
        return Problem(Reason.NOT_AN_OBJECT, f"the line holds a JSON {type(value).__name__}, not an object")
    return value
