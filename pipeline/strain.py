"""How far a vital has come on its way to a limit: 0 where it began, 1 at the limit.

What ends a training that collapses (``training.guard``) and what keeps a model from being promoted
(``pipeline.rounds``) are measured alike. A value is a number, or an array of bootstrap draws. Pinned by
``tests/training/test_guard.py`` and ``tests/rounds/test_drift.py``.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

Strain: TypeAlias = Callable[[Any, Any, float], Any]
"""Of where a vital began, where it is now, and the setting that the limit follows from."""


def by_factor(first: Any, last: Any, factor: float) -> Any:
    """Return the strain of a vital that may grow or shrink by a factor; none where it began at nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        strain = np.abs(np.log(np.divide(last, first))) / np.log(factor)
    return np.where(np.greater(first, 0), strain, 0.0)[()]


def by_rise(first: Any, last: Any, rise: float) -> Any:
    """Return the strain of a vital that may rise by so much."""
    return (last - first) / rise


def by_fall(first: Any, last: Any, fall: float) -> Any:
    """Return the strain of a vital that may fall by so much."""
    return (first - last) / fall


def by_floor(first: Any, last: Any, floor: float) -> Any:
    """Return the strain of a vital of which a share must be left; none where it began at nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        strain = (1 - np.divide(last, first)) / (1 - floor)
    return np.where(np.greater(first, 0), strain, 0.0)[()]


def by_itself(_first: Any, last: Any, most: float) -> Any:
    """Return the strain of a vital that is itself a distance from where it began."""
    return last / most
