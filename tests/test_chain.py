"""Running stages: what makes one run again, what runs share, and inputs that are refused."""

import json
import shlex
import shutil
from types import SimpleNamespace

import pytest

from pipeline.chain import Materialization, determining_settings, materialize, run_chain
from pipeline.config import Config
from pipeline.deduplication.config import PoolConfig
from pipeline.errors import ArtifactError, ConfigError, QuarantineError
from pipeline.fingerprint import Code
from pipeline.model_config import ModelConfig
from pipeline.presets import load_config
from pipeline.stages import CATALOGUE, STAGES, stage_of

ROWS = [
    {"question": f"{stem}?", "options": [f"{stem} {x}" for x in "ab"], "answer": "A"}
    for stem in ("Who signs treaties", "Why is the sky blue", "How fast is light", "When do contracts end")
]
CURATION = ("raw_pool", "pool")


def write(path, rows=ROWS):
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


@pytest.fixture
def source(tmp_path):
    return write(tmp_path / "pool.jsonl")


@pytest.fixture
def curate(run, source):
    """Return a function that makes the pool in a run by given settings, and says which stages were computed."""

    def make(in_run=run, raw_pool=None, **pool):
        config = Config(raw_pool={"path": str(source)} | (raw_pool or {}), pool=pool)
        outcomes = run_chain(config, in_run, last="pool")
        assert tuple(outcomes) == CURATION
        return [name for name, outcome in outcomes.items() if not outcome.cached]

    return make


def test_every_artifact_has_one_stage():
    names = [name for spec in STAGES for name in spec.artifacts]
    assert len(names) == len(set(names)) == len(CATALOGUE)
    assert [stage_of(spec.name) for spec in STAGES] == list(STAGES)


def test_files_of_one_name_are_told_apart(tmp_path, run, curate):
    curate()
    paths = [write(tmp_path / folder / "test.jsonl", ROWS[i : i + 1]) for i, folder in enumerate("ab")]
    spec, section = stage_of("pool"), Config(pool={"decontaminate_against": [str(path) for path in paths]}).pool

    def fingerprint():
        return Materialization(spec, section, ModelConfig(), run).fingerprint

    found = {fingerprint()}
    for changed in paths:
        write(changed, ROWS[2:3])
        found.add(fingerprint())
    assert len(found) == 3


def test_the_reported_command_states_what_differs_from_the_default(run, put):
    config = load_config(overrides=["rollouts.n_samples=3", "raw_pool.path=my pool.jsonl"])
    for spec in STAGES:
        if spec.name != "evaluation":
            put(run, spec.name, settings=getattr(config, spec.key).model_dump(mode="json"))
    for name in ("gold_labels", "test_labels"):
        put(run, name, settings=getattr(config, stage_of(name).key).model_dump(mode="json"))
    commands = []
    for changes in ([], ["evaluation.n_resamples=200", "model.dtype=float32"]):
        changed = load_config(overrides=changes)
        found = Materialization(stage_of("evaluation"), changed.evaluation, changed.model, run)
        commands.append(found._command())
    words = ["python", "-m", "assets", "--set", 'raw_pool.path="my pool.jsonl"', "--set", "rollouts.n_samples=3"]
    assert commands[0] == shlex.join(words)
    changes = ["evaluation.n_resamples=200", 'model.dtype="float32"', words[4], words[6]]
    assert shlex.split(commands[1])[4::2] == changes
    assert load_config(overrides=changes).rollouts == config.rollouts


def test_a_missing_input_names_what_to_materialize(run):
    with pytest.raises(ArtifactError, match="materialize 'raw_pool' first"):
        materialize(stage_of("pool"), Config().pool, ModelConfig(), run)


def test_inputs_that_were_not_made_from_one_another_are_refused(run, put):
    spec = stage_of("pseudo_labels")
    for sample in (0, 1):
        put(run, "rollouts", rollouts=[{"id": "a", "sample": sample}])
        if not sample:
            put(run, "answers", inputs=["rollouts"], answers=[{"id": "a", "sample": sample}])
    with pytest.raises(
        ArtifactError, match=r"^'answers' of run 'test' was made from another 'rollouts' than the run's"
    ):
        Materialization(spec, Config().pseudo_labels, ModelConfig(), run)


