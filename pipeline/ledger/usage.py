"""What a process has used since some moment: seconds, processors, GPUs, memory, and the tokens of its meter."""

import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from pipeline.ledger.meter import Meter, open_meter

_STATUS, _CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_KIB: Final = 1024


class Cost(BaseModel):
    """What something cost."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    seconds: float = 0.0
    """Seconds that passed."""
    processor_seconds: float = 0.0
    """Seconds on a processor, of all threads and of the processes that were started."""
    gpu_seconds: float = 0.0
    """Seconds for which GPUs held tensors, busy or not; two GPUs at a time count twice."""
    peak_memory: int | None = None
    """Largest memory of the processes (bytes), libraries included; null where the system cannot tell this stretch of
    time from what was before."""
    peak_gpu_memory: int = 0
    """Largest memory that PyTorch allocated on one GPU (bytes)."""
    read_tokens: int = 0
    """Tokens in forward passes without a gradient, without padding: prompts before sampling, once for the samples that
    share one; responses that are scored; what a teacher reads."""
    generated_tokens: int = 0
    """Tokens sampled, end tokens included."""
    trained_tokens: int = 0
    """Tokens in forward passes that a backward pass follows, prompts included, without padding."""

    def __add__(self, other: "Cost") -> "Cost":
        """Return the cost of one after the other: of peaks the larger."""
        amounts = [name for name in Cost.model_fields if not name.startswith("peak_")]
        total = {name: getattr(self, name) + getattr(other, name) for name in amounts}
        peaks = [peak for peak in (self.peak_memory, other.peak_memory) if peak is not None]
        peak_gpu = max(self.peak_gpu_memory, other.peak_gpu_memory)
        return Cost(**total, peak_memory=max(peaks, default=None), peak_gpu_memory=peak_gpu)


class Usage:
    """What this process, and what it starts, uses from now on."""

    def __init__(self, meter: Meter) -> None:
        """Begin; what ``meter`` counts is part of the cost."""
        self._meter = meter
        self._started = time.monotonic()
        self._processor, self._children = _processor_seconds()
        self._forgot = _forget_peak()
        self._peak = _high_water()
        self._gpu = _gpu_memory(forget=True)

    def cost(self) -> Cost:
        """Return the cost up to now; may be asked for by another thread."""
        seconds, meter = time.monotonic() - self._started, self._meter
        others = [cost for costs in meter.processes for cost in costs()]
        processor, children = _processor_seconds()
        # A process counts for its parent when it has ended; before, it is known by its own account.
        children = max(children - self._children, sum(cost.processor_seconds for cost in others))
        peak = _high_water()
        own_peak = peak if self._forgot or peak > self._peak else None
        gpu = _gpu_memory()
        used = [peak for peak, before in zip(gpu, self._gpu or [0] * len(gpu), strict=True) if peak > before]
        return Cost(
            seconds=seconds,
            processor_seconds=processor - self._processor + children,
            gpu_seconds=seconds * len(used) + sum(cost.gpu_seconds for cost in others),
            peak_memory=own_peak and own_peak + sum(cost.peak_memory or 0 for cost in others),
            peak_gpu_memory=max([*used, *(cost.peak_gpu_memory for cost in others)], default=0),
            read_tokens=meter.read_tokens + sum(cost.read_tokens for cost in others),
            generated_tokens=meter.generated_tokens + sum(cost.generated_tokens for cost in others),
            trained_tokens=meter.trained_tokens + sum(cost.trained_tokens for cost in others),
        )


@contextmanager
def costs_of_process(folder: Path) -> Iterator[None]:
    """Have count what a process that the block starts keeps in a folder (``keep_cost``), while it runs and after it.

    What an earlier process has left there is removed.
    """
    for left in folder.glob("cost-*.json"):
        left.unlink()
    if (meter := open_meter()) is None:
        yield
        return
    number = len(meter.processes)
    meter.processes.append(partial(_kept, folder))
    try:
        yield
    finally:
        costs = _kept(folder)
        meter.processes[number] = lambda: costs  # the folder may go


def keep_cost(cost: Cost, folder: Path) -> None:
    """Leave this process's cost for the one that started it (``costs_of_process``)."""
    path = folder / f"cost-{os.environ.get('RANK', '0')}.json"  # torchrun's number of a process
    unfinished = path.with_suffix(".part")
    unfinished.write_text(cost.model_dump_json(), encoding="utf-8")
    unfinished.replace(path)


def _kept(folder: Path) -> list[Cost]:
    found = []
    for path in folder.glob("cost-*.json"):
        with suppress(OSError, ValueError):  # removed or damaged meanwhile: it is only known less well
            found.append(Cost.model_validate_json(path.read_bytes()))
    return found


def _processor_seconds() -> tuple[float, float]:
    """Return the processor seconds of this process, and of those that it started and that have ended."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime, children.ru_utime + children.ru_stime


def _forget_peak() -> bool:
    """Have the largest memory be told from now on; returns whether the system can."""
    try:
        _CLEAR_REFS.write_text("5")  # proc(5): resets VmHWM
    except OSError:
        return False
    return True


def _high_water() -> int:
    """Return the largest memory of this process (bytes)."""
    # Not ru_maxrss on Linux: a process inherits its parent's across fork and exec.
    with suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * _KIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else _KIB)


def _gpu_memory(forget: bool = False) -> list[int]:
    """Return the largest memory allocated on each GPU (bytes), none where PyTorch has not used any; imports nothing."""
    cuda: Any = sys.modules.get("torch.cuda")
    if not hasattr(cuda, "max_memory_allocated") or not cuda.is_initialized():  # another thread may be importing it
        return []
    devices = range(cuda.device_count())
    if forget:
        for device in devices:
            cuda.reset_peak_memory_stats(device)
    return [cuda.max_memory_allocated(device) for device in devices]
