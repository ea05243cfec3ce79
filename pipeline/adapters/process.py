"""Running a command of another program, such as the training process, so that nothing of it is left behind."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

from pipeline.adapters.job import END_WITH_INPUT
from pipeline.errors import TrainingError

_SECONDS_TO_END: Final = 10.0
"""For an interrupted process, before it is killed; own choice: an optimizer step on a GPU takes less."""


def run_process(command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
    """Run a command to its end; raises TrainingError when it fails. It shares this process's output.

    ``environment`` is added to this process's. The command has a process group of its own, so that an interrupt from
    the terminal reaches this process alone, which then ends the group. Where this process is killed instead, the
    command's standard input ends, and with it a command that heeds ``END_WITH_INPUT``: nothing of it is left behind.
    """
    added = {END_WITH_INPUT: "1", **(environment or {})}
    with subprocess.Popen(  # noqa: S603  our own command
        command, env={**os.environ, **added}, stdin=subprocess.PIPE, process_group=0
    ) as process:
        try:
            code = process.wait()
        except BaseException:  # Dagster's interrupts are none of Python's
            _end_group(process)
            raise
    if code:
        raise TrainingError(f"the training process ended with code {code}: its last lines above say why")


def _end_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_SECONDS_TO_END)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
