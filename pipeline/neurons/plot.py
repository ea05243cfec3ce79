"""What people see of the neuron scores."""

import polars as pl

from pipeline.plots import support_profile
from pipeline.store.artifact import Artifact


def layer_profile(neuron_scores: Artifact) -> pl.DataFrame:
    """Return ``layer``, from 0, and ``share``, the mean over rollouts of its part of the positive contributions."""
    sizes = neuron_scores.scan("neuron_sizes").filter(pl.col("score_sum") > 0)
    shares = sizes.select(
        layer=pl.int_ranges(pl.col("layer_scores").list.len()), share=pl.col("layer_scores") / pl.col("score_sum")
    ).explode("layer", "share", empty_as_null=False)
    return shares.group_by("layer").agg(pl.col("share").mean()).sort("layer").collect()


def support(neuron_scores: Artifact) -> bytes:
    """Return sizes of neuron sets and the mean share of the score of each layer, as PNG."""
    sizes = neuron_scores.scan("neuron_sizes").filter(pl.col("score_sum") > 0)
    return support_profile(sizes.select("n_neurons").collect()["n_neurons"], layer_profile(neuron_scores)["share"])
