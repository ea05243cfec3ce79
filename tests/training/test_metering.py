"""What a training costs: tokens by what passes the model, kept step by step for whoever started the process."""

import os
import signal
import subprocess
import sys
import time

import polars as pl
import pytest

from pipeline.adapters.config import DistilledAdapterConfig, RivalAdapterConfig
from pipeline.adapters.job import write_job
from pipeline.ledger.usage import Cost
from pipeline.model_config import ModelConfig
from pipeline.models import encode_chat
from pipeline.paths import PROJECT_ROOT
from pipeline.prompts import render_teacher_prompt
from training import vitals
from training.reporting import Reporter
from training.run import train

N_QUESTIONS, N_STEPS = 6, 3
SHARED = {"steps": N_STEPS, "trajectories_per_step": N_QUESTIONS, "micro_batch": 2, "learning_rate": 1e-2}
SETTINGS = {
    "opsd": DistilledAdapterConfig(max_new_tokens=5, temperature=1.0, **SHARED),
    "sft": RivalAdapterConfig(**SHARED),
}


@pytest.fixture
def job(fill, job_for, tiny_folder, tmp_path):
    """Return a function that makes a job, every step of which takes every question once."""

    def make(objective, **changes):
        settings = SETTINGS[objective].model_copy(update=changes)
        model, inputs = ModelConfig(path=str(tiny_folder)), fill(tmp_path / "inputs")
        return job_for(objective, tmp_path / "output", settings, model=model, inputs=inputs, costs=tmp_path)

    return make


def cost(job):
    return Cost.model_validate_json((job.costs / "cost-0.json").read_bytes())


@pytest.fixture
def compared(monkeypatch):
    """Return the tokens that comparisons with the base model read, as these go on."""
    read = []

    def kl_to_base(model, ids, attention, response):
        read.extend([int(attention.sum())] * 2)  # by the student, and by the base model
        return real(model, ids, attention, response)

    real = vitals.kl_to_base
    monkeypatch.setattr(vitals, "kl_to_base", kl_to_base)
    return read


def test_fine_tuning_trains_on_prompts_and_responses_and_compares_itself_with_the_base_model(job, compared):
    fine_tuning = job("sft")
    train(fine_tuning, Reporter(None))
    rollouts = pl.read_parquet(fine_tuning.inputs["rollouts"] / "rollouts.parquet").filter(sample=1)
    n_tokens = rollouts.select(pl.col("prompt_ids", "response_ids").list.len().sum()).row(0)
    spent = cost(fine_tuning)
    assert spent.trained_tokens == N_STEPS * sum(n_tokens)
    assert spent.generated_tokens == 0
    assert spent.read_tokens == sum(compared) > 0
    assert spent.seconds > 0
    assert spent.processor_seconds > 0
    assert spent.peak_memory > 0


@pytest.mark.parametrize(("micro_batch", "teacher"), [(2, "ema"), (6, "live")])
def test_distillation_samples_reads_as_teacher_and_trains(job, tiny, compared, micro_batch, teacher):
    distillation = job("opsd", micro_batch=micro_batch, teacher=teacher)
    train(distillation, Reporter(None))
    contexts = pl.read_parquet(distillation.inputs["teacher_contexts"] / "teacher_contexts.parquet")
    shown = contexts.select("privileged_context", "prompt").rows()
    prompts, teacher_prompts = (
        sum(len(encode_chat(tiny.tokenizer, text)) for text in texts)
        for texts in ([prompt for _, prompt in shown], [render_teacher_prompt(*row) for row in shown])
    )
    mean_lengths = pl.read_parquet(distillation.output / "training_log.parquet")["response_tokens"]
    spent = cost(distillation)
    assert spent.generated_tokens == pytest.approx(mean_lengths.sum() * N_QUESTIONS)
    assert spent.trained_tokens == N_STEPS * prompts + spent.generated_tokens
    assert spent.read_tokens == N_STEPS * (prompts + teacher_prompts) + spent.generated_tokens + sum(compared)


def test_nobody_asks_and_nothing_is_kept_or_changed(job):
    distillation = job("opsd")
    train(distillation, Reporter(None))
    adapter = (distillation.output / "adapter_model.safetensors").read_bytes()
    (distillation.costs / "cost-0.json").unlink()
    train(distillation.model_copy(update={"costs": None}), Reporter(None))
    assert not list(distillation.output.parent.rglob("cost-*"))
    assert (distillation.output / "adapter_model.safetensors").read_bytes() == adapter


def test_a_folder_that_cannot_be_written_fails_no_training(job, tmp_path, caplog):
    fine_tuning = job("sft").model_copy(update={"costs": tmp_path / "missing"})
    train(fine_tuning, Reporter(None))
    assert (fine_tuning.output / "notes.json").is_file()
    assert len([message for message in caplog.messages if "is not recorded" in message]) == 1


def test_what_a_killed_process_did_is_known(job, tmp_path):
    fine_tuning = job("sft", steps=100_000)
    write_job(fine_tuning, tmp_path / "job.json")
    command = [sys.executable, "-m", "training.run", "--job", str(tmp_path / "job.json")]
    with subprocess.Popen(command, cwd=PROJECT_ROOT, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            if (tmp_path / "cost-0.json").exists() and cost(fine_tuning).trained_tokens:
                break
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert cost(fine_tuning).trained_tokens > 0
    assert cost(fine_tuning).processor_seconds > 0
