"""Shared by the tests of neuron scoring: models of every family, in ``families.py``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
