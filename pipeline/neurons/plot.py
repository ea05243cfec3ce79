"""What people see of the neuron scores."""

import polars as pl

from pipeline.plots import support_profile
from pipeline.store.artifact import Artifact


def support(neuron_scores: Artifact) -> bytes:
    """Return sizes of neuron sets and the mean share of the score of each layer, as PNG."""
    sizes = neuron_scores.scan("neuron_sizes").filter(pl.col("score_sum") > 0)
    shares = sizes.select(
        layer=pl.int_ranges(pl.col("layer_scores").list.len()), share=pl.col("layer_scores") / pl.col("score_sum")
    ).explode("layer", "share", empty_as_null=False)
    profile = shares.group_by("layer").agg(pl.col("share").mean()).sort("layer")
    return support_profile(sizes.select("n_neurons").collect()["n_neurons"], profile.collect()["share"])
