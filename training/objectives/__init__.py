"""What an adapter can be trained for: a file for each objective, found by its name in the job."""

from collections.abc import Mapping
from typing import Final

from training.objectives.objective import Objective
from training.objectives.opsd import OPSD
from training.objectives.sft import SFT

OBJECTIVES: Final[Mapping[str, Objective]] = {"opsd": OPSD, "sft": SFT}
"""Objectives by the name that stands in the job."""
