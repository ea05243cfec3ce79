"""Progress of a training run: to Dagster where it started the process, else one line at a time to stderr.

Results travel through files (``training.run``) and configuration comes from the job file; Dagster Pipes carries
only what is lost without harm: log lines and current figures. No other module imports ``dagster_pipes``.
"""

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dagster_pipes import PipesContext, PipesEnvVarParamsLoader, open_dagster_pipes
from transformers import TrainerCallback

from pipeline.errors import TrainingError
from training.distributed import rank

_LINES_PER_RUN = 20


class Reporter:
    """Says how a run is going."""

    def __init__(self, pipes: PipesContext | None) -> None:
        self._pipes = pipes

    def line(self, text: str) -> None:
        """Report one line for people."""
        if self._pipes is None:
            sys.stderr.write(f"{text}\n")
        else:
            self._pipes.log.info(text)

    def warning(self, text: str) -> None:
        """Report one line that people should not miss."""
        if self._pipes is None:
            sys.stderr.write(f"warning: {text}\n")
        else:
            self._pipes.log.warning(text)

    def metrics(self, values: dict[str, float]) -> None:
        """Report figures to Dagster as a custom message; without Dagster they only stand in the lines."""
        if self._pipes is not None:
            self._pipes.report_custom_message(values)


class _Silent(Reporter):
    def line(self, text: str) -> None:
        pass


@contextmanager
def open_reporter() -> Iterator[Reporter]:
    """Yield a reporter, silent but in rank 0; an error that leaves the block is told to Dagster too."""
    if rank():
        yield _Silent(None)
        return
    if not PipesEnvVarParamsLoader().is_dagster_pipes_process():
        yield Reporter(None)
        return
    with open_dagster_pipes() as pipes:
        yield Reporter(pipes)


class ProgressCallback(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """Reports every twentieth part of a run and stops it when the loss is no longer a number."""

    def __init__(self, reporter: Reporter, section: str) -> None:
        """Report to ``reporter``; errors name settings of ``section``."""
        self._reporter = reporter
        self._section = section

    def on_log(self, _args: Any, state: Any, _control: Any, logs: dict[str, float], **_: Any) -> None:
        """Report the step; raises TrainingError when its loss or gradient is not finite."""
        if "loss" not in logs:  # the summary at the end of the run
            return
        step, n_steps, loss = state.global_step, state.max_steps, logs["loss"]
        if not math.isfinite(loss) or not math.isfinite(logs["grad_norm"]):
            raise TrainingError(
                f"step {step}: the loss is {loss} and the gradient norm {logs['grad_norm']}: "
                f"lower {self._section}.learning_rate"
            )
        if step == 1 or step == n_steps or step % math.ceil(n_steps / _LINES_PER_RUN) == 0:
            length = logs["completions/mean_length"]
            self._reporter.line(f"step {step}/{n_steps}  loss {loss:.4f} nats/token  response {length:.1f} tokens")
            self._reporter.metrics({"step": step, "loss": loss, "response_tokens": length})
