"""Distillation: the loss against its formula, the teachers against theirs, and what a job is refused for."""

import polars as pl
import pytest
import torch
from transformers import TrainerCallback
from trl.trainer.utils import split_tensor_dict

from pipeline.adapters.config import DistilledAdapterConfig
from pipeline.errors import TrainingError
from pipeline.generation.config import Sampling
from pipeline.model_config import ModelConfig
from pipeline.models import LanguageModel, encode_chat, load_model
from pipeline.prompts import render_teacher_prompt
from pipeline.teacher.schemas import TEACHER_CONTEXTS
from training.checks import check_job
from training.objectives.opsd import build, check_lengths
from training.sampling import sample_responses
from training.teacher import LowRank
from training.vitals import Vitals

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


def product(delta):
    return delta.left @ delta.right


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
    start = product(trainer.ema.deltas[name])
    assert torch.equal(start, layer.get_delta_weight("default"))
    random_student(trainer)
    moved = layer.get_delta_weight("default").detach()
    trainer.ema.update()
    average = product(trainer.ema.deltas[name])
    assert torch.allclose(average, 0.9 * start + 0.1 * moved, atol=1e-6)
    assert not torch.allclose(average, start)


def test_ema_teacher_is_the_exact_average_up_to_its_bound_and_takes_twice_the_adapter(trainer_for):
    """A whole training at a rank that the average exceeds; the exact average is dense and in float64."""
    trainer = trainer_for(teacher="ema", ema_decay=0.9, lora_rank=2, lora_alpha=4, steps=30)
    ema = trainer.ema
    exact = {name: product(delta).double() for name, delta in ema.deltas.items()}

    class Average(TrainerCallback):
        def on_step_end(self, *_args, **_named):
            for name, layer in ema._layers.items():
                exact[name].lerp_(layer.get_delta_weight("default").detach().double(), 0.1)

    trainer.add_callback(Average())
    trainer.train()
    size = sum(factor.numel() for delta in ema.deltas.values() for factor in delta)
    assert size == 2 * sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    distance = torch.stack([(product(delta) - exact[name]).norm() for name, delta in ema.deltas.items()]).norm()
    error = float(distance / torch.stack([average.norm() for average in exact.values()]).norm())
    assert 1e-5 < error < 0.02
    assert error <= ema.error_bound() <= 5 * error
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        base = trainer.model.get_base_model()
        log_probs = [trainer.model(ids).logits.log_softmax(-1)]
        for deltas in (
            ema.deltas,
            {name: LowRank(delta.float(), torch.eye(delta.shape[1])) for name, delta in exact.items()},
        ):
            ema.deltas = deltas
            with ema.active():
                log_probs.append(base(ids).logits.log_softmax(-1))
    student, teacher, dense = log_probs
    assert float((teacher - dense).abs().max()) < 0.02 * float((student - dense).abs().max())


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


