"""Shared by the tests of pages: a run as its stages would have left it, in ``told_run.py``."""

import sys
from pathlib import Path

import pytest

from pipeline.stages import open_store

sys.path.insert(0, str(Path(__file__).parent))

from told_run import put_curation, put_outcome


@pytest.fixture(scope="module")
def whole(put, tmp_path_factory):
    """A run of all stages but the optional ones."""
    run = open_store(tmp_path_factory.mktemp("data")).run("whole")
    put_curation(put, run)
    put_outcome(put, run)
    return run
