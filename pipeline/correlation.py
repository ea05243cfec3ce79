"""Whether a score follows another quantity, such as the length of responses: rank correlation (method, section 10)."""

from typing import Final

import polars as pl

WARNING_ABOVE: Final = 0.5
"""**Choice**: absolute rank correlation above which a score is said to follow the other quantity."""
_FEWEST = 3
"""Pairs below which ranks say nothing: two are always perfectly correlated."""


def rank_correlation(x: pl.Series, y: pl.Series) -> float | None:
    """Return Spearman's rho of paired numbers, ties at their mean rank, in -1 to 1.

    Pairs with a null or NaN are left out. None when fewer than three are left or one of the two is constant.
    """
    pairs = pl.DataFrame({"x": x, "y": y}).cast(pl.Float64).fill_nan(None).drop_nulls()
    if len(pairs) < _FEWEST or min(pairs["x"].n_unique(), pairs["y"].n_unique()) == 1:
        return None
    return float(pairs.select(pl.corr("x", "y", method="spearman")).item())
