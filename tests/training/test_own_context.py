"""Distillation from a question's own responses: who is told what, and into which response."""

import pytest

from pipeline.adapters.config import RivalAdapterConfig
from pipeline.answers.schemas import ANSWERS
from pipeline.errors import TrainingError
from pipeline.models import load_model
from pipeline.prompts import render_demonstrations
from pipeline.rollouts.schemas import ROLLOUTS
from pipeline.selection.schemas import CURATED_SUBSET
from pipeline.votes.schemas import PSEUDO_LABELS
from training.checks import check_job
from training.objectives import opsd_majority, u_opsd

from .conftest import put

SETTINGS = RivalAdapterConfig(objective="u_opsd", steps=2, trajectories_per_step=2, micro_batch=2, learning_rate=1e-2)
# Of each question, samples as (response, answer); the majority's representative and its vote share.
QUESTIONS = {
    "both": ([("so: red", "red"), ("red", "red"), ("why not: blue", "blue"), ("blue", "blue"), ("?", None)], 0, 0.4),
    "united": ([("red", "red"), ("ah red", "red")], 1, 1.0),
    "unsure": ([("red", "red"), ("blue", "blue"), ("teal it is", "teal")], 0, 1 / 3),
    "tied": ([("red", "red"), ("blue", "blue")], None, 0.5),
    "left": ([("red", "red"), ("red", "red"), ("blue", "blue")], 0, 2 / 3),
}


@pytest.fixture
def job(tmp_path, job_for, tiny):
    inputs = {name: tmp_path / name for name in ("curated_subset", "pseudo_labels", "rollouts", "answers", "pool")}
    rollouts, answers, labels = [], [], []
    for key, (samples, representative, share) in QUESTIONS.items():
        majority = None if representative is None else samples[representative][1]
        label = {"representative": representative, "pseudo_answer": majority, "pseudo_index": None}
        labels.append({"id": key, "vote_share": share, **label})
        for sample, (response, answer) in enumerate(samples):
            ids = tiny.tokenizer.encode(f"{response}<|end|>", add_special_tokens=False)
            row = {"id": key, "sample": sample, "prompt": f"{key}?", "permutation": [sample]}
            rollouts.append(row | {"response": response, "response_ids": ids})
            answers.append({"id": key, "sample": sample, "answer": answer, "answer_index": None})
    put(inputs["rollouts"] / "rollouts.parquet", ROLLOUTS, rollouts)
    put(inputs["answers"] / "answers.parquet", ANSWERS, answers)
    put(inputs["pseudo_labels"] / "pseudo_labels.parquet", PSEUDO_LABELS, labels)
    chosen = [{"id": key, "selected": key != "left"} for key in QUESTIONS]
    put(inputs["curated_subset"] / "curated_subset.parquet", CURATED_SUBSET, chosen)

    def make(objective, **changes):
        settings = SETTINGS.model_copy(update={"objective": objective, **changes})
        return settings, job_for(objective, tmp_path / "output", settings, inputs=inputs)

    return make


def told(key, response):
    return render_demonstrations([(f"{key}?", response)])


def test_the_teacher_is_told_the_representative_of_the_question_s_own_majority(job):
    rows = opsd_majority.read(job("opsd_majority")[1]).collect()
    assert rows.rows() == [
        ("both", "both?", [0], told("both", "so: red")),
        ("united", "united?", [1], told("united", "ah red")),
        ("unsure", "unsure?", [0], told("unsure", "red")),
    ]


def test_the_shortest_that_agrees_teaches_the_longest_that_disagrees(job, tiny):
    rows = u_opsd.read(job("u_opsd", min_consistency=0.4)[1]).collect()
    expected = ("both", "both?", [2], told("both", "red"))  # asked as the response that is learnt was
    assert rows.select("id", "prompt", "permutation", "privileged_context").rows() == [expected]
    assert tiny.tokenizer.decode(rows["response_ids"][0], skip_special_tokens=True) == "why not: blue"
    below = u_opsd.read(job("u_opsd", min_consistency=0.3)[1]).collect()
    assert below["id"].to_list() == ["both", "unsure"]
    assert tiny.tokenizer.decode(below["response_ids"][1], skip_special_tokens=True) == "teal it is"
    assert u_opsd.read(job("u_opsd", min_consistency=0.9)[1]).collect().is_empty()


def test_the_share_is_of_all_rollouts_and_may_just_be_reached(job):
    """Of five rollouts two agree and one states no answer: 2 / 5, not 2 / 4."""
    for share, found in ((0.4, ["both"]), (0.41, [])):
        assert u_opsd.read(job("u_opsd", min_consistency=share)[1]).collect()["id"].to_list() == found


def test_stored_responses_are_learnt_along_and_what_was_left_out_is_counted(job, tiny_folder, tiny_config):
    settings, made = job("u_opsd", min_consistency=0.3)
    rows = u_opsd.read(made).collect()
    trainer = u_opsd.build(made, settings, rows, load_model(tiny_config))
    seen = []
    compute = trainer.compute_loss
    trainer.compute_loss = lambda model, inputs, *a, **k: seen.append(inputs) or compute(model, inputs, *a, **k)
    trainer.train()
    stored = dict(rows.select("id", "response_ids").iter_rows())
    learnt = {
        tuple(row[kept.bool()].tolist())
        for i in seen
        for row, kept in zip(i["completion_ids"], i["loss_mask"], strict=True)
    }
    assert learnt == {tuple(ids) for ids in stored.values()}
    assert trainer.notes["questions_below_consistency"] == 1  # tied
    assert trainer.notes["questions_without_disagreement"] == 1  # united
    assert all(entry["loss"] > 0 for entry in trainer.state.log_history if "loss" in entry)


def test_too_few_are_refused_with_what_they_should_be(job, tiny_config):
    model = load_model(tiny_config)
    for share, message in ((0.9, "there are no {}"), (0.4, "1 {} are fewer")):
        settings, made = job("u_opsd", min_consistency=share)
        n_rows, rows = u_opsd.read(made).collect().height, "training questions with a response that disagrees"
        with pytest.raises(TrainingError, match=message.format(rows)):
            check_job(made.stage, settings, model, n_rows, u_opsd.OBJECTIVE.rows)


@pytest.mark.parametrize(
    ("objective", "module", "remedy"),
    [
        ("opsd_majority", opsd_majority, "lower rival_adapter.max_new_tokens or rollouts.max_new_tokens"),
        ("u_opsd", u_opsd, "lower rollouts.max_new_tokens"),
    ],
)
def test_what_does_not_fit_the_model_is_refused_with_the_settings_of_its_rollouts(
    job, tiny_config, objective, module, remedy
):
    settings, made = job(objective, min_consistency=0.3)
    model = load_model(tiny_config)
    model.model.config.max_position_embeddings = 30
    with pytest.raises(TrainingError, match=f"exceed the model's 30 positions: {remedy}$"):
        module.OBJECTIVE.build(made, settings, module.read(made).collect(), model)


def test_settings_of_other_objectives_do_not_count():
    default = RivalAdapterConfig(objective="u_opsd")
    for name in ("temperature", "max_new_tokens", "reward", "targets"):
        assert name not in default.material()
    assert {"teacher", "divergence", "min_consistency", "loss_on", "top_k"} <= default.material().keys()
    assert not {"teacher", "divergence", "min_consistency", "loss_on", "top_k"} & RivalAdapterConfig().material().keys()
