"""The training job: a program of its own, run as ``python -m training.run``.

It reads one JSON file (``pipeline.adapters.job``), trains a LoRA adapter and leaves it as plain files.
"""

import os

# Read by the libraries when they are imported, so before any other module of this package. A run must not report to
# anyone by itself, and TRL announces on every start that its SDFT trainer is experimental.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
