"""A run that was killed goes on to the same bytes as one that was not, for every objective."""

import json
import random
import resource
import shutil
import time
from functools import cache

import polars as pl
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from torch.utils.data import DataLoader
from trl.trainer.utils import RepeatSampler

from pipeline.digests import digest_file
from pipeline.errors import TrainingError
from pipeline.model_config import ModelConfig
from training.checkpoints import alone
from training.objectives import OBJECTIVES, load_objective
from training.reporting import Reporter
from training.run import main, train

pytestmark = pytest.mark.slow
STEPS, N_KILLS = 9, 3
WANTED = {
    "steps": STEPS,
    "trajectories_per_step": 2,  # of six questions: three epochs of three steps
    "micro_batch": 1,
    "learning_rate": 1e-2,
    "lora_dropout": 0.2,
    "checkpoint_every": 1,
    "max_new_tokens": 5,
    "temperature": 1.0,
    "num_generations": 2,
}


@pytest.fixture(scope="module")
def real_job(fill, job_for, tiny_folder):
    """Return a function that makes a job with its inputs under a folder."""

    def make(objective, root, **changes):
        section = load_objective(objective).section
        settings = {name: value for name, value in WANTED.items() if name in section.model_fields}
        model = ModelConfig(path=str(tiny_folder))
        settings = section(objective=objective, **(settings | changes))
        return job_for(objective, root / "output", settings, model=model, inputs=fill(root / "inputs"))

    return make


class EnoughError(Exception):
    """Nothing more need be seen of a run."""


class Told(Reporter):
    """Keeps its lines, and ends a run that says from where it goes on."""

    def __init__(self):
        super().__init__(None)
        self.lines = []

    def line(self, text):
        self.lines.append(text)
        if text.startswith("going on"):
            raise EnoughError


def digests(folder):
    return {path.relative_to(folder).as_posix(): digest_file(path) for path in folder.rglob("*") if path.is_file()}


def steps_kept(job):
    return sorted(int(path.name.removeprefix("step-")) for path in (job.output / "checkpoints").glob("step-*"))


def kill_after(process, job, step, pause=0.0):
    """Kill a process a moment after it has saved a step."""
    deadline = time.monotonic() + 60
    while process.is_alive() and time.monotonic() < deadline and max(steps_kept(job), default=0) < step:
        time.sleep(0.002)
    time.sleep(pause)
    process.kill()
    process.join()
    assert process.exitcode == -9


@pytest.fixture(scope="module")
def undisturbed(real_job, start, tmp_path_factory):
    """Return a function that returns what an objective leaves that nobody disturbs, without any checkpoint."""

    @cache
    def run(objective):
        job = real_job(objective, tmp_path_factory.mktemp("undisturbed"), checkpoint_every=0)
        start(job).join()
        assert (job.output / "notes.json").exists()
        return digests(job.output)

    return run


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_run_killed_at_random_steps_ends_in_the_same_bytes(undisturbed, real_job, start, tmp_path, objective):
    job, draw = real_job(objective, tmp_path), random.Random(objective)
    for step in sorted(draw.sample(range(1, STEPS - 1), N_KILLS)):
        kill_after(start(job), job, step, pause=draw.uniform(0, 0.05))
        assert not (job.output / "notes.json").exists()
    start(job).join()
    assert digests(job.output) == undisturbed(objective)


def cut(folder):
    (folder / "state.safetensors").write_bytes((folder / "state.safetensors").read_bytes()[:-1])


def turn_a_bit(folder):
    content = (folder / "adapter_model.safetensors").read_bytes()
    (folder / "adapter_model.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def lose_a_file(folder):
    (folder / "trainer_state.json").unlink()


def cut_the_manifest(folder):
    (folder / "manifest.json").write_text('{"files": ')


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(undisturbed, real_job, start, tmp_path):
    job = real_job("sft", tmp_path)
    for step, damage in enumerate((cut, turn_a_bit, lose_a_file, cut_the_manifest, empty), start=2):
        kill_after(start(job), job, step)
        before, newest = steps_kept(job)[-2:]
        folder = job.output / "checkpoints" / f"step-{newest:08}"
        damage(folder)
        told = Told()
        with pytest.raises(EnoughError):
            train(job, told)
        assert told.lines[-2:] == [
            f"{folder} is damaged and passed over",
            f"going on after step {before}, from {folder.with_name(f'step-{before:08}')}",
        ]
    start(job).join()
    assert digests(job.output) == undisturbed("sft")


@pytest.fixture(scope="module")
def stopped(real_job, start, tmp_path_factory):
    """Return a function that makes a job whose run was killed, under a folder."""
    first = real_job("sft", tmp_path_factory.mktemp("stopped"))
    kill_after(start(first), first, 3)

    def copy(root):
        job = real_job("sft", root)
        shutil.copytree(first.output, job.output)
        return job

    return copy


def refused(job, message):
    before = digests(job.output)
    with pytest.raises(TrainingError, match=message):
        train(job, Reporter(None))
    assert digests(job.output) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 0.02}, r"rival_adapter.learning_rate = 0.01, not 0.02: set it back .* delete the folder"),
        ({"steps": 20}, "rival_adapter.steps = 9, not 20"),
    ],
)
def test_checkpoints_of_other_settings_are_refused_by_name(stopped, real_job, tmp_path, changes, message):
    stopped(tmp_path)
    refused(real_job("sft", tmp_path, **changes), message)


