"""What people see of the selection."""

from pipeline.plots import histogram
from pipeline.store.artifact import Artifact


def scores(curated_subset: Artifact) -> bytes:
    """Return the rule's scores, as PNG."""
    values = curated_subset.scan().select("score").collect()["score"].drop_nulls()
    return histogram(values, "curated_subset", "selection score")
