"""Several processes against one: real processes of torchrun on the CPU, and how they end."""

import json
import os
import runpy
import shutil
import subprocess
import sys

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from pipeline.adapters.config import DistilledAdapterConfig, RivalAdapterConfig
from pipeline.adapters.job import write_job
from pipeline.errors import TrainingError
from pipeline.model_config import ModelConfig
from pipeline.paths import PROJECT_ROOT
from training.distributed import join, missing_processes, take_gpu
from training.objectives.opsd import OPSDTrainer
from training.reporting import Reporter
from training.run import train

pytestmark = pytest.mark.slow
SHARED = {"steps": 4, "trajectories_per_step": 4, "micro_batch": 4, "learning_rate": 1e-2}
SAMPLED = {"max_new_tokens": 12, "temperature": 1.0, "top_p": 0.95}
JOBS = {
    "base": DistilledAdapterConfig(teacher="base", **SAMPLED, **SHARED),
    "ema": DistilledAdapterConfig(teacher="ema", ema_decay=0.5, **SAMPLED, **SHARED),
    "few": DistilledAdapterConfig(
        teacher="base", loss_tokens=1, truncated="drop", seed=2, **SAMPLED | SHARED | {"max_new_tokens": 1}
    ),
    "sft": RivalAdapterConfig(**SHARED),
}
SPLITS = {"two": {"processes": 2, "micro_batch": 2}, "two-accumulated": {"processes": 2, "micro_batch": 1}}
TRAIN = """
import json, sys
from pathlib import Path
from pipeline.adapters.job import read_job
from training.distributed import leave, rank
from training.objectives.opsd import OPSDTrainer
from training.reporting import open_reporter
from training.run import train

generate, drawn = OPSDTrainer._generate, []


def recorded(self, prompts):
    found = generate(self, prompts)
    drawn.append([self.state.global_step, rank(), found[1]])
    return found


OPSDTrainer._generate = recorded
for path in map(Path, sys.argv[1:]):
    drawn.clear()
    with open_reporter() as reporter:
        train(read_job(path), reporter)
    path.with_name(f"drawn-{rank()}.json").write_text(json.dumps(drawn))
leave()
"""
FAIL = """
import os, signal, sys
import torch
from torch import distributed
from pipeline.adapters.config import TrainingConfig
from training.distributed import join, rank

join("rival_adapter", TrainingConfig(objective="sft", processes=2), "cpu")
distributed.init_process_group("gloo")
if rank():
    if sys.argv[1] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    raise ValueError("why")
distributed.all_reduce(torch.ones(1))
"""
LAUNCH = "import sys; from training.distributed import launch; sys.exit(launch(sys.argv[1:], 2))"


def run_python(*arguments):
    env = os.environ | {"PYTHONPATH": str(PROJECT_ROOT)}  # for scripts elsewhere
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=PROJECT_ROOT, env=env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def ending_folder(tiny_folder, tmp_path_factory):
    """A model of which every fourth token ends a response, so that lengths differ."""
    folder = tmp_path_factory.mktemp("model") / "ending"
    shutil.copytree(tiny_folder, folder)
    path = folder / "generation_config.json"
    settings = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(settings | {"eos_token_id": list(range(3, 200, 4))}))
    return folder


@pytest.fixture(scope="module")
def job_in(fill, job_for, ending_folder):
    """Return a function that writes a job into a folder and returns it."""

    def make(name, folder, **changes):
        settings = JOBS[name].model_copy(update=changes)
        objective, model = settings.objective, ModelConfig(path=str(ending_folder))
        job = job_for(objective, folder / "output", settings, model=model, inputs=fill(folder / "inputs"))
        write_job(job, folder / "job.json")
        return job

    return make


