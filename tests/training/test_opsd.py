"""Distillation: the loss against its formula, the teachers against theirs, and what a job is refused for."""

import polars as pl
import pytest
import torch
from torch import nn
from trl.trainer.utils import split_tensor_dict

from pipeline.adapters.config import DistilledAdapterConfig
from pipeline.errors import TrainingError
from pipeline.model_config import ModelConfig
from pipeline.models import encode_chat, load_model
from pipeline.prompts import render_teacher_prompt
from pipeline.teacher.schemas import TEACHER_CONTEXTS
from training.checks import check_job
from training.objectives.opsd import build, check_lengths
from training.teacher import _teacher_forward

SETTINGS = DistilledAdapterConfig(
    steps=3, trajectories_per_step=4, micro_batch=2, learning_rate=1e-2, max_new_tokens=5, temperature=0.7, top_p=1.0
)


def contexts(n: int = 6, context: str = "Example\nred\nResponse: blue\n\n") -> pl.DataFrame:
    rows = [(f"q{i}", f"colour {i}?", context, ["x"], [0.5], 30, 0) for i in range(n)]
    return pl.DataFrame(rows, schema=pl.DataFrame(TEACHER_CONTEXTS.empty_table()).schema, orient="row")


@pytest.fixture
def trainer_for(job_for, tiny_folder, tmp_path):
    """Return a function that makes a trainer with changed settings."""

    def make(questions=None, language_model=None, **changes):
        settings = SETTINGS.model_copy(update=changes)
        questions = contexts() if questions is None else questions
        language_model = language_model or load_model(ModelConfig(path=str(tiny_folder)))
        return build(job_for("opsd", tmp_path, settings), settings, questions, language_model)

    return make


def step_inputs(trainer):
    trainer.model.train()
    return trainer._prepare_training_batch([trainer.train_dataset[i] for i in range(4)])


def random_student(trainer):
    torch.manual_seed(1)
    for name, parameter in trainer.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)


@pytest.mark.parametrize("divergence", ["reverse_kl", "forward_kl", "jsd"])
def test_loss_is_the_mean_divergence_per_response_token_at_temperature_one(trainer_for, divergence):
    trainer = trainer_for(divergence=divergence, teacher="base")
    random_student(trainer)
    inputs = step_inputs(trainer)
    loss = trainer.compute_loss(trainer.model, inputs).detach()
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


def test_ema_teacher_starts_at_the_student_and_averages_effective_weights(trainer_for):
    trainer = trainer_for(teacher="ema", ema_decay=0.9)
    name, layer = next(iter(trainer.ema._layers.items()))
    start = trainer.ema.deltas[name].clone()
    assert torch.equal(start, layer.get_delta_weight("default"))
    random_student(trainer)
    moved = layer.get_delta_weight("default").detach()
    trainer.ema.update()
    assert torch.allclose(trainer.ema.deltas[name], 0.9 * start + 0.1 * moved, atol=1e-6)
    assert not torch.allclose(trainer.ema.deltas[name], start)


def test_ema_teacher_computes_with_base_plus_average(trainer_for):
    trainer = trainer_for(teacher="ema", ema_decay=0.0)
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


def test_loss_weighs_tokens_alike_however_the_step_is_split(trainer_for):
    trainer = trainer_for(teacher="base")
    random_student(trainer)
    inputs = step_inputs(trainer)
    assert inputs["n_step_tokens"].tolist() == [int(inputs["completion_mask"].sum())] * 4
    inputs["completion_mask"][0, 1:] = 0  # responses of unequal lengths
    inputs["n_step_tokens"] = inputs["completion_mask"].sum().expand(4)
    whole = trainer.compute_loss(trainer.model, inputs)
    parts = [trainer.compute_loss(trainer.model, part) for part in split_tensor_dict(inputs, 2)]
    assert float(sum(parts).detach()) == pytest.approx(float(whole.detach()), rel=1e-5)


@pytest.mark.parametrize("kind", ["base", "live", "ema"])
def test_each_teacher_has_its_own_weights(trainer_for, kind):
    trainer = trainer_for(teacher=kind, ema_decay=0.5)
    random_student(trainer)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        student = trainer.model(ids).logits
        with trainer.model.disable_adapter():
            base = trainer.model(ids).logits
        if trainer.ema:
            trainer.ema.update()
        with trainer._get_teacher_context_for_self_distillation():
            teacher = trainer.model(ids).logits
    assert torch.equal(teacher, student) == (kind == "live")
    assert torch.equal(teacher, base) == (kind == "base")


def test_bfloat16_teacher_keeps_an_average_smaller_than_the_weights_precision():
    """An update that moves every output by 0.1 has entries that a bfloat16 sum with the weights rounds away."""
    torch.manual_seed(0)
    linear = nn.Linear(4096, 64, bias=False, dtype=torch.bfloat16)
    x = torch.ones(1, 4096, dtype=torch.bfloat16)
    delta = torch.full((64, 4096), 0.1 / 4096)
    with torch.no_grad():
        moved = (_teacher_forward(linear, delta, x) - linear(x)).float().mean()
        merged = ((linear.weight + delta).bfloat16() - linear.weight).float().sum(1).mean()
    assert float(moved) == pytest.approx(0.1, rel=0.05)
    assert float(merged) != pytest.approx(0.1, rel=0.05)


def test_dropout_is_the_students_alone(trainer_for):
    trainer = trainer_for(teacher="live", lora_dropout=0.5)
    random_student(trainer)
    trainer.model.train()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        assert not torch.equal(trainer.model(ids).logits, trainer.model(ids).logits)
        with trainer._get_teacher_context_for_self_distillation():
            assert torch.equal(trainer.model(ids).logits, trainer.model(ids).logits)
    assert trainer.model.training


def test_sampling_has_the_configured_temperature_and_every_step_takes_different_questions(trainer_for):
    trainer = trainer_for()
    assert trainer.generation_config.temperature == SETTINGS.temperature
    assert trainer.args.warmup_steps == SETTINGS.warmup_share
    assert len(set(list(trainer._get_train_sampler())[:4])) == 4


def test_teacher_prompt_is_the_pipelines_own_and_never_cut(trainer_for, tiny_folder):
    """TRL cuts prompts from the left at 512 tokens by default."""
    long = "Example\n" + "a" * 600
    language_model = load_model(ModelConfig(path=str(tiny_folder)))
    language_model.model.config.max_position_embeddings = 1024
    trainer = trainer_for(contexts(context=long), language_model)
    inputs = step_inputs(trainer)
    prompt = encode_chat(trainer.processing_class, render_teacher_prompt(long, "colour 0?"))
    assert len(prompt) > 512
    assert inputs["teacher_input_ids"][0, : len(prompt)].tolist() == prompt


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trajectories_per_step": 8, "micro_batch": 8}, "6 training questions are fewer"),
        ({"micro_batch": 3}, "distilled_adapter.micro_batch = 3 does not divide"),
        ({"lora_targets": ["q_porj"]}, "did you mean 'q_proj'"),
    ],
)
def test_jobs_that_cannot_train_are_refused(tiny, settings, message):
    with pytest.raises(TrainingError, match=message):
        check_job("distilled_adapter", SETTINGS.model_copy(update=settings), tiny, 6, "training questions")


def test_teacher_prompts_that_do_not_fit_are_refused(tiny):
    with pytest.raises(TrainingError, match="exceed the model's 512 positions"):
        check_lengths("distilled_adapter", SETTINGS, tiny, contexts(context="a" * 600))
