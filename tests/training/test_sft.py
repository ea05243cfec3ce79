"""Fine-tuning on own responses: the loss against its formula, the examples against the rollouts, and the batches."""

import polars as pl
import pyarrow.parquet as pq
import pytest
import torch

from pipeline.adapters.config import DistilledAdapterConfig, RivalAdapterConfig
from pipeline.errors import TrainingError
from pipeline.model_config import ModelConfig
from pipeline.models import load_model
from pipeline.selection.schemas import CURATED_SUBSET
from pipeline.table import conform
from pipeline.votes.schemas import PSEUDO_LABELS
from training.objectives import opsd
from training.objectives.sft import build, read

SETTINGS = RivalAdapterConfig(steps=1, trajectories_per_step=4, micro_batch=2, learning_rate=1e-2)


@pytest.fixture
def inputs(fill, tmp_path):
    return fill(tmp_path / "inputs")


@pytest.fixture
def majority(job_for, inputs, tmp_path):
    return read(job_for("sft", tmp_path, SETTINGS, inputs=inputs)).collect()


@pytest.fixture
def trainer_for(job_for, inputs, tiny_folder, tmp_path):
    """Return a function that makes a trainer for rows that ``read`` returns with changed settings."""

    def make(rows, **changes):
        settings = SETTINGS.model_copy(update=changes)
        language_model = load_model(ModelConfig(path=str(tiny_folder)))
        return build(job_for("sft", tmp_path, settings, inputs=inputs), settings, rows, language_model)

    return make


def losses(model, majority):
    """Return the cross-entropy of every response token of each row, one unpadded forward pass at a time."""
    found = []
    for prompt, response in majority.select("prompt_ids", "response_ids").iter_rows():
        with torch.no_grad():
            logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
        found.append(torch.nn.functional.cross_entropy(logits, torch.tensor(response), reduction="none"))
    return found


@pytest.mark.parametrize("micro_batch", [1, 2, 4])
def test_loss_is_the_mean_cross_entropy_per_response_token_however_the_step_is_split(
    trainer_for, majority, micro_batch
):
    trainer = trainer_for(majority, micro_batch=micro_batch)
    rows = list(trainer._get_train_sampler())[:4]
    expected = losses(trainer.model, majority[rows])
    trainer.train()
    logged = trainer.state.log_history[0]
    assert logged["loss"] == pytest.approx(float(torch.cat(expected).mean()), rel=1e-4)
    assert logged["completions/mean_length"] == pytest.approx(sum(map(len, expected)) / 4)


def test_examples_are_the_prompt_and_the_response_as_the_chat_template_goes_on(tiny, trainer_for, majority):
    """TRL would add an end token to a text, and a template may go on after it; here it stands once, where sampled."""
    trainer = trainer_for(majority)
    end = tiny.tokenizer.eos_token_id
    for i, example in enumerate(trainer.train_dataset):
        prompt = [{"role": "user", "content": f"colour {i}?"}]
        asked = tiny.tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)["input_ids"]
        learnt = [token for token in example["labels"] if token != -100]
        assert example["input_ids"] == asked + learnt
        assert example["labels"][: len(asked)] == [-100] * len(asked)
        assert learnt.count(end) == 1
        answered = [*prompt, {"role": "assistant", "content": tiny.tokenizer.decode(learnt[:-1])}]
        assert tiny.tokenizer.apply_chat_template(answered, return_dict=True)["input_ids"] == example["input_ids"]


def test_a_padded_batch_leaves_padding_unlearnt_though_it_be_the_end_token(trainer_for, majority):
    """A tokenizer without a padding token pads with its end token."""
    trainer = trainer_for(majority)
    trainer.data_collator.pad_token_id = trainer.processing_class.eos_token_id
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(6)])
    lengths = [len(row) for row in majority["response_ids"]]
    assert (batch["labels"] != -100).sum(1).tolist() == lengths
    assert (batch["labels"] == trainer.processing_class.eos_token_id).sum(1).tolist() == [1] * 6


def test_long_responses_are_never_cut(trainer_for, majority):
    """TRL cuts sequences at 1024 tokens by default."""
    long = majority.head(4).with_columns(response_ids=pl.lit([9] * 2_000, dtype=pl.List(pl.Int32)))
    trainer = trainer_for(long)
    assert {sum(label != -100 for label in row) for row in trainer.train_dataset["labels"]} == {2_000}


def test_selected_questions_with_a_majority_give_their_representative_rollout(job_for, inputs, tmp_path):
    def change(name, schema, **columns):
        path = inputs[name] / f"{name}.parquet"
        changed = pl.read_parquet(path).with_columns(**columns).reverse()
        pq.write_table(conform(changed, schema, where=name), path)

    one = pl.lit(1, dtype=pl.Int32)
    change("curated_subset", CURATED_SUBSET, selected=pl.col("id") != "q0")
    change("pseudo_labels", PSEUDO_LABELS, representative=pl.when(pl.col("id") == "q1").then(None).otherwise(one))
    found = read(job_for("sft", tmp_path, SETTINGS, inputs=inputs)).collect()
    assert found["id"].to_list() == ["q2", "q3", "q4", "q5"]
    rollouts = pl.read_parquet(inputs["rollouts"] / "rollouts.parquet" / "*.parquet").sort("id")
    rollouts = rollouts.filter(pl.col("sample") == 1, pl.col("id") > "q1")
    assert found["response_ids"].to_list() == rollouts["response_ids"].to_list()


