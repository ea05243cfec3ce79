"""What a check is, what it sees, and what it says."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pipeline.checks.config import ChecksConfig
from pipeline.section import Section
from pipeline.store.artifact import Artifact
from pipeline.store.store import Run


class Finding(NamedTuple):
    """What a check found."""

    passed: bool
    """Whether it is as it should be."""
    message: str
    """What was found, and if that is not as it should be what to do."""
    measured: float | None = None
    """Figure behind it."""
    limit: float | None = None
    """What the figure was held against."""


@dataclass(frozen=True)
class Evidence:
    """What a check sees: the stage's result in its run, and what that was made from."""

    stage: str
    """Stage whose result is judged."""
    section: Section
    """Its settings."""
    limits: ChecksConfig
    """Limits of all checks."""
    run: Run
    """Where its artifacts stand, and those of stages before it."""

    @property
    def own(self) -> Artifact:
        """The stage's own artifact."""
        return self.run.require(self.stage)

    @property
    def notes(self) -> Mapping[str, Any]:
        """Figures of the stage."""
        return self.own.manifest.notes

    def rows(self, artifact: str, table: str | None = None) -> int | None:
        """Return the rows of an artifact's table, by default its first one's; None where it is not in the run."""
        found = self.run.find(artifact)
        return None if found is None else found.manifest.rows[table or next(iter(found.tables))]


@dataclass(frozen=True)
class Check:
    """One check. A new one is a function in this room, a line in ``CHECKS`` and a test."""

    name: str
    """Name, the same for every stage that it judges."""
    stages: tuple[str, ...]
    """Stages whose results it judges."""
    meaning: str
    """What a failure means, and what to do, in a sentence or two for people."""
    judge: Callable[[Evidence], Finding | None]
    """Judges; None where there is nothing to judge, such as an adapter that was left out."""
    severity: Literal["error", "warning"] = "warning"
    """What a failure is."""
    blocking: bool = False
    """Whether nothing after the stage runs when it fails."""


class Verdict(NamedTuple):
    """A check's finding on the result of a stage."""

    check: Check
    finding: Finding | None
    """None: nothing to judge."""

    @property
    def failed(self) -> bool:
        """Whether the result is not as it should be."""
        return self.finding is not None and not self.finding.passed


def at_most(measured: float, limit: float, found: str, remedy: str) -> Finding:
    """Return that a figure is within its upper limit, or else what to do."""
    return _bounded(measured <= limit, measured, limit, found, remedy)


def at_least(measured: float, limit: float, found: str, remedy: str) -> Finding:
    """Return that a figure is within its lower limit, or else what to do."""
    return _bounded(measured >= limit, measured, limit, found, remedy)


def _bounded(passed: bool, measured: float, limit: float, found: str, remedy: str) -> Finding:
    return Finding(passed, found if passed else f"{found}: {remedy}", float(measured), float(limit))
