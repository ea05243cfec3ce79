"""Look after a store: which runs there are, what they hold and what that cost, and what no run refers to.

An artifact that several runs share counts for each of them. ``prune`` removes what no run shows and nobody is writing;
a run is removed by its name, its artifacts by the next ``prune``.
"""

import argparse
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import polars as pl

from pipeline.errors import CurationError
from pipeline.ledger.table import ledger_of, show_ledger
from pipeline.paths import PROJECT_ROOT
from pipeline.store.artifact import find_intact
from pipeline.store.lock import held
from pipeline.store.part import discard
from pipeline.store.store import Store

_YOUNG: Final = 3600.0
"""Seconds for which an artifact without a run is left alone: its run may be about to show it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: 0 done, 1 something is damaged, 2 a user error."""
    options = _parser().parse_args(arguments)
    store = Store(PROJECT_ROOT / options.store, {})
    try:
        if not store.artifacts.is_dir():
            raise CurationError(f"{store.root} holds no store: name the folder that holds it with --store")
        return int(options.action(store, options))
    except OSError as error:
        sys.stderr.write(f"error: {store.unwritable(error)}\n")
        return 2
    except CurationError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2


def list_runs(store: Store, _options: argparse.Namespace) -> int:
    """Print the runs with their artifacts' size, and what none of them refers to."""
    for run, folders in shown(store).items():
        _say_size(run, folders)
    _say_size("(no run)", unreferenced(store))
    return 0


def ledger(store: Store, options: argparse.Namespace) -> int:
    """Print what the artifacts of a run, or of every run, cost to make: all attempts at them, whatever run made them.

    In parentheses stand the run's attempts at what it does not show: at other settings, or that did not finish.
    """
    runs = [options.run] if options.run else list(shown(store))
    for name in runs:
        run = store.run(name)
        if not run.folder.is_dir():
            raise CurationError(f"there is no run '{name}' in {store.runs}: 'list' shows those that there are")
        rows = ledger_of(run)
        if options.json:
            sys.stdout.write(rows.write_ndjson())
        else:
            totals = {
                "all that the run shows": pl.col("shown"),
                "(all that it does not)": ~pl.col("shown"),
                "spent by the run itself": pl.col("run") == name,
            }
            _say(f"{name}\n{show_ledger(rows, totals)}\n" if rows.height else f"{name}\nno attempt is recorded\n")
    return 0


def prune(store: Store, options: argparse.Namespace) -> int:
    """Remove what no run refers to, what killed runs have left to go on with included."""
    oldest, n_young = time.time() - (0.0 if options.young else _YOUNG), 0
    for folder in unreferenced(store):
        with held(folder) as free, suppress(FileNotFoundError):  # its writer may finish or remove it before this
            if free and _youngest(folder) <= oldest:
                discard(folder)
                _say(f"removed {folder.relative_to(store.root)}")
            else:
                n_young += 1
    for folder in store.ledger.glob("*/*"):  # records go with what they are of
        parts = (store.artifacts / folder.parent.name).glob(f"*{folder.name}*")
        with suppress(FileNotFoundError):
            if not any(parts) and _youngest(folder) <= oldest:
                discard(folder)
    if n_young:
        _say(f"left {n_young} that are being written or less than an hour old (--young removes the latter)")
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
    for folder in sorted(store.artifacts.glob("*/[!.]*")):
        if not find_intact(folder, {}, thorough=True) and folder.exists():
            n_damaged += 1
            _say(f"damaged {folder.relative_to(store.root)}: materialize '{folder.parent.name}' again")
    _say(f"{n_damaged} damaged artifacts")
    return 1 if n_damaged else 0


def shown(store: Store) -> dict[str, list[Path]]:
    """Return the artifacts' folders that each run shows."""
    runs = sorted(folder for folder in store.runs.glob("*") if folder.is_dir())
    return {run.name: [link.resolve() for link in run.glob("[!.]*") if link.is_symlink()] for run in runs}


def unreferenced(store: Store) -> list[Path]:
    """Return folders of the store that no run shows, unfinished ones included."""
    used = {folder for folders in shown(store).values() for folder in folders}
    everything = (path for path in store.artifacts.glob("*/*") if path.is_dir())
    return sorted(path for path in everything if path.resolve() not in used)


def _youngest(folder: Path) -> float:
    """Return when something in a folder was last changed."""
    return max([folder.stat().st_mtime, *(status.st_mtime for status in _statuses(folder))])


def _statuses(folder: Path) -> Iterator[os.stat_result]:
    """Yield the status of each file in a folder; its writer may be at work."""
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                yield Path(parent, name).stat()


def _say_size(name: str, folders: Sequence[Path]) -> None:
    n_bytes = sum(status.st_size for folder in folders for status in _statuses(folder))
    _say(f"{name:<24} {len(folders):>3} artifacts {n_bytes / 1e6:>10,.1f} MB")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipeline.store", description=__doc__)
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    actions_by_name = {"list": list_runs, "ledger": ledger, "prune": prune, "remove": remove, "verify": verify}
    for name, action in actions_by_name.items():
        described = actions.add_parser(name, help=(action.__doc__ or "").splitlines()[0], description=action.__doc__)
        described.set_defaults(action=action)
        described.add_argument("--store", default="data", help="folder that holds store and runs (%(default)s)")
        if name == "remove":
            described.add_argument("run", help="name of the run")
        if name == "ledger":
            described.add_argument("--run", help="name of the run (all)")
            described.add_argument("--json", action="store_true", help="as JSON, an attempt a line")
        if name == "prune":
            described.add_argument("--young", action="store_true", help="also what is less than an hour old")
    return parser


if __name__ == "__main__":
    sys.exit(main())
