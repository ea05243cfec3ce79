"""Records of attempts to make artifacts: ``ledger/<stage>/<fingerprint>/<attempt>.json`` beside the store.

An attempt has a file of its own, so attempts at once do not meet. It is brought up to date every few seconds and locked
meanwhile, so one that was killed is known for what it is, and but for its last seconds for what it cost. A record that
cannot be written or read is said in one line and fails nothing.
"""

import fcntl
import logging
import os
import secrets
from collections.abc import Iterable
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import cache
from io import FileIO
from pathlib import Path
from threading import Event, Thread
from typing import Final, Literal, Self

from pydantic import AwareDatetime

from pipeline.ledger.meter import metered
from pipeline.ledger.usage import Cost, Usage

UPDATE_SECONDS: Final = 2.0
"""Between updates of a record: what a killed attempt cost in its last seconds is lost; own choice."""
_BYTES: Final = 1023
"""Of a record, filled up with blanks: written in one go, a shorter one leaves nothing of a longer one."""

_logger = logging.getLogger(__name__)


class Attempt(Cost):
    """An attempt to make a stage's artifacts, and what it cost."""

    stage: str
    """Stage."""
    objective: str | None
    """What the adapter is trained for, that is made or was asked; null without an adapter."""
    fingerprint: str
    """Fingerprint of the artifact."""
    run: str
    """Run that made the attempt."""
    started: AwareDatetime
    """When it began (UTC)."""
    state: Literal["running", "done", "failed", "killed"] = "running"
    """How far it is; ``failed`` where an error or an interrupt ended it."""


class Recording:
    """Keeps the record of an attempt while a block runs."""

    def __init__(self, ledger: Path, stage: str, fingerprint: str, objective: str | None, run: str) -> None:
        """Keep it under the folder ``ledger``."""
        self._folder = ledger / stage / fingerprint
        self._stack, self._ended = ExitStack(), Event()
        self.attempt = Attempt(
            stage=stage, fingerprint=fingerprint, objective=objective, run=run, started=datetime.now(UTC)
        )
        """The attempt as it was recorded last."""

    def __enter__(self) -> Self:
        self._usage = Usage(self._stack.enter_context(metered()))
        self._file = self._create()
        self._clock = Thread(target=self._tick, daemon=True)
        self._clock.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._ended.set()
        self._clock.join()
        self._stack.close()
        self._update("done" if kind is None else "failed")
        if self._file is not None:
            self._file.close()

    def _create(self) -> FileIO | None:
        path = self._folder / f"{secrets.token_hex(8)}.json"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            file = FileIO(unfinished := path.with_suffix(".part"), "x")
            fcntl.flock(file, fcntl.LOCK_EX)
            self._write(file)
            os.rename(unfinished, path)
        except OSError as error:
            self._say(error)
            return None
        return file

    def _tick(self) -> None:
        while not self._ended.wait(UPDATE_SECONDS):
            self._update("running")

    def _update(self, state: str) -> None:
        self.attempt = self.attempt.model_copy(update={**self._usage.cost().model_dump(), "state": state})
        if self._file is not None:
            try:
                self._write(self._file)
            except OSError as error:
                self._say(error)
                self._file.close()
                self._file = None

    def _write(self, file: FileIO) -> None:
        os.pwrite(file.fileno(), f"{self.attempt.model_dump_json():<{_BYTES}}\n".encode(), 0)

    def _say(self, error: OSError) -> None:
        _logger.warning("what '%s' costs is not recorded: %s (%s)", self.attempt.stage, self._folder, error.strerror)


def read_attempts(folders: Iterable[Path]) -> list[Attempt]:
    """Return the attempts that are recorded in folders, the earliest first; one that cannot be read is left out."""
    attempts = []
    for path in (path for folder in folders for path in folder.glob("*.json")):
        try:
            attempts.append(_read(path))
        except FileNotFoundError:  # removed meanwhile
            continue
        except (OSError, ValueError):
            _say_damaged(path)
    return sorted(attempts, key=lambda attempt: attempt.started)


def _read(path: Path) -> Attempt:
    with path.open("rb") as file:
        attempt = Attempt.model_validate_json(file.read())
        if attempt.state != "running":
            return attempt
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return attempt
    return attempt.model_copy(update={"state": "killed"})


@cache
def _say_damaged(path: Path) -> None:
    _logger.warning("%s cannot be read and is left out of the ledger: remove it", path)
