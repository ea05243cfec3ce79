"""The interface of context builders: which demonstrations to show for which question."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from pipeline.teacher.config import TeacherContextsConfig
from pipeline.teacher.questions import Demonstration, Questions, QuestionSet

REACH = 4
"""Candidates looked at per one wanted: room for the target itself and near-duplicates, or for other answers."""


@dataclass(frozen=True)
class ContextRequest:
    """What contexts are asked for and what they may be made of."""

    targets: Questions
    """Questions that need a context; their own rollouts and neurons are among their tables."""
    sources: Questions
    """The pool whose questions may be shown. Targets may be part of it, or held-out questions that are not."""
    config: TeacherContextsConfig
    """Number of demonstrations and seed."""
    question_set: QuestionSet = "representative"
    """Which neurons stand for a question."""

    @property
    def reach(self) -> int:
        """Choices to yield per target: as many as are shown, and more where their answers are to be balanced."""
        return self.config.n_demonstrations * (REACH if self.config.balance_answers else 1)


class Choice(NamedTuple):
    """A demonstration chosen for a question."""

    demonstration: Demonstration
    """What is shown."""
    similarity: float | None
    """Similarity to the question in the builder's own measure; None when it does not measure any."""


class ContextBuilder(Protocol):
    """Chooses demonstrations; rendering and the token budget are the business of ``context``."""

    def __call__(self, request: ContextRequest, /) -> Iterator[list[Choice]]:
        """Yield, for each target in the order of its pool, its demonstrations, most similar first.

        At most ``request.reach``, possibly none. They must depend on the target, the sources and ``config.seed``,
        never on the order of rows or on the other targets. Builders that show other questions take them through
        ``pick_distinct``.
        """


def pick_distinct(target: str, group: str, ranked: Iterable[Choice], count: int) -> list[Choice]:
    """Return the first ``count`` choices that are neither the target, nor of its ``group``, nor of one another's.

    A group holds near-duplicates: as its context they would show the target its own solution.
    """
    picked: list[Choice] = []
    taken = {group}
    for choice in ranked:
        shown = choice.demonstration
        if shown.id != target and shown.group not in taken:
            picked.append(choice)
            taken.add(shown.group)
            if len(picked) == count:
                break
    return picked


def balance_answers(ranked: Sequence[Choice], count: int) -> list[Choice]:
    """Return ``count`` of the choices, in their order, whose pseudo-answers differ as far as they allow.

    Always next the first one among the answers that were taken least so far.
    """
    taken: Counter[str] = Counter()
    left = list(range(len(ranked)))
    while left and len(ranked) - len(left) < count:
        rank = min(left, key=lambda rank: taken[ranked[rank].demonstration.answer])  # the first of equals
        left.remove(rank)
        taken[ranked[rank].demonstration.answer] += 1
    return [choice for rank, choice in enumerate(ranked) if rank not in left]
