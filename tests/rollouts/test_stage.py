"""The stage on disk: bytes that a kill does not change, and nothing that is sampled twice."""

import logging
import os
import random
import signal
import subprocess
import sys
import time

import polars as pl
import pytest
import torch
from peft import LoraConfig, get_peft_model

from pipeline.answers import early
from pipeline.chain import materialize
from pipeline.models import load_model
from pipeline.paths import PROJECT_ROOT
from pipeline.predictions.config import PredictionsConfig
from pipeline.rollouts import run as rollouts_run
from pipeline.rollouts.config import RolloutsConfig
from pipeline.rollouts.stage import ROLLOUTS_STAGE
from pipeline.stages import open_store, stage_of
from pipeline.store import shards

SECTION = RolloutsConfig(n_samples=2, max_new_tokens=6, temperature=0.8, instruction="", batch_tokens=400)
N = 40


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(shards, "QUESTIONS_PER_SHARD", 4)


def questions(n, prefix="q"):
    return [
        {"id": f"{prefix}{i:02}", "question": "x" * i, "options": ["red", "blue"], "permutation": [0, 1]}
        for i in range(n)
    ]


@pytest.fixture
def sample(put, tiny_config):
    """Return a function that asks ``n`` questions in a run."""

    def sample_run(run, n=N, **changes):
        put(run, "pool", pool=questions(n))
        return materialize(ROLLOUTS_STAGE, SECTION.model_copy(update=changes), tiny_config, run)

    return sample_run


@pytest.fixture
def asked(monkeypatch):
    """Return the ids that are sampled, in a list that grows."""
    found, whole = [], rollouts_run.sample_rollouts

    def sample(chosen, *arguments):
        found.extend(chosen["id"])
        return whole(chosen, *arguments)

    monkeypatch.setattr(rollouts_run, "sample_rollouts", sample)
    return found


def files(artifact):
    return {path.name: path.read_bytes() for path in artifact.files()}


