"""From graded answers to figures: means over worlds and seeds, with intervals over seeds and questions.

Hierarchical bootstrap: within each world, seeds are drawn with replacement, one fewer than there are (as many would
understate the variance between few seeds; Davison and Hinkley, 1997, section 3.8), and questions with all their
samples. All arms see the same draws, so differences are paired by world, seed and question. Worlds are not resampled:
the figures are about these.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import polars as pl
from scipy.stats import false_discovery_control

from pipeline.errors import CurationError
from pipeline.evaluation.calibration import Floats
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.metrics import OUT_OF_DOMAIN, Estimate, estimate
from pipeline.seeding import derive_seed
from pipeline.study.config import Cell, StudyConfig
from pipeline.study.schemas import CELLS, FIGURES
from pipeline.table import conform

MARGIN_OF: Final = "avg_at_k"
"""Metric that the margin is of, out of domain."""
_Draws = Mapping[str, Floats]


class Answers:
    """Graded answers of all cells, and the figures of each with the same resamples for all arms."""

    def __init__(
        self,
        study: StudyConfig,
        graded: Mapping[Cell, pl.DataFrame],
        costs: Mapping[Cell, Mapping[str, float]] = {},
    ) -> None:
        """Estimate every figure of every cell, and take over what it cost, which stands with the split null.

        Raises CurationError where arms did not answer the same questions.
        """
        self.study = study
        self.arms = [arm.name for arm in study.arms if any(cell.arm == arm.name for cell in graded)]
        self.config = EvaluationConfig(n_resamples=study.n_resamples, confidence_level=study.confidence_level)
        self.splits: list[str | None] = sorted(
            {split for table in graded.values() for split in table["split"].unique()}
        )
        self._found: dict[tuple[Cell, str | None], dict[str, Estimate]] = {}
        self._sizes: dict[tuple[Cell, str | None], tuple[int | None, int | None]] = {}
        asked: dict[tuple[str, str | None], pl.Series] = {}
        for cell, table in graded.items():
            for split in self.splits:
                answered = table.filter(pl.col("split") == split)
                ids = answered["id"].unique().sort()
                if not asked.setdefault((cell.world, split), ids).equals(ids):
                    raise CurationError(f"{cell}: other {split} questions than the other arms of world {cell.world}")
                self._found[cell, split] = estimate(answered, self.config, f"{cell.world}/{split}")
                self._sizes[cell, split] = len(ids), answered.group_by("id").len()["len"].max()  # type: ignore[assignment]
        if costs:
            self.splits.append(None)
        for cell, amounts in costs.items():
            self._found[cell, None] = {name: _constant(amount, study.n_resamples) for name, amount in amounts.items()}
            self._sizes[cell, None] = None, None

    def cells(self) -> pl.DataFrame:
        """Return the figures of each run, of schema CELLS."""
        rows = [
            (*cell, split, metric, found.draws[0], *self._sizes[cell, split])
            for (cell, split), figures in self._found.items()
            for metric, found in figures.items()
        ]
        table = pl.DataFrame(rows, schema=CELLS.names, orient="row")
        return pl.DataFrame(conform(table, CELLS, where="cells"))

    def figures(self) -> pl.DataFrame:
        """Return all figures and differences, of schema FIGURES."""
        rows = []
        for split in self.splits:
            draws = {arm: self._over_seeds(arm, split) for arm in self.arms}
            for arm in self.arms:
                rows += [self._row(arm, None, split, metric, values) for metric, values in draws[arm].items()]
                for other in self.study.against:
                    if other != arm and other in draws:
                        shared = [metric for metric in draws[arm] if metric in draws[other]]
                        gaps = {metric: draws[arm][metric] - draws[other][metric] for metric in shared}
                        rows += [self._row(arm, other, split, metric, values) for metric, values in gaps.items()]
        return pl.DataFrame(conform(_adjust(pl.DataFrame(rows, infer_schema_length=None)), FIGURES, where="figures"))

    def _over_seeds(self, arm: str, split: str | None) -> dict[str, Floats]:
        """Return each metric's mean over worlds and seeds, and its resamples: [1 + n_resamples]."""
        worlds = [world.name for world in self.study.worlds]
        parts: dict[str, list[Floats]] = {}
        for world in worlds:
            found = [self._found[cell, split] for cell in (Cell(arm, world, seed) for seed in self.study.seeds)]
            weights = self._seed_weights(world)
            for metric in found[0]:
                if all(metric in figures for figures in found):
                    draws = np.stack([figures[metric].draws for figures in found])  # [seeds, 1 + n_resamples]
                    parts.setdefault(metric, []).append((weights * draws).sum(0))
        return {metric: np.mean(each, axis=0) for metric, each in parts.items() if len(each) == len(worlds)}

    def _seed_weights(self, world: str) -> Floats:
        """Return how much each seed counts in the figure and in each resample: [seeds, 1 + n_resamples]."""
        n_seeds = len(self.study.seeds)
        n_drawn = max(1, n_seeds - 1)
        rng = np.random.default_rng(derive_seed(self.config.seed, "seeds", world))
        drawn = rng.integers(n_seeds, size=(self.config.n_resamples, n_drawn))
        counts = np.stack([(drawn == seed).sum(1) for seed in range(n_seeds)]) / n_drawn
        return np.hstack([np.full((n_seeds, 1), 1 / n_seeds), counts])

    def _row(self, arm: str, against: str | None, split: str | None, metric: str, draws: Floats) -> dict[str, Any]:
        tail = (1 - self.config.confidence_level) / 2
        low, high = np.nanquantile(draws[1:], [tail, 1 - tail])
        has_margin = against == self.study.against[0] and (split, metric) == (OUT_OF_DOMAIN, MARGIN_OF)
        inner = np.nanquantile(draws[1:], [2 * tail, 1 - 2 * tail])  # two one-sided tests at the level of one tail each
        sizes = [self._sizes[Cell(arm, world.name, self.study.seeds[0]), split][0] for world in self.study.worlds]
        return {
            "arm": arm,
            "against": against,
            "split": split,
            "metric": metric,
            "value": draws[0],
            "low": low,
            "high": high,
            "p": _p_value(draws[1:]) if against else None,
            "is_equivalent": bool((np.abs(inner) <= self.study.margin).all()) if has_margin else None,
            "n": None if split is None else sum(size or 0 for size in sizes),
            "seeds": len(self.study.seeds),
            "worlds": len(self.study.worlds),
        }


