"""The interface of context builders: which demonstrations to show for which question."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from pipeline.config import TeacherContextsConfig
from pipeline.teacher.questions import Demonstration, Questions, QuestionSet
from pipeline.teacher.wording import Wording

REACH = 4
"""Candidates looked at per one wanted: room for the target itself and near-duplicates."""


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

        At most ``config.n_demonstrations``, possibly none. They must depend on the target, the sources and
        ``config.seed``, never on the order of rows or on the other targets. Builders that show other questions take
        them through ``pick_distinct``.
        """


def pick_distinct(target: Wording, ranked: Iterable[Choice], count: int) -> list[Choice]:
    """Return the first ``count`` choices that are near-duplicates neither of the target nor of one another.

    The target itself is its own near-duplicate, so it is never returned.
    """
    picked: list[Choice] = []
    taken = [target]
    for choice in ranked:
        if not any(choice.demonstration.wording.near(wording) for wording in taken):
            picked.append(choice)
            taken.append(choice.demonstration.wording)
            if len(picked) == count:
                break
    return picked
