"""Counting tokens where a model runs: whoever runs one says so, and whoever has opened a meter gets to know.

What a stage imports counts among what its result depends on, though no result depends on a count: so this file does no
more than count. Padding is not counted. Pinned by ``tests/ledger``.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.ledger.usage import Cost


@dataclass
class Meter:
    """Counts, as ``pipeline.ledger.usage.Cost`` explains them."""

    read_tokens: int = 0
    generated_tokens: int = 0
    trained_tokens: int = 0
    processes: list[Callable[[], Sequence["Cost"]]] = field(default_factory=list)
    """Return what processes that were started say that they cost (``usage.costs_of_process``)."""


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


def open_meter() -> Meter | None:
    """Return the meter that counts now, if there is one."""
    return _METER.get()


def count_tokens(read: int = 0, generated: int = 0, trained: int = 0) -> None:
    """Count tokens; without a meter nothing happens."""
    if meter := open_meter():
        meter.read_tokens += read
        meter.generated_tokens += generated
        meter.trained_tokens += trained
