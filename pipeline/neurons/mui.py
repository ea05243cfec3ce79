"""Model utilization index (arXiv 2504.07440): the share of a model's neurons that a set of responses uses."""

import polars as pl


def model_utilization(scores: pl.DataFrame, n_neurons: int) -> float:
    """Return how many different neurons the rows of ``scores`` hold over ``n_neurons`` = n_layers * d_mlp.

    ``scores`` has a column ``neurons`` of neuron ids; select the rows of a domain or question to measure it alone.
    """
    return scores["neurons"].explode(empty_as_null=False).n_unique() / n_neurons
