"""What people see of predictions."""

import polars as pl

from pipeline.plots import histogram
from pipeline.store.artifact import Artifact


def response_lengths(predictions: Artifact) -> bytes:
    """Return how long the responses to the in-domain test are, as PNG."""
    lengths = predictions.scan("in_domain").select(pl.col("response_ids").list.len()).collect()["response_ids"]
    return histogram(lengths, predictions.name, "response tokens, in-domain test")
