"""The stages that train: the job that the process gets, and what becomes of what it leaves."""

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import ClassVar, get_args

import polars as pl
import pyarrow.parquet as pq
import pytest

from pipeline.adapters.config import CeilingAdapterConfig, RivalAdapterConfig, TrainingConfig
from pipeline.adapters.job import read_job
from pipeline.adapters.process import CrashError, run_process
from pipeline.adapters.schemas import TRAINING_LOG
from pipeline.adapters.stage import CEILING_ADAPTER, DISTILLED_ADAPTER, RIVAL_ADAPTER
from pipeline.errors import TrainingError
from pipeline.model_config import ModelConfig
from pipeline.stage import resolve
from pipeline.table import conform
from training.objectives import OBJECTIVES, load_objective

WORK = ".work"
STAGES = (DISTILLED_ADAPTER, RIVAL_ADAPTER, CEILING_ADAPTER)
LOG = pl.DataFrame(
    [{"step": n, "loss": 1 / n, "learning_rate": 1e-3, "grad_norm": 0.5, "response_tokens": 7.0} for n in (1, 2, 3)],
    schema=pl.DataFrame(TRAINING_LOG.empty_table()).schema,
)


class Writer:
    """Takes tables as an artifact's writer does."""

    def __init__(self, name, folder):
        self.name, self.folder, self.notes, self.tables = name, folder, {}, {}

    def append(self, table, rows):
        self.tables[table] = conform(rows, TRAINING_LOG, where=table)


NOTES = {
    "training_questions": 6,
    "model": {"path": "some/model", "revision": None, "dtype": "auto", "chat_template": {}},
}


def leave_adapter(command):
    """Do what the training process does to the files."""
    job = read_job(Path(command[-1]))
    job.output.mkdir(exist_ok=True)
    (job.output / "adapter_model.safetensors").write_bytes(b"weights")
    pq.write_table(conform(LOG, TRAINING_LOG, where="log"), job.output / "training_log.parquet")
    (job.output / "notes.json").write_text('{"training_questions": 6}')


def task_for(spec, folder, launch, section=None):
    return SimpleNamespace(
        section=section
        or spec.section(steps=3, **({"enabled": True} if "enabled" in spec.section.model_fields else {})),
        inputs={
            name: SimpleNamespace(folder=folder.parent / name, manifest=SimpleNamespace(digest=f"digest of {name}"))
            for name in spec.inputs
        },
        writer=Writer(spec.name, folder),
        model=ModelConfig(path="some/model"),
        launch=launch,
        fingerprint="0" * 64,
    )


@pytest.mark.parametrize("spec", STAGES, ids=lambda spec: spec.name)
def test_stage_and_objective_agree(spec):
    names = get_args(spec.section.model_fields["objective"].annotation)
    assert names
    for name in names:
        objective = load_objective(name)
        assert objective.section is spec.section
        assert set(objective.inputs) <= set(spec.inputs)
        assert spec.code(spec.section(objective=name)) == ("training.run", OBJECTIVES[name])


@pytest.mark.parametrize("spec", STAGES, ids=lambda spec: spec.name)
def test_the_process_gets_its_job_and_its_files_become_the_artifact(spec, tmp_path):
    seen = []

    def launch(command):
        seen.append((command[:-1], read_job(Path(command[-1]))))
        leave_adapter(command)

    task = task_for(spec, tmp_path, launch)
    resolve(spec.run)(task)
    [(command, job)] = seen
    assert command == [sys.executable, "-m", "training.run", "--job"]
    assert (job.stage, job.model, job.fingerprint) == (spec.name, task.model, task.fingerprint)
    assert job.objective == task.section.objective
    assert load_objective(job.objective).section.model_validate(job.settings) == task.section
    assert job.tracking == tmp_path.parents[2] / "tracking"
    assert job.inputs == {name: tmp_path.parent / name for name in spec.inputs}
    assert job.lineage == {name: f"digest of {name}" for name in spec.inputs}
    assert {path.name for path in tmp_path.iterdir()} == {"adapter_model.safetensors", WORK}
    assert pl.DataFrame(task.writer.tables["training_log"]).equals(LOG)
    assert task.writer.notes == NOTES


@pytest.mark.parametrize(
    ("spec", "section"),
    [(RIVAL_ADAPTER, RivalAdapterConfig(enabled=False)), (CEILING_ADAPTER, CeilingAdapterConfig())],
)
def test_an_adapter_that_is_not_wanted_is_an_empty_artifact_without_a_process(spec, section, tmp_path):
    task = task_for(spec, tmp_path, launch=None, section=section)
    resolve(spec.run)(task)
    assert task.writer.notes == {"skipped": f"{spec.name}.enabled is false"}
    assert task.writer.tables == {}
    assert list(tmp_path.iterdir()) == []


