"""The house rules: who may import whom, and how long a file may be."""

import subprocess
import sys

import pytest

from pipeline.paths import PROJECT_ROOT

MAX_LINES = 310


def test_the_library_loads_without_dagster_or_trl():
    code = (
        "import pkgutil, importlib, sys, pipeline\n"
        "names = [m.name for m in pkgutil.walk_packages(pipeline.__path__, 'pipeline.') if '__main__' not in m.name]\n"
        "[importlib.import_module(name) for name in names]\n"
        "bad = {'dagster', 'dagster_pipes', 'trl', 'assets', 'training'} & set(sys.modules)\n"
        "assert len(names) > 30 and not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, check=True)


def sources():
    return [p for room in ("pipeline", "assets", "training") for p in sorted((PROJECT_ROOT / room).rglob("*.py"))]


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(PROJECT_ROOT)))
def test_files_stay_readable(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES
