"""Figures of each model and test with bootstrap intervals clustered by question.

Every metric here has one form: with per-question sums ``parts`` [n, J] and ``weight`` [n], its value on a resample
that holds question q ``w[q]`` times is ``sum_j |w @ parts[:, j]| / (w @ weight)``. Means have J = 1, the expected
calibration error has one signed gap per bin. All resamples are therefore one matrix product.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.errors import CurationError
from pipeline.evaluation.calibration import N_BINS, Floats, bin_index
from pipeline.evaluation.confidence import option_confidence, vote_confidence
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.schemas import METRICS, PREDICTIONS
from pipeline.predictions.contenders import differences, in_order
from pipeline.seeding import derive_seed
from pipeline.table import conform

IN_DOMAIN, OUT_OF_DOMAIN = "in_domain", "out_of_domain"
METRIC_NAMES = ("avg_at_k", "maj_at_k", "ece_option", "ece_vote", "brier_option", "brier_vote")
_BLOCK = 4_000_000  # question counts drawn at once; bounds memory, never results


@dataclass(frozen=True)
class _Sums:
    parts: Floats  # [n, J]
    weight: Floats  # [n]


@dataclass(frozen=True)
class _Estimate:
    draws: Floats  # [1 + n_resamples]: the estimate itself, then its resamples
    used: npt.NDArray[np.bool_]  # [n]: questions that contribute

    def __sub__(self, other: "_Estimate") -> "_Estimate":
        return _Estimate(self.draws - other.draws, self.used & other.used)


def summarise(predictions: pl.DataFrame, config: EvaluationConfig) -> pl.DataFrame:
    """Return all figures of all models and tests, with percentile bootstrap intervals clustered by question.

    Where two models to be compared (``differences``) answered the same questions, their paired difference is taken on
    the same resampled questions. The metrics ``*_option`` are left out where no rollout has option probabilities; their
    ``n`` counts the questions that have them. The result depends neither on the order of the rows nor on which other
    models and tests the table holds.

    Args:
        predictions: rows of schema PREDICTIONS.
        config: number of resamples, level of the intervals, and seed.

    Returns:
        Rows of schema METRICS, ordered by test, model and metric; differences last.

    Raises:
        CurationError: no rows, a rollout twice, or a test in which questions differ in their number of samples.
    """
    checked = pl.DataFrame(conform(predictions, PREDICTIONS, where="evaluation/predictions"))
    if checked.is_empty():
        raise CurationError("evaluation: there are no predictions to summarise: grade at least one model first")
    rows: list[dict[str, object]] = []
    for split in sorted(set(checked["split"])):  # the test of the domain first
        test = checked.filter(pl.col("split") == split)
        k = _samples_per_question(test, split)
        for model, estimates in _estimate_models(test, config, split).items():
            rows += [
                {"model": model, "split": split, "metric": name, "k": k, **_interval(estimate, config)}
                for name, estimate in estimates.items()
            ]
    figures = pl.DataFrame(rows).with_columns(seed=pl.lit(config.seed)).select(METRICS.names)
    return pl.DataFrame(conform(figures, METRICS, where="evaluation/metrics"))


def _estimate_models(test: pl.DataFrame, config: EvaluationConfig, split: str) -> dict[str, dict[str, _Estimate]]:
    asked: dict[str, pl.Series] = {}
    estimates: dict[str, dict[str, _Estimate]] = {}
    for model in in_order(test["model"]):
        answered = test.filter(pl.col("model") == model)
        asked[model] = answered["id"].unique().sort()
        estimates[model] = _bootstrap(_question_sums(answered), config, split)
    for difference, (one, other) in differences(asked).items():
        if asked[one].equals(asked[other]):
            before, after = estimates[other], estimates[one]
            estimates[difference] = {name: after[name] - before[name] for name in before if name in after}
    return estimates


def _samples_per_question(test: pl.DataFrame, split: str) -> int:
    counts = test.group_by("model", "id").agg(pl.len().alias("k"), pl.col("sample").n_unique().alias("different"))
    k = int(counts["k"].max())  # type: ignore[arg-type]  # a count of a test that has rows
    odd = counts.filter((pl.col("k") != k) | (pl.col("different") != k)).sort("model", "id")
    if len(odd):
        model, question = odd.row(0)[:2]
        raise CurationError(
            f"{split}: question '{question}' of {model} has repeated samples or not {k} of them like the others: "
            "grade each rollout once, with the same number per question for all models"
        )
    return k


def _question_sums(answered: pl.DataFrame) -> dict[str, _Sums]:
    """Return per-question sums of every metric that one model's rows of one test allow; questions sorted by id."""
    ids = answered["id"].unique().sort()
    per_question = answered.group_by("id").agg(pl.col("correct").sum(), pl.len().alias("k")).sort("id")
    votes, options = vote_confidence(answered), option_confidence(answered)
    sums = {
        "avg_at_k": _Sums(_column(per_question["correct"]), per_question["k"].cast(pl.Float64).to_numpy()),
        "maj_at_k": _Sums(_column(votes["correct"]), np.ones(len(ids))),
    }
    for kind, table in (("option", options), ("vote", votes)):
        sums |= {f"{name}_{kind}": value for name, value in _calibration_sums(table, ids).items()}
    return {name: sums[name] for name in METRIC_NAMES if sums[name].weight.any()}


