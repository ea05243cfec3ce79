"""Sensors and schedule ask for a run when something would be made again, once, and never otherwise."""

import subprocess
import sys

import dagster as dg
import pytest

from assets import build_definitions
from assets.automation import build_sensors
from assets.rounds import build_rounds
from assets.stages import StoreResource
from pipeline.chain import materialize
from pipeline.paths import PROJECT_ROOT
from pipeline.presets import load_config
from pipeline.rounds.record import judged_round, run_of
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


def make(config, run, specs=SPECS):
    for spec in specs:
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


def judge_round(config, rounds, number):
    """Leave a round of the pool as it is now, as if it had been made, judged and refused."""
    make(config, run_of(rounds, number), SPECS[:2])
    told = {"verdict": "refused", "settings": "", "base_model": "", "model": ""}
    echo = dict.fromkeys(("answer_echo", "answer_echo_by_chance"))
    judged_round(rounds, {"round": number, "base": 0, "promoted": False, "questions": 2, **told, **echo}, [])


def definitions_of(config):
    return dg.Definitions.merge(build_definitions("reference", config, "one", specs=SPECS), build_rounds(config, "one"))


def test_the_next_round_is_asked_for_once_where_the_pool_has_changed(config, folder):
    rounds, definitions = open_store(folder).run("one-rounds"), definitions_of(config)
    sensor, schedule = definitions.resolve_sensor_def("new_round"), definitions.resolve_schedule_def("weekly_round")
    given = {
        "resources": {"store": StoreResource(root=str(folder))},
        "repository_def": definitions.get_repository_def(),
    }
    with dg.instance_for_test() as instance:
        given["instance_ref"] = instance.get_ref()

        def tick(cursor):
            with dg.build_sensor_context(instance, cursor, sensor_name=sensor.name, **given) as context:
                found = sensor.evaluate_tick(context)
            return [request.partition_key for request in found.run_requests], found.skip_message, found.cursor

        def week():
            with dg.build_schedule_context(instance, **given) as context:
                found = schedule.evaluate_tick(context)
            return [request.partition_key for request in found.run_requests] or found.skip_message

        asked, _, cursor = tick("")
        assert (asked, week()) == (["1"], ["1"])  # no round yet
        assert "asked for already: raw_pool (missing)" in tick(cursor)[1]
        judge_round(config, rounds, 1)
        assert tick(cursor) == ([], "the pool is that of round 1", "")
        assert week() == "the pool is that of round 1"
        run_of(rounds, 1).hide("pool")  # what was judged stands, whatever became of it
        assert week() == "the pool is that of round 1"

        (folder / "further" / "two.jsonl").write_text(ROW.format("new"))
        job = dg.GraphDefinition("next_round").to_job()
        under_way = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
        assert tick("")[:2] == ([], "a run is under way: what it does not see is looked at when it has ended")
        assert week() == "a round is under way"
        assert instance.get_dynamic_partitions("one-rounds") == ["1"]
        instance.delete_run(under_way.run_id)
        assert tick("")[0] == week() == ["2"]
        assert instance.get_dynamic_partitions("one-rounds") == ["1", "2"]
        judge_round(config, rounds, 2)
        assert week() == "the pool is that of round 2"
        for path in (folder / "questions").iterdir():
            path.unlink()
        assert "raw_pool.path" in week()


def test_a_partition_that_is_no_round_is_refused_in_one_line(config, folder):
    with dg.instance_for_test() as instance:
        instance.add_dynamic_partitions("one-rounds", ["first"])
        done = definitions_of(config).resolve_job_def("next_round").execute_in_process(
            partition_key="first", instance=instance, raise_on_error=False,
            run_config={"resources": {"store": {"config": {"root": str(folder)}}}},
        )  # fmt: skip
    (failure,) = [event for event in done.all_node_events if event.is_step_failure]
    assert "partition 'first': name the number of a round, 1 or more" in failure.step_failure_data.error_display_string


def test_all_automation_is_off_until_it_is_switched_on():
    definitions = dg.Definitions.merge(build_definitions("reference"), build_rounds(load_config(), "reference"))
    repository = definitions.get_repository_def()
    assert {sensor.name for sensor in repository.sensor_defs} == {"new_questions", "new_model", "new_round"}
    schedules = {schedule.name for schedule in repository.schedule_defs}
    assert schedules == {"daily_observation", "weekly_curation", "weekly_round"}
    assert all(sensor.default_status == dg.DefaultSensorStatus.STOPPED for sensor in repository.sensor_defs)
    assert all(schedule.default_status == dg.DefaultScheduleStatus.STOPPED for schedule in repository.schedule_defs)


def test_looking_for_changes_loads_no_model():
    code = (
        "import sys; from pathlib import Path; from pipeline.presets import load_config\n"
        "from pipeline.staleness import find_changes; from pipeline.stages import STAGES, open_store\n"
        "find_changes(STAGES, load_config(), open_store(Path(sys.argv[1])).run('none'))\n"
        "from assets.round_automation import _look\nfrom assets.stages import StoreResource\n"
        "assert _look(load_config(), 'none', StoreResource(root=sys.argv[1]))[0] == 1\n"
        "assert not (found := {'torch', 'transformers'} & set(sys.modules)), found"
    )
    subprocess.run([sys.executable, "-c", code, "/nonexistent"], cwd=PROJECT_ROOT, check=True)
