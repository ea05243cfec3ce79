"""Lines of a file as bytes, with a bound on their length."""

import codecs
from collections.abc import Iterator, Sequence
from typing import IO, Any, NamedTuple

from pipeline.pool.files import StoredBytes, decompress
from pipeline.pool.source import Problem, Reason, Source

MAX_LINE_BYTES = 16 * 2**20
"""Longest line that is read; far above any question, far below memory."""
CARRIAGE_RETURN = "a carriage return within a line: end the lines of the file with a line feed"
"""What is wrong with a file of another line end, which is one long line."""
PREFIX_BYTES = 1_000
"""What is kept of a longer line, for people to recognise it by."""


class Line(NamedTuple):
    """One physical line."""

    number: int
    """From 1."""
    data: bytes
    """Content with its line end, or the first bytes of an overlong line."""
    overlong: bool = False
    """Whether the line exceeds ``MAX_LINE_BYTES``."""
    damage: BaseException | None = None
    """Why the file cannot be read from this line on."""

    @property
    def text(self) -> str:
        """The line, undecodable bytes as lone surrogates: they spoil the value that they stand in, not the line."""
        return self.data.decode("utf-8", "surrogateescape")

    def show(self) -> str:
        """Return the line without its end, undecodable bytes as backslash escapes."""
        return self.data.rstrip(b"\r\n").decode("utf-8", "backslashreplace")

    @property
    def problem(self) -> Problem | None:
        """What is wrong with the line as text, if anything."""
        if self.overlong:
            return Problem(Reason.LINE_TOO_LONG, f"the line is longer than {MAX_LINE_BYTES:,} bytes")
        try:
            self.data.decode("utf-8")
        except UnicodeDecodeError as error:
            return Problem(Reason.INVALID_UTF8, f"byte {error.start + 1} of line {self.number} is not UTF-8")
        return None


def read_lines(source: Source) -> Iterator[Line]:
    """Yield the lines of a file without a leading byte order mark, never holding more than one line's limit.

    When reading fails on the way, the last line is empty and says why. Raises OSError when there is no such file.
    """
    number = 0
    with source.open() as file:
        try:
            stored = StoredBytes(file)
            for number, (data, overlong) in enumerate(_split(decompress(source.name, stored)), start=1):
                yield Line(number, data.removeprefix(codecs.BOM_UTF8) if number == 1 else data, overlong)
            if not stored.ended:
                raise EOFError("the bytes after a compressed stream begin no further one")
        except Exception as error:  # noqa: BLE001  # each file system and decompressor has errors of its own
            yield Line(number + 1, b"", damage=error)


def _split(file: IO[bytes]) -> Iterator[tuple[bytes, bool]]:
    while data := file.readline(MAX_LINE_BYTES + 1):
        overlong = len(data) > MAX_LINE_BYTES and not data.endswith(b"\n")
        if overlong:
            data, rest = data[:PREFIX_BYTES], data
            while rest and not rest.endswith(b"\n"):
                rest = file.readline(MAX_LINE_BYTES)
        yield data, overlong


def explain(parsed: dict[str, Any] | Problem, lines: Sequence[Line]) -> dict[str, Any] | Problem:
    """Return the outcome of parsing ``lines``, or what is wrong with them as text if that explains a failure.

    An overlong line is always refused, even if its beginning makes sense.
    """
    if isinstance(parsed, Problem) or any(line.overlong for line in lines):
        return next(filter(None, (line.problem for line in lines)), parsed)
    return parsed
