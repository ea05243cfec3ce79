"""Files on disk and elsewhere: which ones a path means, and their bytes, decompressed where the name says so."""

import bz2
import gzip
import io
import logging
import lzma
from collections.abc import Callable, Mapping
from glob import has_magic
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import IO, Any

import pyarrow as pa
from fsspec.core import url_to_fs

from pipeline.errors import SourceError, one_line
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
_DECOMPRESS: Mapping[str, Callable[[Any], Any]] = {
    ".gz": lambda file: gzip.GzipFile(fileobj=file, mode="rb"),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".zst": lambda file: io.BufferedReader(pa.CompressedInputStream(file, "zstd")),
}
"""The codecs that fsspec takes by default, and no faster ones where these are installed; fsspec has none for zstd."""

_HUB_HASH = "blob_id"
"""What the hub tells of a file, and no other file system: Git's hash of its content."""


class StoredBytes(io.RawIOBase):
    """The bytes of a file as they are stored."""

    ended = False
    """Whether they were read to their end: BZ2File and LZMAFile stop without a word at bytes that begin no stream."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def readable(self) -> bool:
        """Return True: what can be read needs this."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into ``buffer``; returns the number of bytes, 0 at the end."""
        n_bytes: int = self._file.readinto(buffer)  # type: ignore[attr-defined]  # all binary files have it
        self.ended = not n_bytes
        return n_bytes


def decompress(name: str, stored: StoredBytes) -> IO[bytes]:
    """Return the bytes of a file, decompressed where its name says so."""
    file: IO[bytes] = _DECOMPRESS.get(Path(name).suffix.lower(), io.BufferedReader)(stored)
    return file


def ending(path: str) -> str:
    """Return the ending that names the format: in lower case, without that of a compression or a URL's query."""
    suffixes = [suffix.lower() for suffix in Path(_without_query(path)).suffixes]
    while suffixes and suffixes[-1] in _DECOMPRESS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def find_files(given: str) -> list[Source]:
    """Return the files that a path or URL means, in the order of their names.

    A folder on disk means all files of known endings in and below it, hidden ones left out; a pattern (``*``, ``?``,
    ``[]``, ``**`` for any depth) all files that match. Links to folders are not followed, nor are
    links to files outside the folder, which whoever fills it could point anywhere. Raises SourceError when there
    is none, or none that can be reached.
    """
    if "://" in given:
        return _find_remote(given)
    path = resolve_path(given)
    if path.is_file():
        return [Source(_printable(path.name), path)]
    if path.is_dir():
        found = _inside(path, "**/*", lambda file: ending(file.name) in ENDINGS)
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


def _find_remote(url: str) -> list[Source]:
    try:
        file_system, path = url_to_fs(url)
        if file_system.isfile(path):
            return [Source(_without_query(url).rpartition("/")[2], url, file_system.info(path).get(_HUB_HASH))]
        matching = file_system.glob(path, detail=True)
    except Exception as error:  # each file system has errors of its own
        message = f"{url} cannot be opened ({one_line(error)}): check the address, or give a file on disk"
        raise SourceError(message) from error
    found = sorted(file for file, details in matching.items() if details["type"] == "file")
    if not found:
        raise SourceError(f"no file at {url}, or none that can be reached: give a file or pattern of files")
    folder = PurePosixPath(*takewhile(lambda part: not has_magic(part), PurePosixPath(path).parts))
    names = [PurePosixPath(file).relative_to(folder).as_posix() for file in found]
    return [
        Source(name, file_system.unstrip_protocol(file), matching[file].get(_HUB_HASH))
        for name, file in zip(names, found, strict=True)
    ]


def _without_query(path: str) -> str:
    return path.partition("?")[0] if "://" in path else path


def _inside(folder: Path, pattern: str, wanted: Callable[[Path], bool]) -> list[Path]:
    """Return the wanted files in the order of their names, and log that others are left out."""
    seen = [file for file in sorted(folder.glob(pattern)) if not _is_hidden(file.relative_to(folder))]
    real = folder.resolve()
    found = [file for file in seen if file.is_file() and wanted(file) and file.resolve().is_relative_to(real)]
    left_out = sorted(set(seen) - set(found) - {file for file in seen if file.is_dir() and not file.is_symlink()})
    if left_out:
        message = "%s: left out %d files of other endings, links to folders, out of it or broken, the first '%s'"
        _logger.warning(message, folder, len(left_out), _printable(str(left_out[0].relative_to(folder))))
    return found


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _printable(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()