def test_checkpoints_of_another_model_or_of_other_questions_are_refused(stopped, tmp_path, tiny_folder):
    job = stopped(tmp_path)
    refused(job.model_copy(update={"fingerprint": "1"}), "the job's fingerprint = , not 1")
    shutil.copytree(tiny_folder, tmp_path / "other")
    other = ModelConfig(path=str(tmp_path / "other"))
    refused(job.model_copy(update={"model": other}), f"model.path = {tiny_folder}, not {other.path}")
    shard = job.inputs["rollouts"] / "rollouts.parquet" / "shard-00001.parquet"
    pq.write_table(pq.read_table(shard).slice(1), shard)
    refused(job, "the training questions' digest = ")


def test_other_weights_under_the_same_name_are_refused(real_job, start, tmp_path, tiny_folder):
    shutil.copytree(tiny_folder, tmp_path / "model")
    job = real_job("sft", tmp_path).model_copy(update={"model": ModelConfig(path=str(tmp_path / "model"))})
    kill_after(start(job), job, 2)
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + bytes(4))
    refused(job, "the model's fingerprint = ")


def test_settings_that_change_no_result_may_change(undisturbed, real_job, start, tmp_path):
    job = real_job("sft", tmp_path, checkpoint_every=3)
    kill_after(start(job), job, 6)
    assert {step % 3 for step in steps_kept(job)} == {0}
    start(real_job("sft", tmp_path, checkpoint_every=0)).join()
    assert digests(job.output) == undisturbed("sft")


def test_a_full_disk_is_an_error_that_names_the_folder_and_keeps_the_last_checkpoint(stopped, undisturbed, tmp_path):
    job = stopped(tmp_path)
    folder = job.output / "checkpoints"
    last = folder / f"step-{steps_kept(job)[-1]:08}"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    too_little = (last / "state.safetensors").stat().st_size // 2
    resource.setrlimit(resource.RLIMIT_FSIZE, (too_little, limits[1]))  # the system itself refuses, midway in a file
    try:
        refused(job, f"{folder} cannot be written .*: make room there; {last} is kept")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    train(job, Reporter(None))
    assert digests(job.output) == undisturbed("sft")


@pytest.mark.parametrize(
    ("learning_rate", "message", "kept"),
    [(1e39, "step 1: weights of the adapter are no numbers", []), (1e20, "step 2: the loss is nan", [1])],
)
def test_what_is_no_number_is_never_saved(real_job, tmp_path, learning_rate, message, kept):
    job = real_job("sft", tmp_path, learning_rate=learning_rate, warmup_share=0.0)
    with pytest.raises(TrainingError, match=message) as caught:
        train(job, Reporter(None))
    assert steps_kept(job) == kept
    assert str(caught.value).endswith("checkpoints/step-00000001 is kept") == bool(kept)


def test_a_subset_of_no_questions_is_refused_with_what_keeps_some(real_job, tmp_path):
    job = real_job("sft", tmp_path)
    subset = job.inputs["curated_subset"] / "curated_subset.parquet"
    pq.write_table(pq.read_table(subset).slice(0, 0), subset)
    with pytest.raises(
        TrainingError, match=r"there are no training questions with a response to learn: keep .*curated_subset"
    ):
        train(job, Reporter(None))


def test_two_processes_never_train_into_the_same_folder(real_job, start, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("training.checkpoints._SECONDS_TO_END", 0.3)
    job = real_job("sft", tmp_path, steps=100_000)
    first = start(job)
    deadline = time.monotonic() + 60
    while not steps_kept(job) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert main(["--job", str(tmp_path / "job.json")]) == 2
    assert f"another process is training into {job.output}" in capfd.readouterr().err
    first.kill()
    first.join()
    with alone(job.output):
        pass


def test_the_sampler_of_trl_still_forgets_the_epochs_of_a_run_that_goes_on():
    """TRL 1.16: no ``set_epoch``, so that Trainer's resume begins with the order of the first epoch again."""

    def sampler():
        return RepeatSampler(Dataset.from_dict({"x": list(range(20))}), mini_repeat_count=1, seed=0)

    whole, again = sampler(), sampler()
    first, second = list(whole), list(whole)
    loader = DataLoader(range(20), sampler=again)
    assert not hasattr(loader.sampler, "set_epoch")
    assert first != second
    assert list(again) == first


def test_a_checkpoint_holds_nothing_that_could_run_and_loads_as_an_adapter(real_job, start, tmp_path):
    job = real_job("opsd", tmp_path)
    kill_after(start(job), job, 3)
    newest = sorted((job.output / "checkpoints").glob("step-*"))[-1]
    assert {path.suffix for path in newest.iterdir()} == {".json", ".safetensors", ".md"}
    log = json.loads((newest / "trainer_state.json").read_text())["log_history"]
    assert pl.DataFrame(log)["step"].to_list() == list(range(1, int(newest.name[-8:]) + 1))
    held = load_file(newest / "state.safetensors")
    assert {name.partition(".")[0] for name in held} == {"optimizer", "EMATeacher", "Guard"}
    assert all(torch.isfinite(tensor).all() for tensor in held.values())
