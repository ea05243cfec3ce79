"""Running a command of another program, such as the training process, so that nothing of it is left behind."""

import os
import signal
import subprocess
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from threading import Thread
from typing import Final

from pipeline.adapters.job import END_WITH_INPUT
from pipeline.errors import TrainingError, one_line

_SECONDS_TO_END: Final = 10.0
"""For an interrupted process, before it is killed; own choice: an optimizer step on a GPU takes less."""
_SECONDS_TO_READ: Final = 5.0
"""For what has been written when a process ends; more only where a process that left its group still writes."""
_N_LINES: Final = 5
"""Last lines that an error repeats."""
_OWN: Final = "error: "
"""How a line begins by which our own programs say why they end."""


class CrashError(TrainingError):
    """The training process ended without saying why the job cannot run: it may well do when it is run again."""


def run_process(command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
    """Run a command to its end; raises TrainingError, with its last lines, when it fails: CrashError for a crash.

    ``environment`` is added to this process's, whose output the command shares. The command has a process group of its
    own, so that an interrupt from the terminal reaches this process alone, which then ends the group. Where this
    process is killed instead, the command's standard input ends, and with it a command that heeds ``END_WITH_INPUT``,
    be it in another group by then: nothing of it is left behind.
    """
    added = {END_WITH_INPUT: "1", **(environment or {})}
    with subprocess.Popen(  # noqa: S603  our own command
        command,
        env={**os.environ, **added},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,  # a buffer's lock, held by who waits for more, would keep its file from being closed
        process_group=0,
    ) as process:
        lines: deque[str] = deque(maxlen=_N_LINES)
        reader = Thread(target=_pass_on, args=(process.stderr, lines), daemon=True)
        reader.start()
        try:
            code = process.wait()
        except BaseException:  # Dagster's interrupts are none of Python's
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_SECONDS_TO_END)
            raise
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with what it started itself
            if process.stdin:
                process.stdin.close()
            reader.join(_SECONDS_TO_READ)
    if code:
        raise _failure(code, list(lines))


def _pass_on(source: Iterable[bytes], lines: deque[str]) -> None:
    """Write what a process says to this process's own standard error at once, and keep its last lines."""
    with suppress(ValueError):  # closed by who waits no longer
        for line in source:
            with suppress(OSError):  # nobody reads it any more
                os.write(2, line)
            if line.strip():
                lines.append(one_line(line.decode(errors="replace")))


def _failure(code: int, lines: Sequence[str]) -> TrainingError:
    if code == 2 and lines and lines[-1].startswith(_OWN):
        return TrainingError(lines[-1].removeprefix(_OWN))
    ended = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    hint = " (the system kills what takes more memory than there is)" if code == -signal.SIGKILL else ""
    said = f"its last lines: {' | '.join(lines)}" if lines else "it said nothing"
    return CrashError(f"the training process {ended}{hint}: {said}")