def test_inputs_that_were_made_from_different_things_are_refused_though_these_are_gone(run, put):
    put(run, "pool", pool=[{"id": "a"}])
    put(run, "rollouts", inputs=["pool"], rollouts=[{"id": "a"}])
    put(run, "pool", pool=[{"id": "b"}])
    put(run, "answers", inputs=["pool", "rollouts"], answers=[{"id": "a"}])
    run.hide("pool")
    with pytest.raises(ArtifactError, match=r"^'answers' .*another 'pool' than 'rollouts' was: materialize 'answers'"):
        Materialization(stage_of("pseudo_labels"), Config().pseudo_labels, ModelConfig(), run)


def test_what_lies_between_is_not_passed_over(run, put):
    """An adapter that is trained again is not evaluated by the responses of the one before."""
    for name in ("pool", "gold_labels", "pseudo_labels", "teacher_lift", "tests", "test_labels"):
        put(run, name)
    for name in ("base_predictions", "rival_adapter", "rival_predictions", "ceiling_adapter", "ceiling_predictions"):
        put(run, name)
    put(run, "distilled_adapter", notes={"training_questions": 1}, training_log=[{"step": 1}])
    put(run, "distilled_predictions", inputs=["tests", "distilled_adapter"])
    spec = stage_of("evaluation")
    Materialization(spec, Config().evaluation, ModelConfig(), run)
    put(run, "distilled_adapter", notes={"training_questions": 1}, training_log=[{"step": 2}])
    with pytest.raises(ArtifactError, match=r"another 'distilled_adapter' than .*materialize 'distilled_predictions'"):
        Materialization(spec, Config().evaluation, ModelConfig(), run)


def test_an_adapter_of_another_base_model_is_refused(run, put, tiny_config, tmp_path):
    shutil.copytree(tiny_config.path, tmp_path / "other")
    (tmp_path / "other" / "more.txt").touch()
    other = ModelConfig(path=str(tmp_path / "other"))
    put(run, "rollouts", model=tiny_config, settings=Config().rollouts.model_dump(mode="json"))
    put(run, "tests")
    put(run, "distilled_adapter", model=tiny_config)
    spec, section = stage_of("distilled_predictions"), Config().predictions
    assert Materialization(spec, section, tiny_config, run).fingerprint
    with pytest.raises(ArtifactError, match=r"made with other weights .* than model.path has now: materialize '"):
        Materialization(spec, section, other, run)
    put(run, "rollouts", model=other, settings=Config().rollouts.model_dump(mode="json"))
    with pytest.raises(ArtifactError, match=r"'distilled_adapter' .*other weights.* materialize 'distilled_adapter' a"):
        Materialization(spec, section, other, run)


def test_nothing_is_made_twice(curate):
    assert curate() == ["raw_pool", "pool"]
    assert curate() == []
    assert curate(ngram_size=1) == ["pool"]
    assert curate() == []
    assert curate(ngram_size=1) == []


def test_what_comes_out_the_same_has_nothing_after_it_made_again(run, curate, source):
    curate()
    before = run.require("pool").manifest
    write(source, [row | {"answer": "B"} for row in ROWS])
    assert curate() == ["raw_pool"]
    assert run.require("pool").manifest == before


def test_a_changed_source_is_read_again(run, curate, source):
    curate()
    write(source, ROWS[:3])
    assert curate() == ["raw_pool", "pool"]
    assert run.require("pool").manifest.rows["pool"] == 3
    write(source)
    assert curate() == []
    assert run.require("pool").manifest.rows["pool"] == 4


def test_runs_share_what_is_equal(run, curate):
    other = run.store.run("other")
    assert curate() == ["raw_pool", "pool"]
    assert curate(other, ngram_size=1) == ["pool"]
    assert run.require("raw_pool").folder == other.require("raw_pool").folder
    assert run.require("pool").folder != other.require("pool").folder
    assert curate(other) == []
    assert run.require("pool").folder == other.require("pool").folder


