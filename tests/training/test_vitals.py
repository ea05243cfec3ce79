"""What a run logs of itself: entropy and divergence from the base model against their formulas, for every objective."""

import pytest
import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from pipeline.adapters.config import DistilledAdapterConfig, RivalAdapterConfig
from pipeline.model_config import ModelConfig
from pipeline.models import load_model
from training.objectives import load_objective
from training.objectives.objective import lora_config
from training.vitals import Vitals, kl_to_base, responses

SHARED = {"steps": 1, "trajectories_per_step": 4, "micro_batch": 2, "learning_rate": 1e-2}
SETTINGS = {
    "opsd": DistilledAdapterConfig(max_new_tokens=5, temperature=0.7, top_p=1.0, **SHARED),
    "sft": RivalAdapterConfig(**SHARED),
}


@pytest.fixture
def trainer_for(fill, job_for, tiny_folder, tmp_path):
    """Return a function that makes the trainer of an objective with changed settings."""

    def make(name, **changes):
        settings = SETTINGS[name].model_copy(update=changes)
        objective = load_objective(name)
        job = job_for(name, tmp_path, settings, inputs=fill(tmp_path / "inputs"))
        model = load_model(ModelConfig(path=str(tiny_folder)))
        return objective.build(job, settings, objective.read(job).collect(), model)

    return make


def random_student(trainer):
    torch.manual_seed(1)
    for name, parameter in trainer.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)


def record_micro_batches(trainer):
    """Return a list that receives what the trainer computes its losses of."""
    seen, compute_loss = [], trainer.compute_loss

    def compute(model, inputs, *others, **named):
        seen.append(dict(inputs))
        return compute_loss(model, inputs, *others, **named)

    trainer.compute_loss = compute
    return seen


def naive(model, ids, attention, response):
    """Return entropy of the student and KL to the base model at each response token, from whole logits in float64."""
    model.eval()
    with torch.no_grad():
        p = model(input_ids=ids, attention_mask=attention).logits.double().log_softmax(-1)
        with model.disable_adapter():
            q = model(input_ids=ids, attention_mask=attention).logits.double().log_softmax(-1)
    at = (response[:, 1:].nonzero()[:, 0], response[:, 1:].nonzero()[:, 1])  # the position that predicts each
    p, q = p[at], q[at]
    return -(p.exp() * p).sum(-1), (p.exp() * (p - q)).sum(-1)


@pytest.mark.parametrize("micro_batch", [1, 2, 4])
@pytest.mark.parametrize("objective", sorted(SETTINGS))
def test_a_step_logs_means_over_its_response_tokens_however_it_is_split(trainer_for, objective, micro_batch):
    trainer = trainer_for(objective, micro_batch=micro_batch, learning_rate=1e-30)  # weights stay, to compute again
    random_student(trainer)
    seen = record_micro_batches(trainer)
    trainer.add_callback(Vitals(trainer, kl_every=1))
    trainer.train()
    logged = trainer.state.log_history[0]
    found = [naive(trainer.model, *responses(inputs)) for inputs in seen]
    assert len(found) == 4 // micro_batch
    if objective == "sft" and micro_batch < 4:  # of unequal lengths, so that a mean of means is another figure
        assert len({len(entropies) for entropies, _ in found}) > 1
    assert logged["entropy"] == pytest.approx(float(torch.cat([entropies for entropies, _ in found]).mean()), rel=1e-4)
    assert logged["kl_to_base"] == pytest.approx(float(found[0][1].mean()), rel=1e-4)
    assert logged["kl_to_base"] > 0.01
    assert ("distinct_responses" in logged) == (objective == "opsd")


def test_response_tokens_are_the_samples_or_the_targets_and_no_padding():
    sampled = {
        "prompt_ids": torch.tensor([[0, 5], [6, 7]]),
        "prompt_mask": torch.tensor([[0, 1], [1, 1]]),
        "completion_ids": torch.tensor([[8, 9], [8, 0]]),
        "completion_mask": torch.tensor([[1, 1], [1, 0]]),
    }
    targets = {
        "input_ids": torch.tensor([[5, 8, 9], [7, 8, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]]),
        "labels": torch.tensor([[-100, 8, 9], [-100, 8, -100]]),
    }
    for inputs, prompt in ((sampled, [[0, 5], [6, 7]]), (targets, [[5], [7]])):
        ids, attention, response = responses(inputs)
        assert ids.tolist() == [prompt[0] + [8, 9], prompt[1] + [8, 0]]
        assert [row[kept].tolist() for row, kept in zip(ids, response, strict=True)] == [[8, 9], [8]]
        assert attention[response].all()


