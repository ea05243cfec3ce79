"""No context: the teacher sees what the student sees (ablation)."""

from collections.abc import Iterator

from pipeline.teacher.builder import Choice, ContextRequest


def none(request: ContextRequest) -> Iterator[list[Choice]]:
    """Yield no demonstration for every target."""
    for _ in range(request.targets.pool.height):
        yield []
