"""What people see of a merged model."""

from pipeline.plots import histogram
from pipeline.store.artifact import Artifact


def norms(merged_model: Artifact) -> bytes:
    """Return the sizes of the weights, as PNG."""
    return histogram(merged_model.read()["norm"], "merged_model", "Euclidean norm of a tensor of weights")
