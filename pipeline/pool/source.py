"""What every reader yields, why rows are refused, and which columns a source must have."""

import difflib
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, Self

from pipeline.config import RawPoolConfig
from pipeline.errors import SourceError

N_COLUMNS_SHOWN = 20
_FIELDS = ("question_column", "options_column", "answer_column", "domain_column")


class Reason(StrEnum):
    """Codes in the quarantine table; no code depends on the gold answer."""

    MALFORMED_JSON = "malformed_json"
    NOT_AN_OBJECT = "not_an_object"
    INVALID_UTF8 = "invalid_utf8"
    LINE_TOO_LONG = "line_too_long"
    MALFORMED_CSV = "malformed_csv"
    WRONG_FIELD_COUNT = "wrong_field_count"
    MISSING_QUESTION = "missing_question"
    BAD_OPTIONS = "bad_options"
    TOO_FEW_OPTIONS = "too_few_options"
    TOO_MANY_OPTIONS = "too_many_options"
    TOO_LONG = "too_long"
    CONTROL_CHARACTERS = "control_characters"
    DUPLICATE = "duplicate"


class Problem(NamedTuple):
    """Why a row is refused."""

    reason: Reason
    """Code."""
    detail: str
    """What is wrong, in words, on one line."""


@dataclass(frozen=True)
class SourceRow:
    """One row of a source: its values, or the problem that kept it from being parsed."""

    source: str
    """File name and line or row number, from 1."""
    raw: str
    """Text as read, undecodable bytes as backslash escapes; the beginning only of an overlong line."""
    values: dict[str, Any] | None
    """Values by the source's column names, undecodable bytes as lone surrogates; None with a problem."""
    problem: Problem | None = None
    """Why the row could not be parsed; None with values."""

    @classmethod
    def of(cls, source: str, raw: str, parsed: dict[str, Any] | Problem) -> Self:
        """Build a row from the outcome of parsing it."""
        return cls(source, raw, None, parsed) if isinstance(parsed, Problem) else cls(source, raw, parsed)


def place(path: Path, number: int) -> str:
    """Return ``file name:number``, with undecodable bytes of the name as backslash escapes."""
    return f"{path.name.encode('utf-8', 'backslashreplace').decode()}:{number}"


def configured_columns(config: RawPoolConfig) -> set[str]:
    """Return the names of the columns that the configuration asks for."""
    return {column for field in _FIELDS if (column := getattr(config, field)) is not None}


def check_columns(columns: Collection[str], config: RawPoolConfig, path: Path) -> None:
    """Raise SourceError if a configured column is not among those of the source.

    The question's column must be there; the other three may be absent while the configuration names their defaults.
    Options that are merely called otherwise would turn every question into an open one, so ``choices`` is refused.
    """
    for field in _FIELDS:
        column = getattr(config, field)
        if column is None or column in columns:
            continue
        if field == "question_column" or column != RawPoolConfig.model_fields[field].default:
            raise SourceError(_absent(column, field, columns, path))
        if field == "options_column" and "choices" in columns:
            raise SourceError(
                f"{path} has a column 'choices' but no {column!r}: set raw_pool.options_column=choices, or "
                f"raw_pool.format=sciknoweval, or raw_pool.options_column=null to read open questions"
            )


def _absent(column: str, field: str, columns: Collection[str], path: Path) -> str:
    nearest = difflib.get_close_matches(column, columns, n=1, cutoff=0.0)
    meant = f", did you mean {nearest[0]!r}?" if nearest else ";"
    shown = ", ".join(repr(name) for name in list(columns)[:N_COLUMNS_SHOWN]) or "none"
    return f"{path} has no column {column!r}{meant} It has {shown}; set raw_pool.{field} to one of them"
