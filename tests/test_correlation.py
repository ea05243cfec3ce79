"""Spearman's rho, as scipy has it, and where there is none."""

import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr

from pipeline.correlation import rank_correlation


def test_it_is_spearmans_rho_with_ties():
    rng = np.random.default_rng(0)
    x, y = rng.integers(8, size=(2, 40))
    assert rank_correlation(pl.Series(x), pl.Series(x + y)) == pytest.approx(spearmanr(x, x + y).statistic)


def test_only_ranks_count():
    x = pl.Series([1, 5, 2, 9])
    assert rank_correlation(x, x.exp()) == pytest.approx(1)
    assert rank_correlation(x, -x.exp()) == pytest.approx(-1)


def test_pairs_without_a_number_are_left_out():
    x, y = pl.Series([1.0, None, 2.0, 3.0, float("nan"), 4.0]), pl.Series([1.0, 9.0, 3.0, 2.0, -9.0, None])
    assert rank_correlation(x, y) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("x", "y"), [([], []), ([1, 2], [1, 2]), ([1, 2, None], [1, 2, 3]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [0, 0, 0])]
)
def test_too_few_or_constant_numbers_have_none(x, y):
    assert rank_correlation(pl.Series(x, dtype=pl.Int64), pl.Series(y, dtype=pl.Int64)) is None