def test_equal_responses_count_once(trainer_for):
    trainer = trainer_for("opsd")
    trainer.train_dataset = Dataset.from_list([trainer.train_dataset[0]] * 4)
    trainer.generation_config.temperature = 1e-4
    trainer.add_callback(Vitals(trainer, kl_every=1))
    trainer.train()
    assert trainer.state.log_history[0]["distinct_responses"] == 0.25


def test_the_base_model_is_met_at_the_first_the_last_and_every_nth_step(trainer_for):
    trainer = trainer_for("sft", steps=5)
    trainer.add_callback(Vitals(trainer, kl_every=2))
    trainer.train()
    steps = [entry["step"] for entry in trainer.state.log_history if "kl_to_base" in entry]
    assert steps == [1, 2, 4, 5]
    assert trainer.state.log_history[0]["kl_to_base"] == 0  # before the first update


@pytest.mark.parametrize("objective", sorted(SETTINGS))
def test_watching_changes_no_weight(trainer_for, objective):
    trained = []
    for watched in (True, False):
        trainer = trainer_for(objective, steps=2, lora_dropout=0.2)
        if watched:
            trainer.add_callback(Vitals(trainer, kl_every=1))
        trainer.train()
        trained.append({name: weight.detach() for name, weight in trainer.model.named_parameters()})
    assert all(torch.equal(trained[1][name], weight) for name, weight in trained[0].items())


def test_the_divergence_is_taken_without_dropout_and_leaves_the_model_as_it_was(trainer_for):
    trainer = trainer_for("sft", lora_dropout=0.5)
    random_student(trainer)
    trainer.model.train()
    ids = torch.tensor([[5, 6, 7, 8]])
    where = (ids, torch.ones_like(ids), ids > 5)
    found = kl_to_base(trainer.model, *where)
    assert found.tolist() == pytest.approx(naive(trainer.model.train(), *where)[1].tolist(), rel=1e-4)
    assert kl_to_base(trainer.model.train(), *where).tolist() == found.tolist()
    assert trainer.model.training
    assert all(weight.requires_grad for name, weight in trainer.model.named_parameters() if "lora_" in name)


def test_a_reward_adds_what_its_trainer_logs(tiny_folder, tmp_path):
    """TRL's GRPOTrainer logs entropy and reward, and what the reward function has read, under the names taken here."""

    def reward(prompts, log_metric, **_):
        log_metric("agreement", 0.5)
        return [float(i) for i in range(len(prompts))]

    model = load_model(ModelConfig(path=str(tiny_folder)))
    trainer = GRPOTrainer(
        model=model.model,
        reward_funcs=reward,
        args=GRPOConfig(
            output_dir=str(tmp_path),
            max_steps=2,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            num_generations=2,
            max_completion_length=5,
            learning_rate=1e-2,
            logging_steps=1,
            use_cpu=True,
            bf16=False,
            report_to=[],
            disable_tqdm=True,
            save_strategy="no",
        ),
        train_dataset=Dataset.from_dict({"prompt": [[{"role": "user", "content": f"colour {i}?"}] for i in range(4)]}),
        processing_class=model.tokenizer,
        peft_config=lora_config(SETTINGS["sft"]),
    )
    trainer.add_callback(Vitals(trainer, kl_every=2))
    trainer.train()
    first, second = trainer.state.log_history[:2]
    assert first["reward"] == 1.5
    assert first["agreement"] == second["agreement"] == 0.5
    assert first["entropy"] > 0
    assert first["completions/clipped_ratio"] is not None
    assert 0.25 <= first["distinct_responses"] <= 1
    assert first["kl_to_base"] == 0 < second["kl_to_base"]
