"""What an adapter can be trained for: a file for each objective, found by its name in the job.

A new objective is one file with an ``OBJECTIVE`` and one line in ``OBJECTIVES``; to make it a stage, give it a section
in ``pipeline.adapters.config`` and a line in ``pipeline.adapters.stage``.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

from pipeline.registry import look_up
from training.objectives.objective import Objective

OBJECTIVES: Final[Mapping[str, str]] = {
    "grpo": "training.objectives.grpo",
    "opsd": "training.objectives.opsd",
    "opsd_majority": "training.objectives.opsd_majority",
    "u_opsd": "training.objectives.u_opsd",
    "sft": "training.objectives.sft",
    "gold_context": "training.objectives.gold_context",
}
"""Module of each objective by the name that stands in the job.

Named, not imported: an adapter depends on its own objective's code only.
"""


def load_objective(name: str) -> Objective[Any]:
    """Import the objective of a job and no other; raises ConfigError for a name that is not in OBJECTIVES."""
    objective: Objective[Any] = import_module(look_up(OBJECTIVES, name, "job: objective")).OBJECTIVE
    return objective
