"""Would anything be made again? Fingerprints of what would be made now against those that a run shows; loads no model.

Only what is known for certain is told: a stage after one that changed may turn out to be the same.
"""

from collections.abc import Sequence
from typing import NamedTuple

from pipeline.chain import Materialization
from pipeline.config import Config
from pipeline.stage import StageSpec
from pipeline.stages import stage_of
from pipeline.store.store import Run


class Change(NamedTuple):
    """A stage whose result a run would make, or show, anew."""

    stage: str
    """Stage."""
    because: tuple[str, ...]
    """What differs of what the result shown was made from: sources, model, settings, code, inputs, ...; missing where
    the run shows none, or one whose files were changed."""
    fingerprint: str
    """Of what would be made."""


def find_changes(specs: Sequence[StageSpec], config: Config, run: Run) -> list[Change]:
    """Return the stages, of ``specs`` in their order, that would be made anew; those after them are left out.

    Raises CurationError where files or model cannot be found, or artifacts of the run do not belong together.
    """
    changes: list[Change] = []
    open_stages: set[str] = set()
    for spec in specs:
        before = {stage_of(name).name for name in (*spec.inputs, *spec.after, *spec.reads)}
        if before & open_stages:
            open_stages.add(spec.name)
        elif change := _change(spec, config, run):
            changes.append(change)
            open_stages.add(spec.name)
    return changes


def _change(spec: StageSpec, config: Config, run: Run) -> Change | None:
    wanted = Materialization(spec, getattr(config, spec.key), config.model, run)
    shown = {name: run.find(name) for name in spec.artifacts}
    known = [artifact.manifest for artifact in shown.values() if artifact is not None and artifact.is_intact()]
    if len(known) < len(shown):
        return Change(spec.name, ("missing",), wanted.fingerprint)
    if known[0].fingerprint == wanted.fingerprint:
        return None
    parts = wanted.provenance.items()
    because = tuple(part for part, value in parts if value != known[0].provenance.get(part))
    return Change(spec.name, because, wanted.fingerprint)
