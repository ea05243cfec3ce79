"""The one JSON file that starts the training process, and the files that the process leaves.

The training process is a program of its own and reads everything from this file and the folders that it names; nothing
else configures it. It knows the artifacts that it reads by their tables only, and it makes files, not an artifact: the
stage that started it does (``pipeline.adapters.stage``).
"""

import json
from pathlib import Path
from typing import Any, Final

from pipeline.errors import ConfigError
from pipeline.model_config import ModelConfig
from pipeline.section import Section, parse_section

END_WITH_INPUT: Final = "NEURON_OPSD_END_WITH_INPUT"
"""Environment variable of a process that must not outlive who started it."""
CHECKPOINTS: Final = "checkpoints"
"""Folder of the output folder with what a run that is cut off goes on from; gone when the output is whole."""
LOG_FILE: Final = "training_log.parquet"
"""File of the output folder with the rows of TRAINING_LOG."""
NOTES_FILE: Final = "notes.json"
"""File of the output folder with figures for people; written last, so where it stands the output is whole."""


class TrainingJob(Section):
    """What ``python -m training.run --job job.json`` needs to make an adapter, whatever its objective."""

    objective: str
    """What is trained for, one of training.objectives.OBJECTIVES."""
    stage: str
    """Section of the configuration that the settings are from, for messages and the model card."""
    model: ModelConfig
    """The language model to adapt."""
    settings: dict[str, Any]
    """Training settings, of the objective's own section class."""
    inputs: dict[str, Path]
    """Folder of each artifact that the objective reads; its table is one Parquet file, or a folder of shards."""
    output: Path
    """Folder that receives adapter, model card, log and notes, and checkpoints meanwhile."""
    tracking: Path = Path("tracking")
    """Folder that receives what the libraries of ``report_to`` write, where the environment names no place."""
    lineage: dict[str, str]
    """SHA-256 of each input, for the model card."""
    fingerprint: str
    """Digest of everything that determines the adapter, for the model card."""


def write_job(job: TrainingJob, path: Path) -> None:
    """Write a job as JSON, making the folder where needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(job.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_job(path: Path) -> TrainingJob:
    """Read a job; raises ConfigError when the file is missing, is not JSON, or has an unknown or missing key.

    Objective and settings are for the training process to judge, which knows what objectives there are.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"job {path} cannot be read ({error.strerror}): give --job an existing file") from error
    except ValueError as error:
        remedy = "write it with pipeline.adapters.job.write_job"
        raise ConfigError(f"job {path} is not valid JSON ({error}): {remedy}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"job {path} must hold one JSON object, not a {type(tree).__name__}")
    return parse_section(TrainingJob, tree, where=f"job {path}")
