"""Sensors and schedule ask for a run when something would be made again, once, and never otherwise."""

import subprocess
import sys

import dagster as dg
import pytest

from assets import build_definitions
from assets.automation import build_sensors
from assets.stages import StoreResource
from pipeline.chain import materialize
from pipeline.paths import PROJECT_ROOT
from pipeline.presets import load_config
from pipeline.stages import open_store, stage_of
from pipeline.staleness import find_changes

SPECS = [stage_of(name) for name in ("raw_pool", "pool", "rollouts")]
ROW = '{{"question": "{}", "options": ["a", "b"]}}\n'


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "questions").mkdir()
    (tmp_path / "further").mkdir()
    for name in ("questions", "further"):
        (tmp_path / name / "one.jsonl").write_text(ROW.format(name))
    return tmp_path


@pytest.fixture
def config(folder, tiny_folder):
    further = f"raw_pool.further_paths=[{folder / 'further'}]"
    asked = ["rollouts.n_samples=1", "rollouts.max_new_tokens=2", f"model.path={tiny_folder}"]
    return load_config(overrides=[f"raw_pool.path={folder / 'questions'}", further, *asked])


def make(config, run):
    for spec in SPECS:
        materialize(spec, getattr(config, spec.key), config.model, run)


def changes(config, run):
    return {change.stage: set(change.because) for change in find_changes(SPECS, config, run)}


def test_what_would_be_made_again_is_told_with_its_reason(config, folder, tiny, run):
    assert changes(config, run) == {"raw_pool": {"missing"}}
    make(config, run)
    assert changes(config, run) == {}
    (folder / "further" / "two.jsonl").write_text(ROW.format("new"))
    assert changes(config, run) == {"raw_pool": {"sources"}}
    (folder / "further" / "two.jsonl").unlink()
    other = load_config(overrides=["rollouts.seed=1"]).rollouts
    assert changes(config.model_copy(update={"rollouts": other}), run)["rollouts"] >= {"settings"}
    tiny.model.config.bos_token_id = 3  # another model in the folder
    tiny.model.save_pretrained(folder / "model")
    tiny.tokenizer.save_pretrained(folder / "model")
    model = config.model.model_copy(update={"path": str(folder / "model")})
    assert changes(config.model_copy(update={"model": model}), run) == {"rollouts": {"model"}}
    run.require("pool").path("dropped").write_bytes(b"")
    assert changes(config, run) == {"pool": {"missing"}}


def ask(sensor, config, folder, instance, cursor=""):
    context = dg.build_sensor_context(
        instance, cursor, resources={"store": StoreResource(root=str(folder))}, sensor_name=sensor.name
    )
    found = sensor(context)
    return found, context.cursor


def test_a_sensor_asks_once_for_a_change_and_again_when_it_comes_back(config, folder):
    run = open_store(folder).run("one")
    job = dg.define_asset_job("all_stages")
    questions, model = build_sensors(SPECS, config, "one", job)
    with dg.instance_for_test() as instance:
        request, cursor = ask(questions, config, folder, instance)
        assert request.tags == {"neuron_opsd/because": "raw_pool (missing)"}
        again, cursor = ask(questions, config, folder, instance, cursor)
        assert "asked for already: raw_pool (missing)" in again.skip_message
        make(config, run)
        idle, cursor = ask(questions, config, folder, instance, cursor)
        assert (idle.skip_message, cursor) == ("nothing would be made again", "")

        (folder / "questions" / "two.jsonl").write_text(ROW.format("new"))
        other, _ = ask(model, config, folder, instance)
        assert "not for this sensor: raw_pool (sources)" in other.skip_message
        instance.create_run_for_job(dg.GraphDefinition("all_stages").to_job(), status=dg.DagsterRunStatus.STARTED)
        waiting, cursor = ask(questions, config, folder, instance, cursor)
        assert (waiting.skip_message.split(":")[0], cursor) == ("a run is under way", "")
    with dg.instance_for_test() as instance:
        request, _ = ask(questions, config, folder, instance)
        assert request.tags == {"neuron_opsd/because": "raw_pool (sources)"}
        for path in (folder / "questions").iterdir():
            path.unlink()
        gone, _ = ask(questions, config, folder, instance)
        assert "raw_pool.path" in gone.skip_message


def test_the_schedule_curates_only_what_changed(config, folder, monkeypatch):
    definitions = build_definitions("reference", config, "one", specs=SPECS)
    schedule = definitions.resolve_schedule_def("weekly_curation")
    context = dg.build_schedule_context(resources={"store": StoreResource(root=str(folder))})
    assert schedule.evaluate_tick(context).run_requests[0].tags["neuron_opsd/because"] == "raw_pool (missing)"
    make(config, open_store(folder).run("one"))
    tick = schedule.evaluate_tick(context)
    assert (tick.run_requests, tick.skip_message) == ([], "nothing would be made again")


def test_all_automation_is_off_until_it_is_switched_on():
    definitions = build_definitions("reference")
    repository = definitions.get_repository_def()
    assert {sensor.name for sensor in repository.sensor_defs} >= {"new_questions", "new_model"}
    assert all(sensor.default_status == dg.DefaultSensorStatus.STOPPED for sensor in repository.sensor_defs)
    assert all(schedule.default_status == dg.DefaultScheduleStatus.STOPPED for schedule in repository.schedule_defs)


def test_looking_for_changes_loads_no_model():
    code = (
        "import sys; from pathlib import Path; from pipeline.presets import load_config\n"
        "from pipeline.staleness import find_changes; from pipeline.stages import STAGES, open_store\n"
        "find_changes(STAGES, load_config(), open_store(Path(sys.argv[1])).run('none'))\n"
        "assert not (found := {'torch', 'transformers'} & set(sys.modules)), found"
    )
    subprocess.run([sys.executable, "-c", code, "/nonexistent"], cwd=PROJECT_ROOT, check=True)
