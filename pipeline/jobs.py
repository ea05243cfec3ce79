"""The one JSON file that starts the training process: the same typed class on both sides of the border.

The training process is a program of its own and reads everything from this file; nothing else configures it.
"""

import json
from pathlib import Path
from typing import Any

from pipeline.config import (
    CuratedSubsetConfig,
    DistilledAdapterConfig,
    ModelConfig,
    TeacherContextsConfig,
)
from pipeline.errors import ConfigError
from pipeline.section import Section, parse_section


class DistillationJob(Section):
    """What ``python -m training.distill --job job.json`` needs to make the artifact ``distilled_adapter``."""

    contexts_path: Path
    """Parquet file of the schema TEACHER_CONTEXTS: one row per training question."""
    store_root: Path
    """Folder of the artifact store that receives the adapter."""
    fingerprint: str
    """Digest of everything that determines the adapter; becomes the artifact's."""
    provenance: dict[str, Any]
    """What the fingerprint was taken over; becomes the artifact's."""
    model: ModelConfig
    """The language model to adapt."""
    settings: DistilledAdapterConfig
    """Training settings."""
    curated_subset: CuratedSubsetConfig
    """How the training questions were selected, for the model card."""
    teacher_contexts: TeacherContextsConfig
    """How the contexts were built, for the model card."""
    work_dir: Path
    """Folder for the trainer's scratch files."""


def write_job(job: DistillationJob, path: Path) -> None:
    """Write a job as JSON, making the folder where needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(job.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_job(path: Path) -> DistillationJob:
    """Read a job; raises ConfigError when the file is missing, is not JSON, or has an unknown or missing key."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"job {path} cannot be read ({error.strerror}): give --job an existing file") from error
    except ValueError as error:
        raise ConfigError(f"job {path} is not valid JSON ({error}): write it with pipeline.jobs.write_job") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"job {path} must hold one JSON object, not a {type(tree).__name__}")
    return parse_section(DistillationJob, tree, where=f"job {path}")
