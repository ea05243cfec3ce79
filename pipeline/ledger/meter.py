"""Counting tokens where a model runs: whoever runs one says so, and whoever has opened a meter gets to know.

What a stage imports counts among what its result depends on, though no result depends on a count: so this file does no
more than count. Padding is not counted. Pinned by ``tests/ledger``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Meter:
    """Counts, as ``pipeline.ledger.usage.Cost`` explains them."""

    read_tokens: int = 0
    generated_tokens: int = 0
    trained_tokens: int = 0
    processes: list[Path] = field(default_factory=list)
    """Folders in which processes that were started leave their own costs."""


_METER: ContextVar[Meter | None] = ContextVar("meter", default=None)


@contextmanager
def metered() -> Iterator[Meter]:
    """Yield a meter of what is counted within the block."""
    meter = Meter()
    token = _METER.set(meter)
    try:
        yield meter
    finally:
        _METER.reset(token)


def count_tokens(read: int = 0, generated: int = 0, trained: int = 0) -> None:
    """Count tokens; without a meter nothing happens."""
    if meter := _METER.get():
        meter.read_tokens += read
        meter.generated_tokens += generated
        meter.trained_tokens += trained


def expect_costs(folder: Path) -> None:
    """Have count what a process is about to leave in a folder (``usage.keep_cost``); an earlier one's is removed."""
    for left in folder.glob("cost-*.json"):
        left.unlink()
    if meter := _METER.get():
        meter.processes.append(folder)
