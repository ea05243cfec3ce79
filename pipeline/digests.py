"""Digests of values and files."""

import hashlib
import json
import os
from pathlib import Path
from typing import Final

from pipeline.paths import PROJECT_ROOT

NOTES: Final = PROJECT_ROOT / "data" / "digests"
"""What large files had as digest when they were last read."""
_LARGE: Final = 2**24
"""Smaller files (bytes) are read each time, in milliseconds."""


def digest_json(value: object) -> str:
    """Return the SHA-256 of a JSON value in canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_unchanged(path: Path) -> str:
    """Return the SHA-256 of a file; a large one is read again only when its size or times differ."""
    status = path.stat()
    if status.st_size < _LARGE:
        return digest_file(path)
    stamp = [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    note = NOTES / f"{hashlib.sha256(str(path.resolve()).encode()).hexdigest()}.json"
    try:
        known = json.loads(note.read_text(encoding="utf-8"))
        if known["stamp"] == stamp:
            return str(known["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no note, or a damaged one
    digest = digest_file(path)
    unfinished = note.with_suffix(f".{os.getpid()}.part")
    try:
        NOTES.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(json.dumps({"stamp": stamp, "digest": digest}), encoding="utf-8")
        os.replace(unfinished, note)
    except OSError:
        pass  # a folder that cannot be written only costs time
    return digest
