"""Neuron support with the length regressed out: fewer neurons than the length lets expect (method, section 10)."""

import polars as pl

from pipeline.selection.rule import Signals


def neuron_support_residual(signals: Signals) -> pl.DataFrame:
    """Score a question by the residual of rank(mean |N|) on rank(mean response tokens), a least-squares line (ranks).

    Ranks are taken among all questions with supported rollouts, equal values sharing their average rank. Where all
    lengths are equal there is nothing to regress on, and the order is that of ``neuron_support``.
    """
    supported = signals.neuron_sizes.filter(pl.col("n_neurons") > 0)
    means = supported.group_by("id").agg(size=pl.col("n_neurons").mean(), length=pl.col("n_response_tokens").mean())
    rank = pl.col("size", "length").rank()
    centred = means.sort("id").with_columns(rank - rank.mean())
    size, length = centred["size"].to_numpy(), centred["length"].to_numpy()
    spread = length @ length
    slope = size @ length / spread if spread else 0.0
    return centred.select("id", score=pl.Series(size - slope * length, dtype=pl.Float64))