def test_every_step_takes_as_many_different_questions_as_trajectories(trainer_for, majority):
    trainer = trainer_for(majority, steps=3, micro_batch=1)
    sizes = [len(set(trainer._get_train_sampler())) for _ in range(3)]
    assert sizes == [4, 4, 4]  # the two left over wait for another epoch
    trainer.train()
    assert trainer.state.global_step == 3
    assert trainer.state.epoch == 3


def test_steps_take_the_questions_that_the_steps_of_distillation_take(
    job_for, trainer_for, majority, inputs, tiny_folder, tmp_path
):
    settings = DistilledAdapterConfig(trajectories_per_step=4, micro_batch=4)
    job = job_for("opsd", tmp_path, settings, inputs=inputs)
    contexts = opsd.read(job).collect()
    distillation = opsd.build(job, settings, contexts, load_model(ModelConfig(path=str(tiny_folder))))
    asked = [contexts["id"][i] for i in distillation._get_train_sampler()]
    assert [majority["id"][i] for i in trainer_for(majority)._get_train_sampler()] == asked


def test_dropout_is_the_adapters_alone(trainer_for, majority):
    ids = torch.tensor([[5, 6, 7, 8]])
    for dropout in (0.0, 0.5):
        trainer = trainer_for(majority, lora_dropout=dropout)
        for name, parameter in trainer.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        trainer.model.train()
        with torch.no_grad():
            same = torch.equal(trainer.model(ids).logits, trainer.model(ids).logits)
        assert same == (dropout == 0)


def several(majority, counts):
    """Return rows of as many responses to each question, told apart by their first token."""
    rows = [
        row | {"sample": sample, "response_ids": [100 + sample, *row["response_ids"]], "answer_start": 0}
        for row, n in zip(majority.iter_rows(named=True), counts, strict=True)
        for sample in range(n)
    ]
    return pl.DataFrame(rows, schema=majority.schema)


def test_each_visit_draws_one_of_a_questions_responses_and_keeps_the_order_of_questions(trainer_for, majority):
    counts = [3, 1, 2, 5, 1, 4]
    rows = several(majority, counts)
    sampler, plain = trainer_for(rows)._get_train_sampler(), trainer_for(majority)._get_train_sampler()
    seen = {question: set() for question in majority["id"]}
    for _ in range(60):
        visited = list(sampler)
        assert [rows["id"][row] for row in visited] == [majority["id"][row] for row in plain]
        for row in visited:
            seen[rows["id"][row]].add(rows["sample"][row])
    assert [len(samples) for samples in seen.values()] == counts


def test_draws_depend_on_the_samplers_generator_alone(trainer_for, majority):
    """So that a run that goes on draws as it would have."""
    rows = several(majority, [5] * 6)
    sampler, other = (trainer_for(rows)._get_train_sampler() for _ in range(2))
    epochs = [list(sampler) for _ in range(4)]
    assert [list(other) for _ in range(2)] == epochs[:2]
    resumed = trainer_for(rows)._get_train_sampler()
    resumed.generator.set_state(other.generator.get_state())
    assert [list(resumed) for _ in range(2)] == epochs[2:]
    torch.manual_seed(9)
    assert list(trainer_for(rows)._get_train_sampler()) == epochs[0]
    assert list(trainer_for(rows, seed=1)._get_train_sampler()) != epochs[0]


def test_rationales_are_the_responses_that_reason_and_what_is_left_out_is_counted(tiny, trainer_for, majority, inputs):
    texts = ["It is so. Answer: red", "Answer: red", "Look:\nred", "red"]

    def ids(text):
        return tiny.tokenizer.encode(f"{text}<|end|>", add_special_tokens=False)

    rows = [
        row | {"sample": sample, "response_ids": ids(text), "answer_start": text.index("red")}
        for row in majority.iter_rows(named=True)
        for sample, text in enumerate(texts)
    ]
    trainer = trainer_for(pl.DataFrame(rows, schema=majority.schema), targets="rationales")
    assert [row[-len(ids(texts[0])) :] for row in trainer.train_dataset["input_ids"][::2]] == [ids(texts[0])] * 6
    assert trainer.counts == {
        "training_questions": 6,
        "training_responses": 12,
        "questions_without_target": 0,
        "responses_without_reasoning": 12,
    }
    trainer.train()
    assert trainer.state.global_step == 1


def test_verified_responses_are_those_that_the_model_certifies(trainer_for, majority, tiny, monkeypatch):
    def two_pass(rows, _model):
        return rows["sample"] == 1, {"cycle_consistency": 5, "factuality": 4, "correctness": 3}

    monkeypatch.setattr("training.objectives.sft.verify", two_pass)
    trainer = trainer_for(several(majority, [3, 2, 1, 2, 2, 2]), targets="verified")
    assert [label for row in trainer.train_dataset["labels"] for label in row if label in (100, 101, 102)] == [101] * 5
    assert trainer.counts == {
        "training_questions": 5,
        "training_responses": 5,
        "questions_without_target": 1,
        "responses_refused_by_cycle_consistency": 5,
        "responses_refused_by_factuality": 4,
        "responses_refused_by_correctness": 3,
    }


@pytest.mark.parametrize(("targets", "why"), [("rationales", "reasons towards"), ("verified", "passes verification")])
def test_too_few_that_reason_or_pass_are_refused_with_what_was_left_out(trainer_for, majority, targets, why):
    """A random model says Yes and No at random: the chance that a response passes all six votes is small."""
    rows = several(majority, [1] * 6)
    with pytest.raises(TrainingError, match=f"([0-3]|no) training questions with a response that {why}"):
        trainer_for(rows, targets=targets)
