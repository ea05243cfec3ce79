"""Distillation: the loss against its formula, the teachers against theirs, and the job as a program."""

import json
import subprocess
import sys

import polars as pl
import pytest
import torch
from peft import PeftModel

from pipeline.artifacts import ArtifactStore, digest_json
from pipeline.config import (
    PROJECT_ROOT,
    CuratedSubsetConfig,
    DistilledAdapterConfig,
    ModelConfig,
    TeacherContextsConfig,
)
from pipeline.errors import ConfigError, TrainingError
from pipeline.jobs import DistillationJob, read_job, write_job
from pipeline.models import load_model
from pipeline.schemas import TEACHER_CONTEXTS
from training.checks import check_job
from training.opsd import build_trainer

SETTINGS = DistilledAdapterConfig(
    steps=3, trajectories_per_step=4, micro_batch=2, learning_rate=1e-2, max_new_tokens=5, temperature=0.7, top_p=1.0
)


def contexts(n: int = 6, context: str = "Example\nred\nResponse: blue\n\n") -> pl.DataFrame:
    rows = [(f"q{i}", f"colour {i}?", context, ["x"], [0.5], 30, 0) for i in range(n)]
    return pl.DataFrame(rows, schema=pl.DataFrame(TEACHER_CONTEXTS.empty_table()).schema, orient="row")


def trainer_for(folder, tmp_path, **changes):
    settings = SETTINGS.model_copy(update=changes)
    return build_trainer(settings, load_model(ModelConfig(path=str(folder))), contexts(), tmp_path)


def step_inputs(trainer):
    trainer.model.train()
    return trainer._prepare_training_batch([trainer.train_dataset[i] for i in range(4)])


def random_student(trainer):
    torch.manual_seed(1)
    for name, parameter in trainer.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)


@pytest.mark.parametrize("divergence", ["reverse_kl", "forward_kl", "jsd"])
def test_loss_is_the_mean_divergence_per_response_token_at_temperature_one(tiny_folder, tmp_path, divergence):
    trainer = trainer_for(tiny_folder, tmp_path, divergence=divergence, teacher="base")
    random_student(trainer)
    inputs = step_inputs(trainer)
    loss = trainer.compute_loss(trainer.model, inputs)
    n_kept, mask = inputs["completion_ids"].shape[1], inputs["completion_mask"].bool()

    def log_probs(ids, attention):
        return trainer.model(input_ids=ids, attention_mask=attention).logits[:, -n_kept - 1 : -1].log_softmax(-1)

    with torch.no_grad():
        full = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
        p = log_probs(full, torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1))[mask]
        with trainer.model.disable_adapter():
            q = log_probs(inputs["teacher_input_ids"], inputs["teacher_attention_mask"])[mask]
    m = ((p.exp() + q.exp()) / 2).log()
    kl = lambda a, b: (a.exp() * (a - b)).sum(-1)  # noqa: E731
    expected = {"reverse_kl": kl(p, q), "forward_kl": kl(q, p), "jsd": (kl(p, m) + kl(q, m)) / 2}[divergence]
    assert float(loss) == pytest.approx(float(expected.mean()), rel=1e-4)
    assert float(loss) > 0


def test_ema_teacher_starts_at_the_student_and_averages_effective_weights(tiny_folder, tmp_path):
    trainer = trainer_for(tiny_folder, tmp_path, teacher="ema", ema_decay=0.9)
    name, layer = next(iter(trainer.ema._layers.items()))
    start = trainer.ema.deltas[name].clone()
    assert torch.equal(start, layer.get_delta_weight("default"))
    random_student(trainer)
    moved = layer.get_delta_weight("default").detach()
    trainer.ema.update()
    assert torch.allclose(trainer.ema.deltas[name], 0.9 * start + 0.1 * moved, atol=1e-6)
    assert not torch.allclose(trainer.ema.deltas[name], start)


