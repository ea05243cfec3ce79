"""What people see of the answers."""

from pipeline.plots import bars
from pipeline.store.artifact import Artifact


def extractions(answers: Artifact) -> bytes:
    """Return by which rule answers were found, or why none was, as PNG."""
    counts = answers.scan().group_by("extraction").len().sort("len", "extraction").collect()
    return bars(counts["extraction"].to_list(), counts["len"], "answers", "responses")
