"""What became of the proposals, as a picture."""

from pipeline.plots import bars
from pipeline.store.artifact import Artifact


def states(proposed_questions: Artifact) -> bytes:
    """Return how many proposals were accepted, or why they were not, as PNG."""
    counts = dict(reversed(proposed_questions.manifest.notes["states"].items()))
    return bars(list(counts), list(counts.values()), "proposed_questions", "proposals")
