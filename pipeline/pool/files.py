"""Files on disk: which ones a path means, and their bytes, decompressed where the name says so."""

import bz2
import gzip
import io
import logging
import lzma
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from glob import has_magic
from itertools import takewhile
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.errors import SourceError
from pipeline.paths import resolve_path
from pipeline.pool.source import Source

_logger = logging.getLogger(__name__)
ENDINGS: Mapping[str, str] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
}
"""Format that a file's ending names."""
DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException)
"""What reading raises when the storage fails, or a compressed stream is cut off, corrupt, or none."""


class _Streams(io.RawIOBase):
    """Concatenated streams of bzip2 or xz; BZ2File and LZMAFile end without a word at bytes that begin no stream."""

    def __init__(self, path: Path, start: Callable[[], bz2.BZ2Decompressor | lzma.LZMADecompressor]) -> None:
        self._file, self._start, self._stream = path.open("rb"), start, start()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = b""
        while not data:
            packed = b"" if self._stream.eof or not self._stream.needs_input else self._read()
            if self._stream.eof:
                packed = self._next_stream()
                if not packed:
                    return 0
                self._stream = self._start()
            data = self._stream.decompress(packed, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()

    def _read(self) -> bytes:
        if packed := self._file.read(io.DEFAULT_BUFFER_SIZE):
            return packed
        raise EOFError("the compressed file ends before its stream does")

    def _next_stream(self) -> bytes:
        """Return the first bytes after a stream, zeros (padding in both formats' tools) left out; none at the end."""
        packed = self._stream.unused_data or self._file.read(io.DEFAULT_BUFFER_SIZE)
        while packed and not (rest := packed.lstrip(b"\0")):
            packed = self._file.read(io.DEFAULT_BUFFER_SIZE)
        return rest if packed else b""


def _open_bzip2(path: Path) -> io.BufferedIOBase:
    return io.BufferedReader(_Streams(path, bz2.BZ2Decompressor))


def _open_xz(path: Path) -> io.BufferedIOBase:
    return io.BufferedReader(_Streams(path, partial(lzma.LZMADecompressor, lzma.FORMAT_XZ)))


def _open_zstd(path: Path) -> io.BufferedIOBase:
    return io.BufferedReader(pa.input_stream(str(path), compression="zstd"))


_DECOMPRESS: Mapping[str, Callable[[Path], io.BufferedIOBase]] = {
    ".gz": gzip.GzipFile,
    ".bz2": _open_bzip2,
    ".xz": _open_xz,
    ".zst": _open_zstd,
}


def open_bytes(path: Path) -> io.BufferedIOBase:
    """Open a file for reading its decompressed bytes; raises OSError when there is no such file."""
    opener = _DECOMPRESS.get(path.suffix.lower())
    return opener(path) if opener else path.open("rb")


def ending(path: Path) -> str:
    """Return the ending that names the format: in lower case, without that of a compression."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    while suffixes and suffixes[-1] in _DECOMPRESS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def find_files(given: str) -> list[Source]:
    """Return the files that a path means, in the order of their names.

    A folder means all files of known endings in and below it, hidden ones left out; a pattern (``*``, ``?``, ``[]``,
    ``**`` for any depth) all files that match. Links to folders are not followed. Raises SourceError when there
    is none.
    """
    path = resolve_path(given)
    if path.is_file():
        return [Source(_printable(path.name), path)]
    if path.is_dir():
        found = _inside(path, "**/*", lambda file: ending(file) in ENDINGS)
        missing = f"{path} is a folder without files ending in {', '.join(ENDINGS)}"
    elif has_magic(given):
        parts = Path(given).expanduser().parts
        fixed = list(takewhile(lambda part: not has_magic(part), parts))
        path = resolve_path(str(Path(*fixed)))
        found = _inside(path, str(Path(*parts[len(fixed) :])), lambda _: True)
        missing = f"no file matches {given}"
    else:
        found, missing = [], f"{path} is not an existing file"
    if not found:
        raise SourceError(f"{missing}: give a file, folder or pattern of files with questions")
    return [Source(_printable(file.relative_to(path).as_posix()), file) for file in found]


def _inside(folder: Path, pattern: str, wanted: Callable[[Path], bool]) -> list[Path]:
    """Return the wanted files in the order of their names, and log that others are left out."""
    seen = [file for file in sorted(folder.glob(pattern)) if not _is_hidden(file.relative_to(folder))]
    found = [file for file in seen if file.is_file() and wanted(file)]
    left_out = sorted(set(seen) - set(found) - {file for file in seen if file.is_dir() and not file.is_symlink()})
    if left_out:
        message = "%s: left out %d files of other endings, links to folders and broken links, the first '%s'"
        _logger.warning(message, folder, len(left_out), _printable(str(left_out[0].relative_to(folder))))
    return found


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _printable(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()
