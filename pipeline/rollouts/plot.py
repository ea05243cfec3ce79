"""What people see of the rollouts."""

import polars as pl

from pipeline.plots import histogram
from pipeline.store.artifact import Artifact


def response_lengths(rollouts: Artifact) -> bytes:
    """Return how long the responses of the main table are, as PNG."""
    lengths = rollouts.scan().select(pl.col("response_ids").list.len()).collect()["response_ids"]
    return histogram(lengths, rollouts.name, "response tokens")
