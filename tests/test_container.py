"""The container file, as far as it can be tried without a builder: what it names is there, and is enough to run."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points

import pytest

from pipeline.paths import PROJECT_ROOT

TEXT = (PROJECT_ROOT / "Containerfile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LINES = [line.split(maxsplit=1) for line in TEXT.splitlines() if line and not line.startswith("#")]
COPIES = [[word for word in shlex.split(words) if not word.startswith("--")] for verb, words in LINES if verb == "COPY"]


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """A folder with what the image gets of the project."""
    folder = tmp_path_factory.mktemp("image") / "app"
    folder.mkdir()
    for *sources, target in COPIES:
        for path in (path for source in sources for path in PROJECT_ROOT.glob(source)):
            place = folder / target / (path.name if target.endswith("/") else "")
            place.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                shutil.copytree(path, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(path, place)
    return folder


def test_what_is_copied_is_enough_to_load_the_definitions_and_to_make_the_first_stage(image):
    program = (
        "import definitions, pathlib, sys; from assets.__main__ import main; import pipeline;"
        "assert pathlib.Path(pipeline.__file__).is_relative_to(pathlib.Path.cwd());"
        "assert definitions.defs.resolve_job_def('all_stages'); sys.exit(main(['--select', 'raw_pool']))"
    )
    environment = os.environ | {"PYTHONPATH": str(image)}
    done = subprocess.run([sys.executable, "-c", program], cwd=image, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (image / "data" / "runs" / "reference" / "raw_pool").is_symlink()


@pytest.mark.parametrize("source", [source for *sources, _ in COPIES for source in sources])
def test_what_it_copies_is_there(source):
    assert list(PROJECT_ROOT.glob(source))


def test_every_package_of_the_project_is_copied_and_its_metadata_too(image):
    packages = {
        name.partition(".")[0].rstrip("*") for name in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    }
    assert packages <= {path.name for path in image.iterdir()}
    assert (image / PROJECT["project"]["readme"]).is_file()
    assert all((image / name).is_file() for name in PROJECT["project"]["license-files"])
    assert all((image / f"{name}.py").is_file() for name in PROJECT["tool"]["setuptools"]["py-modules"])


def test_the_extras_that_it_installs_and_its_python_are_the_projects():
    (extras,) = re.findall(r"-e '\.\[([\w,]+)\]'", TEXT)
    assert set(extras.split(",")) <= set(PROJECT["project"]["optional-dependencies"])
    version = re.search(r"FROM python:(\d+)\.(\d+)-", TEXT)
    least = re.search(r">=(\d+)\.(\d+)", PROJECT["project"]["requires-python"])
    assert [int(part) for part in version.groups()] >= [int(part) for part in least.groups()]


def test_its_commands_are_installed_with_what_it_installs():
    scripts = {script.name: script.dist.name for script in entry_points(group="console_scripts")}
    installed = " ".join([*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["ui"]])
    commands = re.findall(r'CMD \["([\w-]+)"|neuron-opsd ([\w-]+) run -m definitions', TEXT)
    names = [name for pair in commands for name in pair if name]
    assert names == ["dagster-daemon", "dagster-webserver"]
    for name in names:
        if name in scripts:  # dagster-webserver is of an extra, which need not be installed here
            assert scripts[name] in installed
