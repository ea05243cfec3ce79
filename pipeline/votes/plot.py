"""What people see of the votes."""

from pipeline.plots import histogram
from pipeline.store.artifact import Artifact


def vote_shares(pseudo_labels: Artifact) -> bytes:
    """Return the vote shares of the leading answers, as PNG."""
    shares = pseudo_labels.scan().select("vote_share").collect()["vote_share"]
    return histogram(shares, "pseudo_labels", "vote share of the leading answer")
