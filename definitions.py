"""Dagster's entry point: the asset graph of the preset named by NEURON_OPSD_PRESET (default: reference)."""

import os

from assets import build_definitions
from pipeline.presets import DEFAULT_PRESET

defs = build_definitions(os.environ.get("NEURON_OPSD_PRESET", DEFAULT_PRESET))