@pytest.mark.parametrize("harm", ["removed", "changed", "cut off", "another's", "a file lost", "no manifest"])
def test_what_is_no_longer_whole_is_made_again(run, curate, harm):
    curate()
    before = run.require("raw_pool")
    if harm == "removed":
        shutil.rmtree(before.folder)
    elif harm == "changed":
        content = before.path().read_bytes()
        before.path().write_bytes(content[:50] + bytes([content[50] ^ 1]) + content[51:])
    elif harm == "cut off":
        before.path().write_bytes(before.path().read_bytes()[:-50])
    elif harm == "another's":
        before.path().write_bytes(run.require("pool").path().read_bytes())
    else:
        (before.path() if harm == "a file lost" else before.folder / "manifest.json").unlink()
    assert curate() == ["raw_pool"]
    assert run.require("raw_pool").manifest.digest == before.manifest.digest
    assert run.require("raw_pool").read().height == len(ROWS)


@pytest.mark.parametrize("companion", ["gold_labels", "quarantine"])
def test_a_lost_companion_is_made_again(run, curate, companion):
    curate()
    shutil.rmtree(run.require(companion).folder)
    assert curate() == ["raw_pool"]
    run.require(companion).read()


def test_a_pool_is_judged_by_the_settings_of_now(run, curate, source):
    write(source, [*ROWS, {"question": ""}])
    curate(raw_pool={"max_quarantined_share": 0.2})
    with pytest.raises(QuarantineError, match=r"1 of 5 rows refused \(20\.0%, allowed 10\.0%\)"):
        curate(raw_pool={"max_quarantined_share": 0.1})
    assert curate(raw_pool={"max_quarantined_share": 0.2}) == []


def test_what_is_refused_leaves_the_quarantine_and_takes_the_pool_out_of_the_run(run, curate, source):
    curate()
    write(source, [*ROWS, {"question": ""}])
    with pytest.raises(QuarantineError, match="1 of 5 rows refused"):
        curate()
    assert run.require("quarantine").read()["reason"].to_list() == ["missing_question"]
    assert run.find("raw_pool") is run.find("gold_labels") is None
    write(source)
    assert curate() == []
    assert run.require("quarantine").read().is_empty()


def test_what_an_error_leaves_is_what_was_there_before(run, curate):
    curate()
    before = {path.name: path.resolve() for path in run.folder.iterdir()}
    with pytest.raises(ConfigError, match="no question has the domain"):
        curate(out_of_domain=["law"])
    assert {path.name: path.resolve() for path in run.folder.iterdir()} == before


def test_settings_that_bound_memory_determine_nothing():
    before, after = Config(), Config(rollouts={"batch_tokens": 7}, neuron_scores={"chunk_tokens": 7})
    for spec in STAGES:
        assert determining_settings(spec, before) == determining_settings(spec, after)


def test_a_chain_ends_where_it_is_told_to(run, curate):
    curate()
    links = {path.name for path in run.folder.iterdir() if path.is_symlink()}
    assert links == {"raw_pool", "gold_labels", "quarantine", "pool"}
    assert {path.name for path in run.folder.iterdir()} == {*links, "ledger.parquet", "checks.parquet"}


def test_code_that_changes_while_it_runs_leaves_nothing(run, curate, monkeypatch):
    monkeypatch.setattr(Code, "is_current", lambda self: "pipeline.pool.ingest" not in self.modules)
    with pytest.raises(ArtifactError, match="the code of 'raw_pool' changed while it ran: run it again"):
        curate()
    monkeypatch.undo()
    assert curate()[0] == "raw_pool"


def test_a_damaged_input_is_refused_before_anything_is_made_from_it(run, curate):
    curate()
    path = run.require("raw_pool").path()
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"x")
    raw_pool = stage_of("pool")
    with pytest.raises(ArtifactError, match="'raw_pool' of run 'test' is damaged: materialize 'raw_pool' again"):
        materialize(raw_pool, PoolConfig(ngram_size=1), ModelConfig(), run)


def test_the_command_sets_back_what_a_section_takes_from_another(run):
    overrides = ["teacher_contexts.builder=lexical", "context_beliefs.builder=stem_overlap"]
    config = load_config(overrides=overrides)
    made = {stage: getattr(config, stage_of(stage).key).model_dump(mode="json") for stage in ("context_beliefs",)}
    spec = stage_of("teacher_contexts")
    stage = SimpleNamespace(own_settings=made, run_model=config.model, spec=spec, section=config.teacher_contexts)
    words = shlex.split(Materialization._command(stage))
    assert load_config(overrides=words[4::2]) == config
