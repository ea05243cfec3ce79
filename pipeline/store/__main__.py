"""Look after a store: which runs there are, what they hold, and what no run refers to.

An artifact that several runs share counts for each of them. ``prune`` removes what no run shows and nobody is writing;
a run is removed by its name, its artifacts by the next ``prune``.
"""

import argparse
import fcntl
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from pipeline.errors import CurationError
from pipeline.paths import PROJECT_ROOT
from pipeline.stages import open_store
from pipeline.store.artifact import Artifact
from pipeline.store.store import Store

_YOUNG: Final = 3600.0
"""Seconds for which an artifact without a run is left alone: its run may be about to show it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: 0 done, 1 something is damaged, 2 a user error."""
    options = _parser().parse_args(arguments)
    store = open_store(PROJECT_ROOT / options.store)
    try:
        return int(options.action(store, options))
    except CurationError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2


def list_runs(store: Store, _options: argparse.Namespace) -> int:
    """Print the runs with their artifacts' size, and what none of them refers to."""
    for run, artifacts in sorted(shown(store).items()):
        own = sum(artifact.manifest.n_bytes for artifact in artifacts)
        _say(f"{run:<24} {len(artifacts):>3} artifacts {_size(own):>10}")
    left = unreferenced(store)
    _say(f"{'(no run)':<24} {len(left):>3} artifacts {_size(sum(map(_n_bytes, left))):>10}")
    return 0


def prune(store: Store, options: argparse.Namespace) -> int:
    """Remove what no run refers to."""
    oldest = time.time() - (0.0 if options.young else _YOUNG)
    for folder in unreferenced(store):
        if folder.stat().st_mtime > oldest or not _remove_unless_written(folder):
            continue
        _say(f"removed {folder.relative_to(store.root)}")
    return 0


def remove(store: Store, options: argparse.Namespace) -> int:
    """Remove a run; its artifacts stay until ``prune``."""
    folder = store.run(options.run).folder
    if not folder.is_dir():
        raise CurationError(f"there is no run '{options.run}' in {store.runs}: 'list' shows those that there are")
    shutil.rmtree(folder)
    _say(f"removed run {options.run}")
    return 0


def verify(store: Store, _options: argparse.Namespace) -> int:
    """Read every file of every artifact and compare it with its digest."""
    n_damaged = 0
    for folder in _finished(store):
        try:
            intact = Artifact(folder, store.catalogue.get(folder.parent.name, {})).is_intact(thorough=True)
        except CurationError:
            intact = False
        if not intact:
            n_damaged += 1
            _say(f"damaged {folder.relative_to(store.root)}: materialize '{folder.parent.name}' again")
    _say(f"{n_damaged} damaged artifacts")
    return 1 if n_damaged else 0


def shown(store: Store) -> dict[str, list[Artifact]]:
    """Return the artifacts of every run."""
    names = [folder.name for folder in store.runs.glob("*") if folder.is_dir()]
    runs = {name: store.run(name) for name in names}
    return {name: [artifact for kind in store.catalogue if (artifact := run.find(kind))] for name, run in runs.items()}


def unreferenced(store: Store) -> list[Path]:
    """Return folders of the store that no run shows, unfinished ones included."""
    used = {link.resolve() for link in store.runs.glob("*/*") if link.is_symlink()}
    everything = (path for path in store.artifacts.glob("*/*") if path.is_dir())
    return sorted(path for path in everything if path.resolve() not in used)


def _finished(store: Store) -> Iterator[Path]:
    yield from sorted(store.artifacts.glob("*/[!.]*"))


def _remove_unless_written(folder: Path) -> bool:
    lock = folder.with_name(f".{folder.name.strip('.').split('.')[0]}.lock")
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        shutil.rmtree(folder)
        lock.unlink(missing_ok=True)
    return True


def _n_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.1f} MB"


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipeline.store", description=__doc__)
    parser.add_argument("--store", default="data", help="folder that holds store and runs (%(default)s)")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    for name, action in (("list", list_runs), ("prune", prune), ("remove", remove), ("verify", verify)):
        described = actions.add_parser(name, help=(action.__doc__ or "").splitlines()[0], description=action.__doc__)
        described.set_defaults(action=action)
        if name == "remove":
            described.add_argument("run", help="name of the run")
        if name == "prune":
            described.add_argument("--young", action="store_true", help="also what is less than an hour old")
    return parser


if __name__ == "__main__":
    sys.exit(main())
