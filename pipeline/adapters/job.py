"""The one JSON file that starts the training process: the same typed class on both sides of the border.

The training process is a program of its own and reads everything from this file and the store that it names; nothing
else configures it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from pipeline.adapters.config import DistilledAdapterConfig, SftAdapterConfig, TrainingConfig
from pipeline.errors import ConfigError
from pipeline.model_config import ModelConfig
from pipeline.registry import look_up
from pipeline.section import Section, parse_section
from pipeline.selection.config import CuratedSubsetConfig
from pipeline.teacher.config import TeacherContextsConfig


class TrainingJob(Section):
    """What ``python -m training.run --job job.json`` needs to make an adapter; every objective has its own class."""

    objective: str
    """What is trained for, one of training.objectives.OBJECTIVES."""
    artifact: str
    """Artifact to make, and section that the settings are from."""
    store_root: Path
    """Folder of the artifact store that holds the training questions and receives the adapter."""
    fingerprint: str
    """Digest of everything that determines the adapter; becomes the artifact's."""
    provenance: dict[str, Any]
    """What the fingerprint was taken over; becomes the artifact's."""
    model: ModelConfig
    """The language model to adapt."""
    settings: TrainingConfig
    """Training settings."""
    curated_subset: CuratedSubsetConfig
    """How the training questions were selected, for the model card."""
    work_dir: Path
    """Folder for the trainer's scratch files."""


class DistillationJob(TrainingJob):
    """On-policy self-distillation from the artifact ``teacher_contexts``."""

    objective: Literal["opsd"] = "opsd"
    settings: DistilledAdapterConfig
    teacher_contexts: TeacherContextsConfig
    """How the contexts were built, for the model card."""


class SftJob(TrainingJob):
    """Fine-tuning on the majority responses to the questions of the artifact ``curated_subset``."""

    objective: Literal["sft"] = "sft"
    settings: SftAdapterConfig


JOBS: Final[Mapping[str, type[TrainingJob]]] = {"opsd": DistillationJob, "sft": SftJob}
"""Class of the jobs of each objective."""


def write_job(job: TrainingJob, path: Path) -> None:
    """Write a job as JSON, making the folder where needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(job.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_job(path: Path) -> TrainingJob:
    """Read a job; raises ConfigError when the file is missing, is not JSON, or has an unknown or missing key."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"job {path} cannot be read ({error.strerror}): give --job an existing file") from error
    except ValueError as error:
        raise ConfigError(f"job {path} is not valid JSON ({error}): write it with pipeline.jobs.write_job") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"job {path} must hold one JSON object, not a {type(tree).__name__}")
    kind = look_up(JOBS, str(tree.get("objective")), f"job {path}: objective")
    return parse_section(kind, tree, where=f"job {path}")
