"""Figures as functions of how often each question counts.

A measure takes counts ``w`` [B, n] of n questions and returns B values: a row of ones gives the figure itself, rows of
drawn counts its bootstrap. ``confidence`` [n] lies in [0, 1]; ``correct`` [n] is 0 or 1, or an expected value between
them, as for a tie of leading answers. Pinned by a kept library and by plain loops in
``tests/evaluation/test_measures.py``.
"""

from collections.abc import Callable, Mapping
from math import comb
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from pipeline.evaluation.calibration import N_BINS, Floats, bin_index, equal_mass_index

Measure: TypeAlias = Callable[[Floats], Floats]
FLOOR: Final = 1e-3
"""Least probability in a logarithm: what is surely wrong costs 6.9 nats, not infinitely many; own choice."""


class _Bins(NamedTuple):
    """Totals of each bin, all ``[B, J]``."""

    number: Floats
    sure: Floats
    right: Floats


def mean(values: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> Measure:
    """Return the mean of per-question values, or the ratio of two sums."""
    sums = np.asarray(values, dtype=np.float64)
    each = np.ones(len(sums)) if weight is None else np.asarray(weight, dtype=np.float64)
    return lambda w: _ratio(w @ sums, w @ each)


def pass_at(n_right: npt.ArrayLike, k: int, j: int) -> Measure:
    """Return the chance that one of j samples is right: 1 - C(k - c, j) / C(k, j), unbiased (arXiv 2107.03374, eq. 1).

    Args:
        n_right: Right ones, c, of each question's k samples.
        k: Samples per question.
        j: Samples looked at, at most k.
    """
    chance = [1 - comb(k - c, j) / comb(k, j) for c in range(k + 1)]
    return mean(np.array(chance)[np.asarray(n_right, dtype=np.int64)])


def calibration(confidence: Floats, correct: Floats) -> Callable[[Floats], Mapping[str, Floats]]:
    """Return every measure of how well a confidence matches outcomes, by its name.

    ``ece`` and ``ece_mass`` are mean distances of confidence and outcome over bins of equal width and of (nearly) equal
    numbers of questions; ``mce`` is the largest such distance of a bin of equal width. ``overconfidence`` is mean
    confidence - share right: above zero the model is surer than it should be. ``brier`` is reliability -
    resolution + uncertainty where a bin holds one confidence only, as with votes, and nearly so elsewhere (Murphy,
    1973). ``nll`` is in nats. ``aurc`` is the area under the curve of the share wrong among the surest.
    """
    bins = _binned(confidence, correct, bin_index(confidence))
    mass = _binned(confidence, correct, equal_mass_index(confidence))
    floored = np.clip(confidence, FLOOR, 1 - FLOOR)
    others = {
        "overconfidence": mean(confidence - correct),
        "brier": mean((confidence - correct) ** 2),
        "nll": mean(-correct * np.log(floored) - (1 - correct) * np.log(1 - floored)),
        "auroc": auroc(confidence, correct),
        "aurc": aurc(confidence, correct),
    }
    return lambda w: _of_bins(bins(w)) | {"ece_mass": _ece(mass(w))} | {name: of(w) for name, of in others.items()}


def _of_bins(bins: _Bins) -> dict[str, Floats]:
    gap, share = _ratio(np.abs(bins.sure - bins.right), bins.number), _ratio(bins.right, bins.number)
    rate = _ratio(bins.right.sum(1), bins.number.sum(1))
    return {
        "ece": _ece(bins),
        "mce": np.nan_to_num(gap).max(1),
        "reliability": _average(gap**2, bins.number),
        "resolution": _average((share - rate[:, None]) ** 2, bins.number),
        "uncertainty": rate * (1 - rate),
    }


def auroc(confidence: Floats, correct: Floats) -> Measure:
    """Return the chance that a right answer is surer than a wrong one, ties counting half; none with one kind only."""
    order, starts = _ranks(confidence)

    def measure(w: Floats) -> Floats:
        right, wrong = (np.add.reduceat((w * share)[:, order], starts, 1) for share in (correct, 1 - correct))
        below = wrong.cumsum(1) - wrong / 2
        return _ratio((right * below).sum(1), right.sum(1) * wrong.sum(1))

    return measure


def aurc(confidence: Floats, correct: Floats) -> Measure:
    """Return the mean, over coverages, of the share wrong among the surest (arXiv 1805.08206); ties enter together."""
    order, starts = _ranks(-confidence)

    def measure(w: Floats) -> Floats:
        every, wrong = (np.add.reduceat((w * share)[:, order], starts, 1) for share in (1.0, 1 - correct))
        risk = _ratio(wrong.cumsum(1), every.cumsum(1))
        return _average(risk, every)

    return measure


def _ranks(values: Floats) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the ascending order, and where in it each group of equal values begins."""
    order = np.argsort(values, kind="stable")
    return order, np.flatnonzero(np.diff(values[order], prepend=-np.inf))


def _binned(confidence: Floats, correct: Floats, bins: npt.NDArray[np.intp]) -> Callable[[Floats], _Bins]:
    member = np.zeros((len(bins), N_BINS))
    member[np.arange(len(bins)), bins] = 1
    columns = np.hstack([member, member * confidence[:, None], member * correct[:, None]])
    return lambda w: _Bins(*np.split(w @ columns, 3, axis=1))


def _ece(bins: _Bins) -> Floats:
    return _ratio(np.abs(bins.sure - bins.right).sum(1), bins.number.sum(1))


def _average(values: Floats, weights: Floats) -> Floats:
    """Return the weighted means of rows; values without weight may be nan."""
    return _ratio((np.nan_to_num(values) * weights).sum(1), weights.sum(1))


def _ratio(above: Floats, below: Floats) -> Floats:
    """Return quotients, nan where nothing counts."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return above / below
