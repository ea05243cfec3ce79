"""Dagster's entry point: the asset graph of a run of a preset, and the jobs of a study.

NEURON_OPSD_PRESET names the preset (default: reference), NEURON_OPSD_RUN the run (default: the preset's name), and
NEURON_OPSD_EXECUTOR how its steps are executed: in_process (default) or multiprocess, one process per step.
NEURON_OPSD_STUDY names the study's file (default: docs/studies/reference.yaml). With NEURON_OPSD_ROUNDS the rounds of
the run are there, too: not always, as assets that need a partition stand in the way of making a run with one click.
"""

import os

import dagster as dg

from assets import build_definitions, run_name
from assets.rounds import build_rounds
from assets.studies import build_study_jobs
from pipeline.paths import resolve_path
from pipeline.presets import DEFAULT_PRESET, load_config

preset, run = os.environ.get("NEURON_OPSD_PRESET", DEFAULT_PRESET), os.environ.get("NEURON_OPSD_RUN")
defs = dg.Definitions.merge(
    build_definitions(preset, run=run, executor=os.environ.get("NEURON_OPSD_EXECUTOR", "in_process")),
    dg.Definitions(
        jobs=build_study_jobs(resolve_path(os.environ.get("NEURON_OPSD_STUDY", "docs/studies/reference.yaml")))
    ),
    build_rounds(load_config(preset), run or run_name(preset))
    if "NEURON_OPSD_ROUNDS" in os.environ
    else dg.Definitions(),
)
