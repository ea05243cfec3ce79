"""Holding a folder against other processes, for as long as this one lives."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def held(folder: Path) -> Iterator[bool]:
    """Hold a folder that need not be there; yields false at once where another living process has it."""
    path = folder.with_name(f".{folder.name.strip('.')}.lock")
    while True:
        with path.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            if not os.fstat(lock.fileno()).st_nlink:
                continue  # who held it has removed it since it was opened here
            try:
                yield True
            finally:
                path.unlink(missing_ok=True)
            return
