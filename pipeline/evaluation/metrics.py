"""Figures of each model and test with bootstrap intervals clustered by question.

A figure is a measure (``pipeline.evaluation.measures``) of how often each question counts, so that all resamples are
one call.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.errors import CurationError
from pipeline.evaluation.calibration import Floats, calibrated_errors
from pipeline.evaluation.confidence import option_confidence, p_true_confidence, vote_confidence
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.measures import calibration, mean, pass_at
from pipeline.evaluation.schemas import METRICS, PREDICTIONS
from pipeline.predictions.contenders import differences, in_order
from pipeline.seeding import derive_seed
from pipeline.table import conform

IN_DOMAIN, OUT_OF_DOMAIN = "in_domain", "out_of_domain"
CONFIDENCES: Final = {"option": option_confidence, "vote": vote_confidence, "p_true": p_true_confidence}
"""Confidences by the ends of their metrics' names."""
HEADLINES = ("avg_at_k", "maj_at_k", "ece_option", "ece_vote", "brier_option", "brier_vote")
"""Figures that people look at first."""
METRIC_NAMES = (
    *HEADLINES,
    *("pass_at_half", "pass_at_k", "agreement", "abstention", "ece_p_true", "brier_p_true"),
    *(
        f"{name}_{kind}"
        for kind in CONFIDENCES
        for name in (
            *("overconfidence", "ece_mass", "ece_calibrated", "mce", "reliability", "resolution", "uncertainty"),
            *("nll", "auroc", "aurc"),
        )
    ),
)
_BLOCK = 4_000_000  # question counts drawn at once; bounds memory, never results


@dataclass(frozen=True)
class Estimate:
    """A figure with its resamples."""

    draws: Floats
    """The figure itself, then its resamples: [1 + n_resamples]."""
    used: npt.NDArray[np.bool_]
    """Which questions, sorted by id, it is of: [n]."""

    def __sub__(self, other: "Estimate") -> "Estimate":
        return Estimate(self.draws - other.draws, self.used & other.used)


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


def _estimate_models(test: pl.DataFrame, config: EvaluationConfig, split: str) -> dict[str, dict[str, Estimate]]:
    asked: dict[str, pl.Series] = {}
    estimates: dict[str, dict[str, Estimate]] = {}
    for model in in_order(test["model"]):
        answered = test.filter(pl.col("model") == model)
        asked[model] = answered["id"].unique().sort()
        estimates[model] = estimate(answered, config, split)
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


def estimate(answered: pl.DataFrame, config: EvaluationConfig, split: str) -> dict[str, Estimate]:
    """Return the figures of one model's rows of one test, as far as they allow them.

    Of the same questions under the same seed and ``split``, all models see the same resamples.
    """
    ids = answered["id"].unique().sort()
    counted = answered.group_by("id").agg(
        pl.col("correct").sum(), k=pl.len(), abstained=pl.col("answer").is_null().sum()
    )
    right, k, abstained = (counted.sort("id")[name].to_numpy() for name in ("correct", "k", "abstained"))
    tables = {kind: confidence(answered) for kind, confidence in CONFIDENCES.items()}
    n_samples = int(k.max())
    measures = {
        "avg_at_k": mean(right, k),
        "maj_at_k": mean(tables["vote"]["correct"].to_numpy()),
        "pass_at_half": pass_at(right, n_samples, -(-n_samples // 2)),
        "pass_at_k": pass_at(right, n_samples, n_samples),
        "agreement": mean(tables["vote"]["confidence"].to_numpy()),
        "abstention": mean(abstained, k),
    }
    whole = np.ones(len(ids), dtype=bool)
    estimates = {
        name: Estimate(draws, whole)
        for name, draws in bootstrap(lambda w: {name: of(w) for name, of in measures.items()}, whole, config, split)
    }
    for kind, table in tables.items():
        sure, correct = (table[column].to_numpy() for column in ("confidence", "correct"))
        used = np.isin(ids.to_numpy(), table["id"].to_numpy())
        if used.any():
            found = dict(bootstrap(calibration(sure, correct), used, config, split))
            errors = calibrated_errors(sure, config.n_resamples, derive_seed(0, "calibrated", split))
            found["ece_calibrated"] = np.array([errors.mean(), *errors])
            estimates |= {f"{name}_{kind}": Estimate(draws, used) for name, draws in found.items()}
    # Some have no value: nobody can tell right answers from wrong ones where all are right.
    return {name: one for name in METRIC_NAMES if (one := estimates.get(name)) and np.isfinite(one.draws[0])}


def bootstrap(
    measure: Callable[[Floats], Mapping[str, Floats]],
    used: npt.NDArray[np.bool_],
    config: EvaluationConfig,
    split: str,
) -> Iterator[tuple[str, Floats]]:
    """Yield name and values [1 + n_resamples] of each figure of the questions ``used``, drawn from all of them."""
    # The seed leaves the model out: models with the same questions see the same resamples, which pairs them.
    rng, n = np.random.default_rng(derive_seed(config.seed, "bootstrap", split)), len(used)
    blocks = [measure(np.ones((1, int(used.sum()))))]
    size = max(1, _BLOCK // n)
    for start in range(0, config.n_resamples, size):
        counts = _resampled_counts(n, min(size, config.n_resamples - start), rng)
        blocks.append(measure(counts[:, used]))
    for name in blocks[0]:
        yield name, np.concatenate([block[name] for block in blocks])


def _resampled_counts(n: int, n_resamples: int, rng: np.random.Generator) -> Floats:
    """Return how often each of n questions is drawn in each resample, [n_resamples, n]."""
    drawn = rng.integers(n, size=(n_resamples, n)) + n * np.arange(n_resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=n_resamples * n).reshape(n_resamples, n).astype(np.float64)


def _interval(estimate: Estimate, config: EvaluationConfig) -> dict[str, float | int]:
    tail = (1 - config.confidence_level) / 2
    low, high = np.nanquantile(estimate.draws[1:], [tail, 1 - tail])
    return {"value": float(estimate.draws[0]), "low": low, "high": high, "n": int(estimate.used.sum())}
