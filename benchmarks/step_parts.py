"""What the steps of a trainer are spent on: processor and wall seconds, part by part."""

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
from transformers import TrainerCallback


class Parts(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """Processor and wall seconds of the parts of optimizer steps, each without the parts within it."""

    def __init__(self, trainer: Any) -> None:
        """Watch a trainer; to be made after its other callbacks."""
        self.seconds: dict[str, Any] = defaultdict(lambda: np.zeros(2))
        self.times: dict[str, int] = defaultdict(int)
        self.lengths: list[float] = []
        self._now, self._since = "outside", self._clocks()
        trainer.add_callback(self)

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Start a step."""
        self._enter("rest")
        self.times["rest"] += 1

    def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
        """End a step, which is logged last."""
        self._enter("outside")
        self.lengths += [logs["completions/mean_length"]] if "loss" in logs else []

    def around(self, owner: Any, attribute: str, part: Callable[[], str]) -> None:
        """Count what a function or method spends for the part that ``part`` names when it is called."""
        function = getattr(owner, attribute)

        def timed(*given: Any, **named: Any) -> Any:
            outer = self._enter(here := part())
            self.times[here] += 1
            try:
                return function(*given, **named)
            finally:
                self._enter(outer)

        setattr(owner, attribute, timed)

    def step(self) -> float:
        """Return the processor seconds of all steps so far."""
        return sum(float(spent[0]) for part, spent in self.seconds.items() if part != "outside")

    def _enter(self, part: str) -> str:
        left, now = self._now, self._clocks()
        self.seconds[left] += now - self._since
        self._now, self._since = part, now
        return left

    @staticmethod
    def _clocks() -> Any:
        return np.array([time.process_time(), time.perf_counter()])
