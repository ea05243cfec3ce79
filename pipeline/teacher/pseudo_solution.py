"""The question's own majority rollout as context (OPSD, arXiv 2601.18734, and u-OPSD, arXiv 2608.06296, no neurons)."""

from collections.abc import Iterator

from pipeline.teacher.builder import Choice, ContextRequest


def pseudo_solution(request: ContextRequest) -> Iterator[list[Choice]]:
    """Yield each target itself as its one demonstration, of similarity 1; nothing for a target without majority."""
    own = {shown.id: Choice(shown, 1.0) for shown in request.targets.demonstrations()}
    for target in request.targets.pool["id"]:
        yield [own[target]] if target in own else []
