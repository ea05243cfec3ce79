"""The stage on disk: nothing is drawn that is not asked for or was drawn before, and only from the rollouts' model."""

import polars as pl
import pytest
import torch

from pipeline.beliefs.config import ContextBeliefsConfig
from pipeline.beliefs.stage import CONTEXT_BELIEFS_STAGE
from pipeline.chain import materialize
from pipeline.errors import ArtifactError
from pipeline.model_config import ModelConfig
from pipeline.models import load_model
from pipeline.neurons.config import NeuronScoresConfig
from pipeline.rollouts import run as rollouts_run
from pipeline.rollouts.config import RolloutsConfig
from pipeline.stages import stage_of

ASKED = {"a": ("Colour of grass?", ["green", "red"]), "b": ("Two plus two?", ["4", "5"]), "c": ("Is it?", ["y", "n"])}
POOL = [
    {"id": key, "group": key, "question": question, "options": options, "permutation": [1, 0]}
    for key, (question, options) in ASKED.items()
]
LABELS = [
    {"id": key, "state": "majority", "pseudo_answer": options[0], "pseudo_index": 0, "representative": 0}
    for key, (_, options) in ASKED.items()
]
SECTION = ContextBeliefsConfig(n_samples=2, builder="random", n_demonstrations=1, seed=5)
SAMPLING = RolloutsConfig(n_samples=2, max_new_tokens=4, temperature=0.7, instruction="Say.")


@pytest.fixture
def before(run, put, tiny_config):
    """A run with all that the stage reads."""
    put(run, "pool", pool=POOL)
    for name, section in (("rollouts", SAMPLING), ("answers", None), ("neuron_scores", NeuronScoresConfig(top_k=9))):
        spec = stage_of(name)
        materialize(spec, section or spec.section(), tiny_config, run)
    put(run, "pseudo_labels", inputs=["rollouts", "answers"], pseudo_labels=LABELS)
    return run


@pytest.fixture
def believe(before, tiny_config):
    def run_stage(model=tiny_config, **changes):
        return materialize(CONTEXT_BELIEFS_STAGE, SECTION.model_copy(update=changes), model, before)

    return run_stage


@pytest.fixture
def no_model(monkeypatch):
    monkeypatch.setattr(rollouts_run, "load_model", None)


def test_every_question_is_asked_with_a_context_of_another(believe):
    artifact = believe().artifact
    assert artifact.manifest.rows == {"context_beliefs": 3, "context_rollouts": 6}
    rollouts = artifact.read("context_rollouts").sort("id", "sample")
    assert rollouts["id", "sample"].rows() == [(key, sample) for key in ASKED for sample in (0, 1)]
    for key, prompt in rollouts.select("id", "prompt").iter_rows():
        others = [question for other, (question, _) in ASKED.items() if other != key]
        assert prompt.startswith("Example\n")
        assert prompt.count(ASKED[key][0]) == 1
        assert sum(question in prompt for question in others) == 1
    assert artifact.read().sort("id")["id", "n_samples"].rows() == [(key, 2) for key in ASKED]


def test_no_samples_give_empty_tables_without_loading_the_model(believe, no_model):
    artifact = believe(n_samples=0).artifact
    assert artifact.manifest.rows == {"context_beliefs": 0, "context_rollouts": 0}
    assert artifact.read().is_empty()


def test_nothing_is_drawn_twice(before, believe, monkeypatch):
    first = believe()
    monkeypatch.setattr(rollouts_run, "load_model", None)
    for again in (believe(), believe(batch_tokens=100)):
        assert again.cached
        assert again.artifact.manifest == first.artifact.manifest


def test_a_context_that_changed_is_asked_again_alone(before, believe, put, monkeypatch):
    first, asked, sample = believe().artifact, [], rollouts_run.sample_rollouts
    monkeypatch.setattr(
        rollouts_run, "sample_rollouts", lambda chosen, *rest: (asked.extend(chosen["id"]), sample(chosen, *rest))[1]
    )
    shown = {row["id"]: row["prompt"] for row in first.read("context_rollouts").iter_rows(named=True)}
    put(
        before,
        "pseudo_labels",
        inputs=["rollouts", "answers"],
        pseudo_labels=[LABELS[0] | {"representative": 1}, *LABELS[1:]],
    )
    after = believe().artifact.read("context_rollouts")
    changed = {row["id"] for row in after.iter_rows(named=True) if row["prompt"] != shown[row["id"]]}
    assert set(asked) == changed != set()
    assert changed == {key for key, prompt in shown.items() if key != "a" and ASKED["a"][0] in prompt}
    kept = pl.col("id").is_in(list(changed)).not_()
    order = ("id", "sample")
    assert after.filter(kept).sort(order).equals(first.read("context_rollouts").filter(kept).sort(order))


def test_other_weights_than_those_of_the_rollouts_are_refused(tmp_path, before, believe, tiny, tiny_config):
    loaded, changed = load_model(tiny_config), tmp_path / "model"
    with torch.no_grad():
        loaded.model.lm_head.weight[0, 0] += 1
    loaded.model.save_pretrained(changed)
    tiny.tokenizer.save_pretrained(changed)
    with pytest.raises(ArtifactError, match=r"'rollouts' .*with other weights.*materialize 'rollouts' again"):
        believe(ModelConfig(path=str(changed)))
    assert before.find("context_beliefs") is None


def test_votes_of_other_rollouts_are_refused(before, believe, tiny_config):
    spec = stage_of("rollouts")
    materialize(spec, SAMPLING.model_copy(update={"seed": 1}), tiny_config, before)
    with pytest.raises(ArtifactError, match=r"was made from another 'rollouts' than the run's"):
        believe()
