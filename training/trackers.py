"""Libraries that a run's figures are sent to besides the log: what must hold, and where they write.

Trainer's own callbacks do the sending. What is set in the environment goes before what is set here.
"""

import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Final

from pipeline.adapters.config import TrainingConfig
from pipeline.adapters.job import TrainingJob
from pipeline.errors import TrainingError
from pipeline.registry import look_up

_PLACES: Final[Mapping[str, Mapping[str, str]]] = {
    "trackio": {"TRACKIO_DIR": "{folder}/trackio"},
    "tensorboard": {"TENSORBOARD_LOGGING_DIR": "{folder}/tensorboard/{run}"},
    "wandb": {"WANDB_DIR": "{folder}", "WANDB_PROJECT": "neuron-opsd"},
    "mlflow": {"MLFLOW_TRACKING_URI": "sqlite:///{folder}/mlflow.db", "MLFLOW_EXPERIMENT_NAME": "neuron-opsd"},
}
"""Environment variables by which each is told where to write, and under which name."""


def run_name(job: TrainingJob) -> str:
    """Return the name by which a job's run is known."""
    return f"{job.stage}-{job.fingerprint[:8]}"


def prepare_trackers(job: TrainingJob, settings: TrainingConfig) -> None:
    """Tell the libraries of ``report_to`` where to write.

    Raises ConfigError for one that is not known, and TrainingError for one that is not installed.
    """
    for name in settings.report_to:
        places = look_up(_PLACES, name, f"{job.stage}.report_to")
        if find_spec(name) is None:
            raise TrainingError(
                f"{job.stage}.report_to: {name} is not installed: pip install {name}, or leave it out of the list"
            )
        job.tracking.mkdir(parents=True, exist_ok=True)
        for variable, value in places.items():
            os.environ.setdefault(variable, value.format(folder=job.tracking.resolve(), run=run_name(job)))