@pytest.mark.parametrize("micro_batch", [1, 2, 4])
def test_loss_is_the_mean_over_the_tokens_that_count_of_the_whole_step(trainer_for, micro_batch):
    """Of one response none count, of one all, of the others the first two; by hand, token by token."""
    trainer = trainer_for(teacher="base", micro_batch=micro_batch)
    random_student(trainer)
    chosen = [0, 5, 2, 2]
    trainer.loss_mask = lambda keys, _prompts, _responses, mask: torch.stack(
        [mask[row] * (torch.arange(mask.shape[1]) < chosen[row]) for row in range(len(keys))]
    )
    inputs = step_inputs(trainer)
    counted = []
    for row in range(4):
        prompt, ids = (
            inputs[name][row][inputs[f"{name[:-4]}_mask"][row].bool()] for name in ("prompt_ids", "completion_ids")
        )
        told = inputs["teacher_input_ids"][row][inputs["teacher_attention_mask"][row].bool()]
        with torch.no_grad():
            p = trainer.model(torch.cat([prompt, ids])[None]).logits[0, -len(ids) - 1 : -1].double().log_softmax(-1)
            with trainer.model.disable_adapter():
                q = trainer.model(told[None]).logits[0, -len(ids) - 1 : -1].double().log_softmax(-1)
        counted.append((p.exp() * (p - q)).sum(-1)[: chosen[row]])
    assert sum(map(len, counted)) > 5
    parts = split_tensor_dict(inputs, 4 // micro_batch)
    loss = sum(float(trainer.compute_loss(trainer.model, part).detach()) for part in parts)
    assert loss == pytest.approx(float(torch.cat(counted).mean()), rel=1e-4)


def test_steps_in_which_no_token_counts_have_no_loss_and_leave_the_weights(trainer_for):
    trainer = trainer_for(max_new_tokens=1, truncated="drop")
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    trainer.add_callback(Vitals(trainer, kl_every=1))
    trainer.train()
    steps = trainer.state.log_history[:3]
    assert [(step["loss"], step["grad_norm"], "entropy" in step) for step in steps] == [(0, 0, False)] * 3
    assert all(torch.equal(p, before[name]) for name, p in trainer.model.named_parameters() if p.requires_grad)


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


def test_every_step_takes_different_questions(trainer_for):
    trainer = trainer_for()
    assert trainer.args.warmup_steps == SETTINGS.warmup_share
    assert len(set(list(trainer._get_train_sampler())[:4])) == 4


@pytest.mark.parametrize("micro_batch", [1, 4])
def test_samples_are_drawn_by_settings_seed_step_and_question_however_the_step_is_split(trainer_for, micro_batch):
    trainer = trainer_for(micro_batch=micro_batch, top_p=0.9, seed=3)
    random_student(trainer)
    trainer.state.global_step = 7
    batch = step_inputs(trainer)
    rows = zip(batch["completion_ids"], batch["completion_mask"].bool(), strict=True)
    found = [ids[mask].tolist() for ids, mask in rows]
    student = LanguageModel(trainer.model.get_base_model(), trainer.processing_class)
    prompts = [encode_chat(student.tokenizer, f"colour {i}?") for i in range(4)]
    sampling = Sampling(temperature=SETTINGS.temperature, top_p=0.9, max_new_tokens=SETTINGS.max_new_tokens)
    drawn = sample_responses(student, prompts, sampling, [(f"q{i}", 0) for i in range(4)], seed=3, step=7)
    assert found == [completion.response_ids for completion in drawn]


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
        ({"lora_targets": ["q_porj"]}, "did you mean 'q_proj'"),
        ({"lora_targets": ["q_proj", "lm_head"]}, "the output layer 'lm_head' cannot be adapted"),
    ],
)
def test_jobs_that_cannot_train_are_refused(tiny, settings, message):
    with pytest.raises(TrainingError, match=message):
        check_job("distilled_adapter", SETTINGS.model_copy(update=settings), tiny, 6, "training questions")


def test_teacher_prompts_that_do_not_fit_are_refused(tiny):
    with pytest.raises(TrainingError, match="exceed the model's 512 positions"):
        check_lengths("distilled_adapter", SETTINGS, tiny, contexts(context="a" * 600))


@pytest.mark.parametrize("teacher", ["base", "ema"])
def test_activation_checkpointing_keeps_less_and_changes_nothing(trainer_for, teacher):
    found = {}
    for checkpointing in (False, True):
        trainer = trainer_for(teacher=teacher, activation_checkpointing=checkpointing, lora_dropout=0.1)
        kept = []
        forward = trainer.compute_loss

        def counted(model, inputs, forward=forward, kept=kept, **named):
            sizes = []
            with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.nbytes) or x, lambda x: x):
                loss = forward(model, inputs, **named)
            kept.append(sum(sizes))
            return loss

        trainer.compute_loss = counted
        trainer.train()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        weights = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
        found[checkpointing] = (losses, weights, kept)
    (losses, weights, kept), (again, weights_again, kept_again) = found[False], found[True]
    assert again == pytest.approx(losses, rel=1e-5)
    assert all(torch.allclose(weights[name], weights_again[name], atol=1e-6) for name in weights)
    assert len(kept) == len(kept_again) == 6
    assert all(less < all_ / 3 for less, all_ in zip(kept_again, kept, strict=True))