def test_what_a_process_leaves_that_fails_or_does_not_finish_is_no_adapter(tmp_path):
    def fail(command):
        leave_adapter(command)
        raise TrainingError("out of memory")

    def stop_early(command):
        leave_adapter(command)
        (read_job(Path(command[-1])).output / "notes.json").unlink()

    for launch, message in ((stop_early, "distilled_adapter left no adapter"), (fail, "out of memory")):
        task = task_for(DISTILLED_ADAPTER, tmp_path, launch)
        with pytest.raises(TrainingError, match=message):
            resolve(DISTILLED_ADAPTER.run)(task)
        assert (task.writer.tables, task.writer.notes) == ({}, {})
        assert [path.name for path in tmp_path.iterdir()] == [WORK]


def test_a_method_is_called_by_its_objective_and_by_what_sets_it_apart():
    class Variants(TrainingConfig):
        variants: ClassVar = {"grpo": "reward"}
        reward: str = "majority"

    assert RivalAdapterConfig().label == "sft"
    assert Variants(objective="grpo").label == "grpo"
    assert Variants(objective="grpo", reward="self_certainty").label == "grpo (self_certainty)"
    assert Variants(objective="sft", reward="self_certainty").label == "sft"


def test_what_a_process_has_finished_is_not_made_again(tmp_path):
    task = task_for(DISTILLED_ADAPTER, tmp_path, leave_adapter)
    task.writer.append = lambda *_: 1 / 0  # what cuts the stage off when the process is done
    with pytest.raises(ZeroDivisionError):
        resolve(DISTILLED_ADAPTER.run)(task)
    again = task_for(DISTILLED_ADAPTER, tmp_path, launch=None)
    resolve(DISTILLED_ADAPTER.run)(again)
    assert again.writer.notes == NOTES
    assert (tmp_path / "adapter_model.safetensors").read_bytes() == b"weights"


@pytest.mark.slow
def test_the_next_attempt_goes_on_where_the_process_crashed_to_the_same_artifact(fill, tiny_folder, tmp_path, capfd):
    def killed_after_a_checkpoint(command):
        output = read_job(Path(command[-1])).output

        def kill():
            while not list(output.glob("checkpoints/step-*")):
                time.sleep(0.01)
            held = f"{output.parent}/job.json"
            for entry in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    if held in entry.read_text().split("\0"):
                        os.kill(int(entry.parent.name), signal.SIGKILL)

        Thread(target=kill, daemon=True).start()
        run_process(command)

    def attempt(folder, launch):
        spec, inputs = RIVAL_ADAPTER, fill(tmp_path / "inputs")
        section = RivalAdapterConfig(steps=9, trajectories_per_step=2, micro_batch=1, checkpoint_every=2)
        folder.mkdir(parents=True, exist_ok=True)
        task = task_for(spec, folder, launch, section)
        task.model, task.fingerprint = ModelConfig(path=str(tiny_folder)), "0" * 64
        for name, path in inputs.items():
            if name in spec.inputs:
                task.inputs[name].folder = path
        resolve(spec.run)(task)
        files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        return files, task.writer.notes, task.writer.tables["training_log"].to_pylist()

    expected = attempt(tmp_path / "a" / "whole", run_process)
    folder = tmp_path / "b" / "killed"
    with pytest.raises(CrashError, match=r"was ended by SIGKILL .* its last lines: training .*step "):
        attempt(folder, killed_after_a_checkpoint)
    assert [path.name for path in folder.iterdir()] == [WORK]
    capfd.readouterr()
    assert attempt(folder, run_process) == expected
    assert "going on after step " in capfd.readouterr().err
    assert "adapter_model.safetensors" in expected[0]


def test_the_curve_is_drawn_from_the_log_and_the_same_every_time():
    draw = resolve(DISTILLED_ADAPTER.plot)

    def adapter(log, **notes):
        return SimpleNamespace(read=lambda: log, name="distilled_adapter", manifest=SimpleNamespace(notes=notes))

    first, second = draw(adapter(LOG)), draw(adapter(LOG))
    assert first.startswith(b"\x89PNG")
    assert first == second
    assert draw(adapter(LOG, stopped_at=3, kept_step=1)) != first
    assert draw(adapter(LOG.with_columns(entropy=pl.Series([0.3, None, 0.1])))) != first
    assert draw(adapter(LOG.clear())) is None
