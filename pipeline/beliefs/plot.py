"""What people see of the beliefs."""

from pipeline.plots import histogram
from pipeline.store.artifact import Artifact


def belief_shifts(context_beliefs: Artifact) -> bytes:
    """Return how far contexts move answers, as PNG."""
    shifts = context_beliefs.scan().select("belief_shift").collect()["belief_shift"].drop_nulls()
    return histogram(shifts, "context_beliefs", "belief shift, JSD (nats)")
