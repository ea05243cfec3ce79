"""Curves of confidence for pictures, from the tables that evaluation's figures are taken of."""

import numpy as np
import polars as pl

from pipeline.evaluation.calibration import N_BINS, bin_index


def reliability_bins(table: pl.DataFrame, series: str) -> pl.DataFrame:
    """Return series, confidence, right and n of each filled bin of the calibration error.

    ``table`` has columns confidence and correct, a row a question (``pipeline.evaluation.confidence``).
    """
    sure, right = (table[name].to_numpy() for name in ("confidence", "correct"))
    bins = bin_index(sure)
    n, sums, rights = (np.bincount(bins, weights=of, minlength=N_BINS) for of in (None, sure, right))
    filled = n > 0
    return pl.DataFrame(
        {"confidence": sums[filled] / n[filled], "right": rights[filled] / n[filled], "n": n[filled].astype(np.int64)}
    ).select(pl.lit(series).alias("series"), pl.all())


def risk_curve(table: pl.DataFrame, series: str, n_points: int = 100) -> pl.DataFrame:
    """Return coverage, risk and series: the share wrong among the surest; ties enter together, as in ``aurc``.

    A curve of more than ``n_points`` steps is thinned, its ends kept.
    """
    steps = table.group_by("confidence").agg(wrong=(1 - pl.col("correct")).sum(), n=pl.len())
    steps = steps.sort("confidence", descending=True).with_columns(pl.col("wrong", "n").cum_sum())
    kept = np.unique(np.linspace(0, steps.height - 1, min(n_points, steps.height)).round().astype(np.int64))
    curve = steps[kept].select(coverage=pl.col("n") / table.height, risk=pl.col("wrong") / pl.col("n"))
    return curve.with_columns(series=pl.lit(series))
