"""The stage on disk: what is asked, that it resumes, and the gate before the training."""

import logging

import pytest

from pipeline.adapters.config import DistilledAdapterConfig
from pipeline.adapters.gate import require_lift
from pipeline.chain import materialize
from pipeline.errors import TrainingError
from pipeline.lift.config import TeacherLiftConfig
from pipeline.lift.stage import TEACHER_LIFT_STAGE
from pipeline.neurons.config import NeuronScoresConfig
from pipeline.rollouts import run as rollouts_run
from pipeline.rollouts.config import RolloutsConfig
from pipeline.stages import stage_of
from pipeline.teacher.config import TeacherContextsConfig

KEYS = "abcdefghij"
POOL = [
    {"id": key, "group": key, "question": f"Which is {key}{key}?", "options": ["green", "red"], "permutation": [1, 0]}
    for key in KEYS
]
LABELS = [
    {"id": key, "state": "majority", "pseudo_answer": "green", "pseudo_index": 0, "representative": 0} for key in KEYS
]
SAMPLING = RolloutsConfig(n_samples=2, max_new_tokens=4, temperature=0.7, instruction="Say.")
SECTION = TeacherLiftConfig(n_questions=4, n_samples=2)


@pytest.fixture
def before(run, put, tiny_config):
    """Return what makes all that the stage reads, up to the contexts of a builder."""

    def make(builder="random"):
        put(run, "pool", pool=POOL)
        for name, section in (
            ("rollouts", SAMPLING),
            ("answers", None),
            ("neuron_scores", NeuronScoresConfig(top_k=9)),
        ):
            spec = stage_of(name)
            materialize(spec, section or spec.section(), tiny_config, run)
        put(run, "pseudo_labels", inputs=["rollouts", "answers"], pseudo_labels=LABELS)
        put(
            run,
            "curated_subset",
            inputs=["pseudo_labels"],
            curated_subset=[{"id": key, "selected": True} for key in KEYS],
        )
        contexts = TeacherContextsConfig(builder=builder, n_demonstrations=2)
        return materialize(stage_of("teacher_contexts"), contexts, tiny_config, run).artifact.read()

    return make


@pytest.fixture
def lift(run, tiny_config):
    def run_stage(**changes):
        return materialize(TEACHER_LIFT_STAGE, SECTION.model_copy(update=changes), tiny_config, run)

    return run_stage


def shown_in(prompt):
    return {key for key in KEYS if f"Which is {key}{key}?" in prompt}


def test_questions_are_asked_with_own_further_and_wrong_examples(before, lift):
    contexts = {row["id"]: row for row in before().iter_rows(named=True)}
    artifact = lift().artifact
    rollouts = artifact.read("lift_rollouts")
    asked = {key.partition("-")[2] for key in rollouts["id"]}
    assert 0 < len(asked) <= 4
    assert len(rollouts) == len(asked) * 3 * 2
    prompts = dict(rollouts.select("id", "prompt").iter_rows())
    for key in asked:
        own, further, wrong = (shown_in(prompts[f"{name}-{key}"]) - {key} for name in ("own", "further", "wrong"))
        assert own == set(contexts[key]["demonstration_ids"])
        assert len(further) == 2
        assert own.isdisjoint(further)
        assert wrong.isdisjoint(own | further)
        others = [row["privileged_context"] for other, row in contexts.items() if other != key]
        assert any(prompts[f"wrong-{key}"].startswith(other) for other in others)
    assert set(artifact.read()["id"]) == asked
    assert set(artifact.read("lift_answers")["examples"]) == {"none", "own", "further", "wrong"}


def test_further_examples_are_the_next_nearest(before, lift, run, tiny_config):
    near = {row["id"]: row["demonstration_ids"] for row in before("neuron_overlap").iter_rows(named=True)}
    prompts = dict(lift().artifact.read("lift_rollouts").select("id", "prompt").iter_rows())
    wide = TeacherContextsConfig(builder="neuron_overlap", n_demonstrations=4)
    ranked = materialize(stage_of("teacher_contexts"), wide, tiny_config, run).artifact.read()
    asked = [row for row in ranked.iter_rows(named=True) if f"further-{row['id']}" in prompts]
    assert asked
    for row in asked:
        further = row["demonstration_ids"][:2]  # the nearest stand last
        assert row["demonstration_ids"][2:] == near[row["id"]]
        shown = prompts[f"further-{row['id']}"]
        assert shown_in(shown) == {row["id"], *further}
        assert shown.index(f"is {further[0] * 2}?") < shown.index(f"is {further[1] * 2}?")


def test_nothing_is_drawn_twice_and_the_figures_of_judging_draw_nothing(before, lift, monkeypatch):
    before()
    first = lift().artifact
    monkeypatch.setattr(rollouts_run, "load_model", None)
    assert lift().cached
    assert lift(batch_tokens=99).cached
    again = lift(confidence_level=0.5)
    assert not again.cached
    order = ("id", "sample")
    assert again.artifact.read("lift_rollouts").sort(order).equals(first.read("lift_rollouts").sort(order))


def test_no_questions_mean_no_verdict_and_no_model(before, lift, monkeypatch):
    before()
    monkeypatch.setattr(rollouts_run, "load_model", None)
    artifact = lift(n_questions=0).artifact
    assert artifact.read().is_empty()
    assert artifact.manifest.notes == {"skipped": "teacher_lift.n_questions is 0."}


@pytest.mark.parametrize("builder", ["none", "pseudo_solution"])
def test_contexts_that_nothing_can_be_compared_with_get_no_verdict(before, lift, monkeypatch, builder):
    before(builder)
    monkeypatch.setattr(rollouts_run, "load_model", None)
    notes = lift().artifact.manifest.notes
    assert (notes["outcome"], notes["n_questions"]) == ("cannot tell", 0)


NOTES = {"outcome": "no lift", "verdict": "no lift: a lift of +0.1 points."}


def gate(notes, mode):
    require_lift({"teacher_lift": notes}, DistilledAdapterConfig(require_lift=mode))


def test_the_gate_stops_or_warns_with_figures_and_remedy(caplog):
    said = r"teacher_lift: no lift: a lift of \+0.1 points. Take another teacher_contexts.builder"
    with pytest.raises(TrainingError, match=f"{said}.*require_lift=warn$"):
        gate(NOTES, "stop")
    with caplog.at_level(logging.WARNING):
        gate(NOTES, "warn")
    assert said.replace("\\", "") in caplog.text


@pytest.mark.parametrize("mode", ["stop", "warn"])
def test_the_gate_says_nothing_to_go(caplog, mode):
    gate({"outcome": "go", "verdict": "go: ..."}, mode)
    assert not caplog.text


def test_a_lift_that_was_not_tried_cannot_be_required(caplog):
    gate({"skipped": "teacher_lift.n_questions is 0."}, "warn")
    assert not caplog.text
    with pytest.raises(TrainingError, match="n_questions is 0"):
        gate({"skipped": "teacher_lift.n_questions is 0."}, "stop")


def test_nothing_is_trained_where_the_lift_is_required_and_not_there(run, put, tiny_config):
    put(run, "tests")
    put(run, "pool", pool=POOL)
    put(run, "teacher_contexts", teacher_contexts=[{"id": "a"}])
    put(run, "teacher_lift", inputs=["teacher_contexts"], notes=NOTES)
    section = DistilledAdapterConfig(require_lift="stop")
    with pytest.raises(TrainingError, match="no lift"):
        materialize(stage_of("distilled_adapter"), section, tiny_config, run)
    assert run.find("distilled_adapter") is None
