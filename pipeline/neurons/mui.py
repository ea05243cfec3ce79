"""Model utilization index (arXiv 2504.07440): the share of a model's neurons that a set of responses uses."""

from collections.abc import Iterable

import numpy as np
import polars as pl


def model_utilization(scores: Iterable[pl.DataFrame], n_neurons: int) -> float:
    """Return how many different neurons the rows of ``scores`` hold over ``n_neurons`` = n_layers * d_mlp.

    ``scores`` are tables with a column ``neurons`` of neuron ids, such as the shards of ``neuron_scores``; select the
    rows of a domain or question to measure it alone. Memory is that of one table and a flag per neuron.
    """
    used = np.zeros(n_neurons, dtype=bool)
    for table in scores:
        used[table["neurons"].explode(empty_as_null=False).to_numpy()] = True
    return float(used.mean())