@pytest.fixture(scope="module")
def trained(job_in, tmp_path_factory):
    """Folder of every job, trained in one process and, however split, in two."""
    root = tmp_path_factory.mktemp("trained")
    (root / "train.py").write_text(TRAIN)
    folders = {split: [root / f"{name}-{split}" for name in JOBS] for split in ("one", *SPLITS)}
    for split, of_split in folders.items():
        for name, folder in zip(JOBS, of_split, strict=True):
            job_in(name, folder, **SPLITS.get(split, {}))
    paths = {split: [folder / "job.json" for folder in of_split] for split, of_split in folders.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train.py", *map(str, paths["one"])])
        patch.setattr(OPSDTrainer, "_generate", OPSDTrainer._generate)  # as it was, afterwards
        runpy.run_path(str(root / "train.py"))
    together = run_python("-c", LAUNCH, root / "train.py", *(path for split in SPLITS for path in paths[split]))
    assert together.returncode == 0, together.stderr
    progress = ["training", *["step"] * 4, "adapter"]
    said = [line.split(" ")[0] for line in together.stderr.splitlines()]
    assert [word for word in said if word in progress] == progress * len(JOBS) * len(SPLITS)  # rank 0 alone
    return root


def drawn(folder):
    """Return the responses of each step, in the order of the step's rows."""
    found = [entry for path in sorted(folder.glob("drawn-*.json")) for entry in json.loads(path.read_text())]
    return {
        step: [response for at, _, tokens in sorted(found) if at == step for response in tokens] for step, _, _ in found
    }


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", JOBS)
def test_two_processes_train_what_one_does(trained, name, split):
    one, two = trained / f"{name}-one", trained / f"{name}-{split}"
    if name != "sft":
        lengths = {len(response) for responses in drawn(one).values() for response in responses}
        assert len(lengths) > 4 or name == "few"
        assert drawn(two) == drawn(one)
    if name == "few":  # of which in one step a single token of both processes counts
        assert 1 in [sum(response[-1] % 4 == 3 for response in responses) for responses in drawn(one).values()]
    weights, again = (load_file(folder / "output" / "adapter_model.safetensors") for folder in (one, two))
    flat, flat_again = (torch.cat([each[key].flatten() for key in sorted(weights)]) for each in (weights, again))
    assert float((flat - flat_again).norm() / flat.norm()) < 1e-5
    log, log_again = (pl.read_parquet(folder / "output" / "training_log.parquet") for folder in (one, two))
    for column in ("loss", "grad_norm", "response_tokens"):
        assert log_again[column].to_list() == pytest.approx(log[column].to_list(), rel=1e-5)


def test_a_job_starts_its_processes_and_what_all_of_them_refuse_is_told_once(job_in, tmp_path):
    job = job_in("base", tmp_path, processes=2, micro_batch=4, trajectories_per_step=8)
    done = run_python("-m", "training.run", "--job", tmp_path / "job.json")
    assert done.returncode == 2
    assert done.stderr.startswith("error: 6 training questions are fewer than distilled_adapter.trajectories_per_step")
    assert done.stderr.count("\n") == 1
    assert not job.output.exists()


@pytest.mark.parametrize("end", ["crash", "kill"])
def test_the_end_of_one_process_ends_all_and_is_told_at_last(tmp_path, end):
    (tmp_path / "fail.py").write_text(FAIL)
    done = run_python("-c", LAUNCH, tmp_path / "fail.py", end)
    expected = {
        "crash": "[rank1]: ValueError: why",
        "kill": "error: process 1 of 2 was ended by SIGKILL: is the memory exhausted?",
    }
    lines = done.stderr.splitlines()
    assert lines[-1] == expected[end]
    assert done.returncode == 1
    assert "gloo" not in done.stderr
    assert "torch/distributed" not in done.stderr
    assert lines.count(expected[end]) == 1


@pytest.mark.parametrize("variable", ["ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP"])
def test_weights_that_are_shared_out_are_refused_before_the_model_is_loaded(job_in, tmp_path, monkeypatch, variable):
    job = job_in("base", tmp_path)
    absent = job.model_copy(update={"model": ModelConfig(path=str(tmp_path / "none"))})
    monkeypatch.setenv(variable, "true")
    named = {"ACCELERATE_USE_DEEPSPEED": "DeepSpeed .*trl#6828, trl#6829, trl#6237", "ACCELERATE_USE_FSDP": "FSDP"}
    with pytest.raises(TrainingError, match=f"{variable} is set: .* {named[variable]}.*: use DDP"):
        train(absent, Reporter(None))


def test_there_must_be_as_many_processes_as_the_settings_say(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(TrainingError, match=r"started as 3 processes, but rival_adapter.processes = 2: set it to 3"):
        join("rival_adapter", RivalAdapterConfig(processes=2), "cpu")


def test_a_process_without_a_gpu_of_its_own_is_refused(monkeypatch):
    for variable in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(variable, "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(TrainingError, match=r"rival_adapter.processes = 2: .* 1 .* has no GPU, there are 1"):
        take_gpu("rival_adapter", RivalAdapterConfig(processes=2))


@pytest.mark.parametrize("settings", [{}, {"processes": 1}, {"processes": "2"}])
def test_a_job_that_asks_for_no_other_process_starts_none(job_for, tmp_path, settings):
    write_job(job_for("sft", tmp_path, JOBS["sft"]).model_copy(update={"settings": settings}), tmp_path / "job.json")
    assert missing_processes(tmp_path / "job.json") == 0
    assert missing_processes(tmp_path / "none.json") == 0


def test_a_process_of_torchrun_starts_no_others(job_for, tmp_path, monkeypatch):
    write_job(job_for("sft", tmp_path, RivalAdapterConfig(processes=2)), tmp_path / "job.json")
    assert missing_processes(tmp_path / "job.json") == 2
    monkeypatch.setenv("RANK", "0")
    assert missing_processes(tmp_path / "job.json") == 0
