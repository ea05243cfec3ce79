"""What people see of the lift."""

from pipeline.plots import scatter
from pipeline.store.artifact import Artifact


def confirmed_answers(teacher_lift: Artifact) -> bytes | None:
    """Return per question how often independent examples confirm new answers, against wrong ones, as PNG."""
    lift = teacher_lift.read()
    axes = ("new answers confirmed with one set wrong (share)", "by two right sets of examples (share)")
    return scatter(lift["confirmed_wrong"], lift["confirmed"], "teacher_lift", *axes) if len(lift) else None
