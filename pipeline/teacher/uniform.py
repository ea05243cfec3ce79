"""Random other questions as context: the ablation that tells retrieval from the mere presence of examples."""

import random
from collections.abc import Iterator

from pipeline.seeding import derive_seed
from pipeline.teacher.builder import Choice, ContextRequest, pick_distinct


def uniform(request: ContextRequest) -> Iterator[list[Choice]]:
    """Yield demonstrations drawn with a seed of the run's seed and the target's id, without a similarity."""
    shown = request.sources.demonstrations()
    for target, group in request.targets.pool.select("id", "group").iter_rows():
        order = _draw_all(len(shown), random.Random(derive_seed(request.config.seed, "context", target)))
        ranked = (Choice(shown[index], None) for index in order)
        yield pick_distinct(target, group, ranked, request.reach)


def _draw_all(count: int, rng: random.Random) -> Iterator[int]:
    """Yield 0 .. count - 1 in random order, at a cost that grows with what is taken (Fisher-Yates, sparse)."""
    moved: dict[int, int] = {}
    for last in range(count - 1, -1, -1):
        drawn = rng.randint(0, last)
        yield moved.get(drawn, drawn)
        moved[drawn] = moved.get(last, last)