def _column(values: pl.Series) -> Floats:
    return values.cast(pl.Float64).to_numpy()[:, None]


def _calibration_sums(table: pl.DataFrame, ids: pl.Series) -> dict[str, _Sums]:
    question = ids.search_sorted(table["id"]).to_numpy()
    confidence = table["confidence"].to_numpy()
    gap = confidence - table["correct"].to_numpy()
    n, cell = len(ids), question * N_BINS + bin_index(confidence)
    weight = _totals(question, np.ones(len(question)), n)
    return {
        "ece": _Sums(_totals(cell, gap, n * N_BINS).reshape(n, N_BINS), weight),
        "brier": _Sums(_totals(question, gap**2, n)[:, None], weight),
    }


def _totals(group: npt.NDArray[np.integer[Any]], values: Floats, n_groups: int) -> Floats:
    return np.bincount(group, weights=values, minlength=n_groups).astype(np.float64)


def _bootstrap(sums: Mapping[str, _Sums], config: EvaluationConfig, split: str) -> dict[str, _Estimate]:
    # The seed leaves the model out: models with the same questions see the same resamples, which pairs them.
    rng = np.random.default_rng(derive_seed(config.seed, "bootstrap", split))
    columns = np.hstack([np.column_stack([s.parts, s.weight]) for s in sums.values()])  # [n, sum of J + 1]
    totals = np.vstack([columns.sum(axis=0), _resampled_totals(columns, config.n_resamples, rng)])
    ends = np.cumsum([s.parts.shape[1] + 1 for s in sums.values()])
    estimates = {}
    for (name, s), mine in zip(sums.items(), np.split(totals, ends[:-1], axis=1), strict=True):
        with np.errstate(invalid="ignore"):  # a resample without any option probability has no value
            estimates[name] = _Estimate(np.abs(mine[:, :-1]).sum(axis=1) / mine[:, -1], s.weight > 0)
    return estimates


def _resampled_totals(columns: Floats, n_resamples: int, rng: np.random.Generator) -> Floats:
    """Return the column sums of each resample of rows, [n_resamples, columns]."""
    n, block = len(columns), max(1, _BLOCK // len(columns))
    totals = []
    for start in range(0, n_resamples, block):
        size = min(block, n_resamples - start)
        drawn = rng.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        totals.append(np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n) @ columns)
    return np.vstack(totals)


def _interval(estimate: _Estimate, config: EvaluationConfig) -> dict[str, float | int]:
    tail = (1 - config.confidence_level) / 2
    low, high = np.nanquantile(estimate.draws[1:], [tail, 1 - tail])
    return {"value": float(estimate.draws[0]), "low": low, "high": high, "n": int(estimate.used.sum())}
