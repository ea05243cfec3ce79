"""What a cell cost to make, by the ledger: its model, with every stage that this is made of."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pipeline.ledger.attempt import Attempt, read_attempts
from pipeline.ledger.usage import Cost
from pipeline.stages import open_store
from pipeline.study.config import Cell, StudyConfig, arm_of, run_name
from pipeline.study.run import stages_for

AMOUNTS: Final = ("processor_seconds", "seconds", "read_tokens", "generated_tokens", "trained_tokens")
"""Of ``Cost``: what is shown."""
TRAINING: Final = "training_"
"""Prefix of the amounts of the training alone."""


def cost_of(study: StudyConfig, cell: Cell, root: Path) -> dict[str, float]:
    """Return the amounts of making a cell's model, the tests not asked; none where a stage is not in the ledger.

    What cells share was made once and counts for each of them, as it was made first: with attempts before it that were
    cut off, without those of a neighbour that made the same at the same time. An untouched model costs nothing.
    """
    store, adapter, parts = open_store(root), f"{arm_of(study, cell).of}_adapter", [Cost()]
    training = Cost()
    if arm_of(study, cell).of != "base":
        run = store.run(run_name(study, cell))
        for spec in stages_for(adapter):
            fingerprint = run.require(spec.name).manifest.fingerprint
            attempts = first_made(read_attempts([store.ledger / spec.name / fingerprint]))
            if not attempts:
                return {}
            parts += attempts
        training = sum(attempts, Cost())  # the adapter's stage is the last
    whole = sum(parts, Cost())
    return {
        f"{prefix}{name}": float(getattr(cost, name))
        for prefix, cost in (("", whole), (TRAINING, training))
        for name in AMOUNTS
    }


def first_made(attempts: Sequence[Attempt]) -> list[Attempt]:
    """Return the attempts, in order, up to the first that was finished; none where there is no such."""
    done = [place for place, attempt in enumerate(attempts) if attempt.state == "done"]
    return list(attempts[: done[0] + 1]) if done else []
