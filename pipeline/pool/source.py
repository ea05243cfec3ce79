"""What every reader gets and yields, why rows are refused, and which columns a source must have."""

import hashlib
import io
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, Any, NamedTuple

from fsspec.core import url_to_fs

from pipeline.digests import digest_json, digest_unchanged
from pipeline.errors import SourceError, one_line
from pipeline.pool.config import RawPoolConfig
from pipeline.registry import suggest

N_COLUMNS_SHOWN = 20
FIELDS = ("question", "options", "answer", "domain", "level", "task")
"""Parts of a question that a source may have; each has its setting ``raw_pool.<field>_column``."""
_OPTION_COLUMNS = ("choices", "options")


class Reason(StrEnum):
    """Codes in the quarantine table; no code depends on the gold answer."""

    DAMAGED_FILE = "damaged_file"
    """The rest of a file cannot be read; unlike the others, this fails the stage whatever share is allowed."""
    MALFORMED_JSON = "malformed_json"
    NOT_AN_OBJECT = "not_an_object"
    INVALID_UTF8 = "invalid_utf8"
    LINE_TOO_LONG = "line_too_long"
    MALFORMED_CSV = "malformed_csv"
    WRONG_FIELD_COUNT = "wrong_field_count"
    MISSING_QUESTION = "missing_question"
    BAD_OPTIONS = "bad_options"
    UNKNOWN_TYPE = "unknown_type"
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
class Source:
    """One file, or one data set, that a reader reads."""

    name: str
    """Name that its rows are known by: relative to the folder or pattern that was given."""
    path: Path | str
    """File or folder on disk, or URL of a file; of a data set on the hub its id."""
    revision: str | None = None
    """Commit of a data set on the hub, or hash of a file there; none elsewhere."""

    def open(self) -> IO[bytes]:
        """Open the file for reading its bytes as they are stored; raises OSError when there is no such file."""
        if isinstance(self.path, Path):
            return self.path.open("rb")
        file_system, path = url_to_fs(self.path)
        return io.BufferedReader(file_system.open(path))  # not all of their files bound the length of a line

    def digest(self) -> str:
        """Return what changes with the content: a hash over all files, or what the hub tells.

        Remote files are read through too. What their servers tell of them may stay the same when the content changes
        (HTTP), or change when it does not; and a copy on disk has the same digest.
        """
        if self.revision is not None:
            return self.revision
        if isinstance(self.path, Path) and self.path.is_dir():
            files = sorted(path for path in self.path.rglob("*") if path.is_file())
            return digest_json({path.relative_to(self.path).as_posix(): digest_unchanged(path) for path in files})
        if isinstance(self.path, Path):
            return digest_unchanged(self.path)
        with self.open() as file:
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # any that has readinto


class SourceRow(NamedTuple):
    """One row of a source: its values, or the problem that kept it from being parsed."""

    source: str
    """Name of the source."""
    line: int
    """Number of its line (of the first, when it has several) or row, from 1."""
    parsed: dict[str, Any] | Problem
    """Values by the source's column names, undecodable bytes as lone surrogates; or the problem."""
    show: Callable[[], str]
    """Gives ``raw``; called for refused rows only."""

    @property
    def values(self) -> dict[str, Any] | None:
        """Values by the source's column names; None with a problem."""
        return None if isinstance(self.parsed, Problem) else self.parsed

    @property
    def raw(self) -> str:
        """Text as read, undecodable bytes as backslash escapes; the beginning only of an overlong line."""
        return self.show()

    @property
    def place(self) -> str:
        """Where the row stands, for people."""
        return f"{self.source}:{self.line}"


def damaged(source: Source, line: int, error: BaseException | str) -> SourceRow:
    """Return the row that stands for all that cannot be read from ``line`` on."""
    problem = Problem(Reason.DAMAGED_FILE, f"nothing can be read from here on ({one_line(error)})")
    return SourceRow(source.name, line, problem, str)


def configured(values: Mapping[str, Any], config: RawPoolConfig) -> dict[str, Any]:
    """Return values by field (one of ``FIELDS``) under the configured column names, without those configured away."""
    return {column: values[field] for field, column in columns_of(config).items() if field in values}


def columns_of(config: RawPoolConfig) -> dict[str, str]:
    """Return the names of the columns that the configuration asks for, by field (one of ``FIELDS``)."""
    columns = {field: getattr(config, f"{field}_column") for field in FIELDS}
    return {field: column for field, column in columns.items() if column is not None}


def misnamed_options(columns: Collection[str], config: RawPoolConfig) -> str | None:
    """Return the name under which options stand where there is no configured column of options, if any.

    Overlooked, they would turn a question of choice into an open one whose answer is a letter.
    """
    if config.options_column is None or config.options_column in columns:
        return None
    return next((name for name in _OPTION_COLUMNS if name in columns), None)


def find_columns(columns: Collection[str], config: RawPoolConfig, path: Path | str) -> list[str]:
    """Return those columns of a source that are configured; raises SourceError if a configured one is not there.

    The question's column must be there; the others may be absent while the configuration names their defaults.
    Options that are merely called otherwise are refused, see ``misnamed_options``.
    """
    wanted = columns_of(config)
    for name, column in wanted.items():
        if column in columns:
            continue
        if name == "question" or column != RawPoolConfig.model_fields[f"{name}_column"].default:
            raise SourceError(_absent(column, f"{name}_column", columns, path))
        if name == "options" and (found := misnamed_options(columns, config)):
            raise SourceError(
                f"{path} has a column {found!r} but no {column!r}: set raw_pool.options_column={found}, or "
                f"raw_pool.format=sciknoweval, or raw_pool.options_column=null to read open questions"
            )
    return [column for column in columns if column in wanted.values()]


def _absent(column: str, field: str, columns: Collection[str], path: Path | str) -> str:
    shown = ", ".join(repr(name) for name in list(columns)[:N_COLUMNS_SHOWN]) or "none"
    return (
        f"{path} has no column {column!r}{suggest(column, columns) or ';'} It has {shown}; "
        f"set raw_pool.{field} to one of them (held-out files have the pool's columns)"
    )
