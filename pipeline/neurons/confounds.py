"""What the size of neuron sets may follow instead of the question (method, section 10).

Pinned by ``tests/neurons/test_confounds.py``.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.correlation import WARNING_ABOVE, rank_correlation

_SUSPECTS = ("n_response_tokens", "self_certainty", "mean_logprob")


def describe_confounds(shards: Sequence[Path]) -> dict[str, Any]:
    """Return how the questions' mean |N| correlates with what it should not follow, and a warning if it does.

    ``shards`` are files of schema NEURON_SIZES, of which four columns are read, a piece at a time. As for the rule
    ``neuron_support``, empty sets do not count.
    """
    sizes = pl.scan_parquet(list(shards)).filter(pl.col("n_neurons") > 0)
    means = sizes.group_by("id").agg(pl.col("n_neurons", *_SUSPECTS).mean()).sort("id").collect(engine="streaming")
    rho = {name: rank_correlation(means["n_neurons"], means[name]) for name in _SUSPECTS}
    by_length = rho["n_response_tokens"]
    notes: dict[str, Any] = {"rank_correlation_of_support": rho}
    if by_length is not None and abs(by_length) > WARNING_ABOVE:
        notes["warning"] = (
            f"Questions with longer responses have {'larger' if by_length > 0 else 'smaller'} neuron sets (rank "
            f"correlation of mean |N| with mean response tokens {by_length:.2f}, {len(means)} questions): the rule "
            "neuron_support would choose by length rather than by what a question needs. Set curated_subset.rule to "
            "neuron_support_per_token or neuron_support_residual."
        )
    return notes
