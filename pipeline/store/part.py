"""Hidden folders in which artifacts grow, one process in each.

An artifact has as many of them as processes write it at once: ``.<fingerprint>.0.part`` and so on. Whoever comes takes
the first that nobody holds, with the shards that a dead process has left in it.
"""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from pipeline.store.artifact import Tables, find_intact
from pipeline.store.lock import held


@contextmanager
def part_of(final: Path) -> Iterator[Path]:
    """Yield a folder to write in; what the block leaves there in the first one is there again for the next block."""
    final.parent.mkdir(parents=True, exist_ok=True)
    for number in count():
        part = final.with_name(f".{final.name}.{number}.part")
        with held(part) as free:
            if not free:
                continue
            part.mkdir(exist_ok=True)
            _tidy(part)
            try:
                yield part
            finally:
                if part.is_dir():
                    _tidy(part)
                    if number or not any(path.is_file() for path in part.rglob("*")):
                        shutil.rmtree(part)
            return


def put(part: Path, final: Path, tables: Tables) -> None:
    """Make a folder that is complete the artifact, unless an intact one is there already: its readers keep it."""
    with final.with_name(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # for the moment of a renaming
        if find_intact(final, tables):
            shutil.rmtree(part)
            return
        discard(final)
        os.rename(part, final)


def discard(folder: Path) -> None:
    """Remove a folder, if it is there; nobody sees a half of it."""
    removed = folder.with_name(f".{folder.name.strip('.')}.{secrets.token_hex(4)}.old")
    try:
        os.rename(folder, removed)
    except FileNotFoundError:
        return
    shutil.rmtree(removed, ignore_errors=True)  # the rest, if any, is left to be pruned


def clear_scratch(part: Path) -> None:
    """Remove hidden files and folders, which are not part of an artifact."""
    for path in part.glob(".*"):
        _remove(path)


def _tidy(part: Path) -> None:
    """Remove what an attempt that was cut off has left, but for its whole shards and hidden folders."""
    for path in [*part.iterdir(), *part.glob("*.parquet/*.part")]:
        if path.is_file() or not (path.suffix == ".parquet" or path.name.startswith(".")):
            _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
