"""Figures of a run sent to a library besides the log: where it writes, and that it changes nothing."""

import json
import os
from importlib.util import find_spec

import pytest

from pipeline.adapters.config import RivalAdapterConfig
from pipeline.digests import digest_file
from pipeline.errors import ConfigError, TrainingError
from pipeline.model_config import ModelConfig
from training.reporting import Reporter
from training.run import train
from training.trackers import prepare_trackers

NAMES = ("mlflow", "tensorboard", "trackio", "wandb")
STUB = """
import contextvars, json, os, pathlib

__version__ = "0.43.0"
config = {}


class context_vars:
    current_space_id = contextvars.ContextVar("space", default=None)


def _write(*values):
    folder = pathlib.Path(os.environ["TRACKIO_DIR"])
    folder.mkdir(exist_ok=True)
    with (folder / "calls.jsonl").open("a") as file:
        file.write(json.dumps(values) + "\\n")


def init(project, name, space_id, **_):
    _write("init", project, name, space_id)


def log(values):
    _write("log", values)


def finish():
    _write("finish")
"""
"""What Trainer calls of trackio, told to a file."""
VARIABLES = ["TRACKIO_DIR", "TENSORBOARD_LOGGING_DIR", "WANDB_DIR", "WANDB_PROJECT", "MLFLOW_TRACKING_URI"]


@pytest.fixture
def clean(monkeypatch):
    """Take the libraries' variables out of the environment, and what a test adds."""
    for name in [*VARIABLES, "MLFLOW_EXPERIMENT_NAME"]:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture
def job(fill, job_for, tiny_folder, tmp_path):
    def make(**settings):
        settings = RivalAdapterConfig(steps=3, micro_batch=2, **settings)
        return job_for(
            "sft",
            tmp_path / "output",
            settings,
            model=ModelConfig(path=str(tiny_folder)),
            inputs=fill(tmp_path / "inputs"),
            fingerprint="0123456789",
            tracking=tmp_path / "tracking",
        )

    return make


@pytest.mark.parametrize("name", NAMES)
def test_a_library_that_is_not_installed_is_refused_with_what_to_install(job, clean, name):
    if find_spec(name):
        pytest.skip(f"{name} is installed")
    with pytest.raises(TrainingError, match=rf"rival_adapter.report_to: {name} is not installed: pip install {name}"):
        train(job(report_to=[name]), Reporter(None))


def test_a_name_that_is_none_is_refused(job):
    with pytest.raises(ConfigError, match="'tensorbord' is not known, did you mean 'tensorboard'"):
        train(job(report_to=["tensorbord"]), Reporter(None))


@pytest.mark.parametrize("name", NAMES)
def test_each_library_is_told_a_place_below_tracking_unless_the_environment_names_one(
    job, clean, monkeypatch, tmp_path, name
):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / f"{name}.py").touch()
    made, first = job(report_to=[name]), {**os.environ}
    prepare_trackers(made, RivalAdapterConfig(report_to=[name]))
    told = {key: value for key, value in os.environ.items() if key not in first}
    assert sum(str(tmp_path / "tracking") in value for value in told.values()) == 1
    for key in told:
        monkeypatch.setenv(key, "the user's")
    prepare_trackers(made, RivalAdapterConfig(report_to=[name]))
    assert {os.environ[key] for key in told} == {"the user's"}


def test_every_step_is_sent_and_the_adapter_stays_the_same(job, clean, monkeypatch, tmp_path):
    train(job(), Reporter(None))
    before = {path.name: digest_file(path) for path in (tmp_path / "output").iterdir()}
    (tmp_path / "stubs").mkdir()
    (tmp_path / "stubs" / "trackio.py").write_text(STUB)
    monkeypatch.syspath_prepend(tmp_path / "stubs")
    train(job(report_to=["trackio"]), Reporter(None))
    assert {path.name: digest_file(path) for path in (tmp_path / "output").iterdir()} == before
    calls = [json.loads(line) for line in (tmp_path / "tracking" / "trackio" / "calls.jsonl").read_text().splitlines()]
    assert calls[0] == ["init", "neuron-opsd", "rival_adapter-01234567", None]
    assert calls[-1] == ["finish"]
    steps = [values for kind, *rest in calls if kind == "log" for values in rest if "train/loss" in values]
    assert [values["train/global_step"] for values in steps] == [1, 2, 3]


def test_tensorboard_writes_below_tracking(job, clean, tmp_path):
    pytest.importorskip("tensorboard")
    train(job(report_to=["tensorboard"]), Reporter(None))
    assert list((tmp_path / "tracking" / "tensorboard" / "rival_adapter-01234567").glob("events.*"))
