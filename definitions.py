"""Dagster's entry point: the asset graph of a run of a preset.

NEURON_OPSD_PRESET names the preset (default: reference), NEURON_OPSD_RUN the run (default: the preset's name), and
NEURON_OPSD_EXECUTOR how its steps are executed: in_process (default) or multiprocess, one process per step.
"""

import os

from assets import build_definitions
from pipeline.presets import DEFAULT_PRESET

defs = build_definitions(
    os.environ.get("NEURON_OPSD_PRESET", DEFAULT_PRESET),
    run=os.environ.get("NEURON_OPSD_RUN"),
    executor=os.environ.get("NEURON_OPSD_EXECUTOR", "in_process"),
)
