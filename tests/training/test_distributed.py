"""Several processes against one: real processes of torchrun on the CPU, and how they end."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from pipeline.adapters.config import DistilledAdapterConfig, RivalAdapterConfig
from pipeline.adapters.job import write_job
from pipeline.errors import TrainingError
from pipeline.model_config import ModelConfig
from pipeline.paths import PROJECT_ROOT
from training.checks import check_job
from training.distributed import join, missing_processes

SHARED = {"steps": 4, "trajectories_per_step": 4, "micro_batch": 4, "learning_rate": 1e-2}
SAMPLED = {"max_new_tokens": 12, "temperature": 1.0, "top_p": 0.95}
JOBS = {
    "base": DistilledAdapterConfig(teacher="base", **SAMPLED, **SHARED),
    "ema": DistilledAdapterConfig(teacher="ema", ema_decay=0.5, **SAMPLED, **SHARED),
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
LAUNCH = "import sys; from training.distributed import launch; sys.exit(launch(sys.argv[1:], 2))"


def run_python(*arguments):
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=PROJECT_ROOT, capture_output=True, text=True, check=False
    )


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
    alone = run_python(root / "train.py", *paths["one"])
    together = run_python("-c", LAUNCH, root / "train.py", *(path for split in SPLITS for path in paths[split]))
    assert (alone.returncode, together.returncode) == (0, 0), alone.stderr + together.stderr
    return root


def drawn(folder):
    """Return the responses of each step, in the order of the step's rows."""
    found = [entry for path in sorted(folder.glob("drawn-*.json")) for entry in json.loads(path.read_text())]
    return {step: sum((tokens for _, _, tokens in sorted(e for e in found if e[0] == step)), []) for step, *_ in found}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", JOBS)
def test_two_processes_train_what_one_does(trained, name, split):
    one, two = trained / f"{name}-one", trained / f"{name}-{split}"
    if name != "sft":
        lengths = {len(response) for responses in drawn(one).values() for response in responses}
        assert len(lengths) > 4
        assert drawn(two) == drawn(one)
    weights, again = (load_file(folder / "output" / "adapter_model.safetensors") for folder in (one, two))
    flat, flat_again = (torch.cat([each[key].flatten() for key in sorted(weights)]) for each in (weights, again))
    assert float((flat - flat_again).norm() / flat.norm()) < 1e-5
    log, log_again = (pl.read_parquet(folder / "output" / "training_log.parquet") for folder in (one, two))
    for column in ("loss", "grad_norm", "response_tokens"):
        assert log_again[column].to_list() == pytest.approx(log[column].to_list(), rel=1e-5)
