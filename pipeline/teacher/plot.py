"""What people see of the contexts."""

from pipeline.plots import histogram
from pipeline.store.artifact import Artifact


def teacher_lengths(teacher_contexts: Artifact) -> bytes:
    """Return how long the teacher's prompts are, as PNG."""
    lengths = teacher_contexts.scan().select("n_teacher_tokens").collect()["n_teacher_tokens"]
    return histogram(lengths, "teacher_contexts", "teacher tokens")