def _constant(value: float, n_resamples: int) -> Estimate:
    """Return a figure that no question is resampled for."""
    return Estimate(np.full(1 + n_resamples, value), np.zeros(0, dtype=bool))


def _p_value(draws: Floats) -> float:
    """Return twice the share of resamples on the rarer side of zero, itself counted among them."""
    known = draws[np.isfinite(draws)]
    rarer = min((known <= 0).sum(), (known >= 0).sum())
    return float(min(1.0, 2 * (1 + rarer) / (1 + len(known))))


def _adjust(rows: pl.DataFrame) -> pl.DataFrame:
    """Adjust p-values for all differences of a metric and test, which depend on one another."""
    family = ["split", "metric"]
    differences = rows.drop_nulls("p")
    adjusted = [
        table.with_columns(p_adjusted=pl.Series(false_discovery_control(table["p"].to_numpy(), method="by")))
        for table in differences.partition_by(family, maintain_order=True)
    ]
    known = pl.concat(adjusted).select("arm", "against", *family, "p_adjusted") if adjusted else None
    if known is None:
        return rows.with_columns(p_adjusted=pl.lit(None, pl.Float64)).select(FIGURES.names)
    joined = rows.join(known, on=["arm", "against", *family], how="left", maintain_order="left", nulls_equal=True)
    return joined.select(FIGURES.names)