def test_ema_teacher_computes_with_base_plus_average(tiny_folder, tmp_path):
    trainer = trainer_for(tiny_folder, tmp_path, teacher="ema", ema_decay=0.0)
    random_student(trainer)
    trainer.ema.update()  # without memory the average is the student
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        student = trainer.model(ids).logits
        with trainer.ema.active():
            teacher = trainer.model(ids).logits
        again = trainer.model(ids).logits
    assert torch.allclose(teacher, student, atol=1e-5)
    assert torch.equal(student, again)


def test_teacher_prompt_is_never_cut(tiny_folder, tmp_path):
    """TRL cuts prompts from the left at 512 tokens by default."""
    long = "Example\n" + "a" * 380
    trainer = build_trainer(SETTINGS, load_model(ModelConfig(path=str(tiny_folder))), contexts(context=long), tmp_path)
    inputs = step_inputs(trainer)
    text = trainer.processing_class.decode(inputs["teacher_input_ids"][0])
    assert long in text


@pytest.mark.parametrize(
    ("settings", "rows", "message"),
    [
        ({"trajectories_per_step": 8, "micro_batch": 8}, contexts(), "6 training questions are fewer"),
        ({"micro_batch": 3}, contexts(), "does not divide"),
        ({"lora_targets": ["q_porj"]}, contexts(), "did you mean 'q_proj'"),
        ({}, contexts(context="a" * 600), "exceed the model's 512 positions"),
    ],
)
def test_jobs_that_cannot_train_are_refused(tiny, settings, rows, message):
    with pytest.raises(TrainingError, match=message):
        check_job(SETTINGS.model_copy(update=settings), tiny, rows)


def job_for(folder, tmp_path, name):
    store = ArtifactStore(tmp_path / name)
    with store.write("teacher_contexts", "f", {}) as writer:
        writer.append("teacher_contexts", contexts())
    job = DistillationJob(
        contexts_path=store.path("teacher_contexts"),
        store_root=store.root,
        fingerprint=digest_json(name),
        provenance={"inputs": {"teacher_contexts": "digest"}},
        model=ModelConfig(path=str(folder)),
        settings=SETTINGS,
        curated_subset=CuratedSubsetConfig(),
        teacher_contexts=TeacherContextsConfig(),
        work_dir=tmp_path / f"{name}-work",
    )
    write_job(job, tmp_path / f"{name}.json")
    command = [sys.executable, "-m", "training.distill", "--job", str(tmp_path / f"{name}.json")]
    return store, subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)


def test_the_program_trains_and_its_bytes_repeat(tiny_folder, tmp_path):
    store, done = job_for(tiny_folder, tmp_path, "one")
    assert done.returncode == 0, done.stderr
    assert "step 3/3" in done.stderr
    assert store.read("distilled_adapter", "training_log")["step"].to_list() == [1, 2, 3]
    base = load_model(ModelConfig(path=str(tiny_folder))).model
    ids = torch.tensor([[5, 6, 7]])
    before = base(ids).logits.detach()
    adapted = PeftModel.from_pretrained(base, store.root / "distilled_adapter")
    assert not torch.allclose(before, adapted(ids).logits, atol=1e-5)
    other, _ = job_for(tiny_folder, tmp_path, "two")
    file = "distilled_adapter/adapter_model.safetensors"
    assert (store.root / file).read_bytes() == (other.root / file).read_bytes()


def test_unknown_job_key_is_refused_by_name(tmp_path):
    path = tmp_path / "job.json"
    path.write_text(json.dumps({"contexts_pth": "x"}))
    with pytest.raises(ConfigError, match="did you mean 'contexts_path'"):
        read_job(path)


def test_user_errors_are_one_line(tmp_path):
    command = [sys.executable, "-m", "training.distill", "--job", str(tmp_path / "missing.json")]
    done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: job")
    assert done.stderr.count("\n") == 1
