"""Running the training process from the command line; under Dagster, Pipes does."""

import subprocess
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from pipeline.errors import TrainingError

_SECONDS_TO_END: Final = 10.0
"""For an interrupted process, before it is killed; own choice: an optimizer step on a GPU takes less."""


def run_process(command: Sequence[str]) -> None:
    """Run a command to its end; raises TrainingError when it fails. It shares this process's standard streams.

    An interrupt from the terminal reaches the process as well, being in the same group, and here ends it for sure.
    """
    with subprocess.Popen(command) as process:  # noqa: S603  our own command
        try:
            code = process.wait()
        except KeyboardInterrupt:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_SECONDS_TO_END)
            raise
        finally:
            process.kill()  # does nothing to a process that has ended
            process.wait()
    if code:
        raise TrainingError(f"the training process ended with code {code}: its last lines above say why")
