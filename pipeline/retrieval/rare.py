"""Neurons that tell a subject: those that few sets share, as texts are compared without their stop words."""

from typing import Final

import polars as pl

N_ALWAYS_KEPT: Final = 10
"""Sets that may share a neuron among any number of sets; own choice: of few questions some share their subject."""


def common_neurons(scores: pl.LazyFrame, n_sets: int, max_share: float) -> pl.Series:
    """Return the neurons that stand in more than ``max_share`` of ``n_sets`` sets, a row of ``scores`` each."""
    counts = scores.select(pl.col("neurons").explode(empty_as_null=False)).group_by("neurons").len()
    limit = max(N_ALWAYS_KEPT, max_share * n_sets)
    return counts.filter(pl.col("len") > limit).select("neurons").collect(engine="streaming")["neurons"]


def without(neurons: pl.Series) -> pl.Expr:
    """Return the column ``neurons``, sets, without these."""
    return pl.col("neurons").list.set_difference(pl.lit(neurons).implode()).list.sort()