@pytest.mark.parametrize("attempt", range(2))
def test_a_run_killed_at_any_time_goes_on_and_ends_with_the_same_bytes(tmp_path, put, sample, tiny_config, attempt):
    whole, killed = (open_store(tmp_path / name).run("test") for name in ("whole", "killed"))
    expected = sample(whole).artifact
    put(killed, "pool", pool=questions(N))
    program = f"""
import time
from pathlib import Path
from pipeline.chain import materialize
from pipeline.model_config import ModelConfig
from pipeline.rollouts import run as rollouts_run
from pipeline.stages import open_store, stage_of
from pipeline.store import shards

shards.QUESTIONS_PER_SHARD = 4
sample = rollouts_run.sample_rollouts
rollouts_run.sample_rollouts = lambda *arguments: (time.sleep(0.1), sample(*arguments))[1]
spec, run = stage_of("rollouts"), open_store(Path({str(killed.store.root)!r})).run("test")
materialize(spec, spec.section(**{SECTION.model_dump()!r}), ModelConfig(path={tiny_config.path!r}), run)
"""

    def stored():
        return list((killed.store.artifacts / "rollouts").glob(".*.part/rollouts.parquet/*.parquet"))

    process = subprocess.Popen([sys.executable, "-c", program], cwd=PROJECT_ROOT, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not stored():
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(random.Random(attempt).random() * 0.5)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert killed.find("rollouts") is None
    kept = {path.name: path.stat().st_mtime_ns for path in stored()}
    artifact = sample(killed).artifact
    assert kept.items() <= {path.name: path.stat().st_mtime_ns for path in artifact.files()}.items()
    assert files(artifact) == files(expected)
    assert artifact.manifest.digest == expected.manifest.digest


def test_every_question_has_all_its_samples(run, sample, asked):
    artifact = sample(run).artifact
    assert len(artifact.files()) > 4
    assert sorted(asked) == [question["id"] for question in questions(N)]
    assert artifact.manifest.rows == {"rollouts": 2 * N}
    assert artifact.read().sort("id", "sample")["id", "sample"].rows() == [
        (question["id"], number) for question in questions(N) for number in (0, 1)
    ]


def test_new_questions_are_sampled_and_the_rows_of_the_others_stay(run, sample, asked):
    before = sample(run).artifact
    asked.clear()
    after = sample(run, n=N + 2).artifact
    assert sorted(asked) == ["q40", "q41"]
    old = pl.col("id").is_in(["q40", "q41"]).not_()
    assert after.read().filter(old).sort("id", "sample").equals(before.read().sort("id", "sample"))
    assert after.manifest.rows == {"rollouts": 2 * (N + 2)}
    asked.clear()
    assert sample(run).artifact.manifest == before.manifest
    assert (
        sample(run, n=N - 2)
        .artifact.read()
        .sort("id", "sample")
        .equals(before.read().filter(pl.col("id") < "q38").sort("id", "sample"))
    )
    assert asked == []


def test_a_question_that_changed_is_sampled_again(run, put, sample, asked, tiny_config):
    sample(run, n=8)
    asked.clear()
    put(run, "pool", pool=[questions(8)[0] | {"options": ["blue", "red"]}, *questions(8)[1:]])
    materialize(ROLLOUTS_STAGE, SECTION, tiny_config, run)
    assert asked == ["q00"]


@pytest.mark.parametrize("change", [{"seed": 1}, {"temperature": 0.9}, {"n_samples": 3}, {"instruction": "Say."}])
def test_what_changes_responses_has_all_sampled_again(run, sample, asked, change):
    sample(run, n=8)
    asked.clear()
    assert not sample(run, n=8, **change).cached
    assert len(asked) == 8


def test_what_bounds_memory_has_nothing_sampled_again(run, sample, asked):
    first = sample(run, n=8)
    asked.clear()
    again = sample(run, n=8, batch_tokens=100)
    assert again.cached
    assert again.artifact.manifest == first.artifact.manifest
    assert asked == []


def test_responses_without_answers_are_warned_of_before_the_rest_is_sampled_and_change_nothing(
    tmp_path, sample, asked, monkeypatch
):
    told = []

    class Ear(logging.Handler):
        def emit(self, record):
            told.append((len(asked), record.getMessage()))

    ear, logger = Ear(), logging.getLogger("pipeline.answers.early")
    monkeypatch.setattr(logger, "handlers", [ear])
    looked = sample(open_store(tmp_path / "looked").run("test"), n_samples=4).artifact
    ((n_asked, message),) = told
    assert 25 <= n_asked < N
    assert message.startswith("rollouts: of the first 1")
    assert len(message.splitlines()) == 5
    monkeypatch.setattr(early, "FIRST", 1_000)
    plain = sample(open_store(tmp_path / "plain").run("test"), n_samples=4).artifact
    assert len(told) == 1
    assert files(looked) == files(plain)
    assert looked.manifest.fingerprint == plain.manifest.fingerprint


def test_prompts_that_do_not_fit_are_counted(run, put, sample, tiny_config):
    put(run, "pool", pool=[*questions(4), questions(1, "long")[0] | {"question": "x" * 600}])
    notes = materialize(ROLLOUTS_STAGE, SECTION, tiny_config, run).artifact.manifest.notes
    counted = notes["finish_reasons/rollouts"]
    assert counted.pop("prompt_too_long") == SECTION.n_samples
    assert sum(counted.values()) == 4 * SECTION.n_samples


def asked_rows(outcome):
    """Return the rows of each test's responses; of P(True), which is not asked for, there are none."""
    rows = dict(outcome.artifact.manifest.rows)
    assert rows.pop("in_domain_p_true") == rows.pop("out_of_domain_p_true") == 0
    return rows


@pytest.fixture
def predict(run, put, tiny_config):
    """Return a function that asks one of the models the tests."""
    put(run, "rollouts", settings=SECTION.model_dump(), rollouts=[])
    put(run, "tests", in_domain=questions(8, "i"), out_of_domain=questions(4, "o"))

    def predict_model(name, **changes):
        section = PredictionsConfig(n_samples=2).model_copy(update=changes)
        return materialize(stage_of(name), section, tiny_config, run)

    return predict_model


def test_new_questions_of_both_tests_are_asked_alone(put, run, predict, asked):
    predict("base_predictions")
    put(run, "tests", in_domain=questions(10, "i"), out_of_domain=questions(5, "o"))
    asked.clear()
    assert asked_rows(predict("base_predictions")) == {"in_domain": 20, "out_of_domain": 10}
    assert sorted(asked) == ["i08", "i09", "o04"]


@pytest.fixture
def save_adapter(run, put, tiny_config):
    """Return a function that stores an adapter of random weights."""

    def save(seed):
        torch.manual_seed(seed)
        config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
        adapter = get_peft_model(load_model(tiny_config).model, config)
        put(run, "distilled_adapter", model=tiny_config, settings={"seed": seed}, save=adapter.save_pretrained)

    return save


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT 0.21 with transformers 5.23
def test_the_untouched_model_is_not_asked_again_for_another_adapter(run, put, predict, asked, save_adapter):
    base = predict("base_predictions")
    assert sorted(asked) == sorted([q["id"] for q in (*questions(8, "i"), *questions(4, "o"))])
    assert asked_rows(base) == {"in_domain": 16, "out_of_domain": 8}
    found = []
    for seed in (1, 2):
        save_adapter(seed)
        asked.clear()
        assert predict("base_predictions").cached
        assert asked == []
        found.append(predict("distilled_predictions"))
        assert len(asked) == 12
    first, second = (outcome.artifact.read("in_domain").sort("id", "sample")["logprobs"] for outcome in found)
    plain = base.artifact.read("in_domain").sort("id", "sample")["logprobs"]
    assert not first.equals(second)
    assert not first.equals(plain)


def test_an_adapter_left_out_leaves_no_predictions(run, put, predict, asked):
    put(run, "rival_adapter", notes={"skipped": "rival_adapter.enabled is false"})
    artifact = predict("rival_predictions").artifact
    assert set(artifact.manifest.rows.values()) == {0}
    assert artifact.manifest.notes == {"skipped": "rival_adapter.enabled is false"}
    assert asked == []
