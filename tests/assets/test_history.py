"""What runs leave in Dagster's records: what they show, what they share, and what makes an asset stale."""

import json
import logging
import shutil
import sys

import dagster as dg
import pytest

import pipeline.pool.run
from assets import build_definitions, resources
from assets.keys import artifact_of, asset_key
from assets.stages import build_assets
from pipeline.paths import PROJECT_ROOT
from pipeline.pool.stage import RAW_POOL_STAGE
from pipeline.presets import load_config
from pipeline.stages import open_store

ROWS = '{"question": "q", "options": ["a", "b"]}\n{"question": "r", "options": ["a", "b"]}\n'
RAW = ("raw_pool", "gold_labels", "quarantine")


@pytest.fixture
def instance():
    with dg.instance_for_test() as instance:
        yield instance


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "pool.jsonl"
    path.write_text(ROWS)
    return path


@pytest.fixture
def execute(tmp_path, instance, source):
    def run(*names, run="one", settings=(), job=None):
        config = load_config(overrides=[f"raw_pool.path={source}", *settings])
        definitions = build_definitions("reference", config, run)
        implicit = definitions.resolve_implicit_global_asset_job_def()
        return (definitions.resolve_job_def(job) if job else implicit).execute_in_process(
            asset_selection=[asset_key(run, name) for name in names],
            run_config={"resources": {"store": {"config": {"root": str(tmp_path)}}}},
            instance=instance,
            raise_on_error=False,
        )

    return run


def shown(result):
    """Return the materializations of a run of Dagster by artifact."""
    events = [event.step_materialization_data.materialization for event in result.get_asset_materialization_events()]
    return {artifact_of(event.asset_key): event for event in events}


def latest(instance, name, run="one"):
    event = instance.get_latest_materialization_event(asset_key(run, name))
    return event and event.asset_materialization


def seen(instance, name, run="one"):
    """Return what was observed of a source last."""
    records = instance.fetch_observations(asset_key(run, name), limit=1).records
    return records[0].asset_observation.data_version if records else None


def test_what_the_library_warns_of_stands_in_the_log_of_the_run(execute, instance, source, capfd):
    (source.parent / "notes.txt").write_text("no questions")
    result = execute("raw_pool", settings=[f"raw_pool.path={source.parent}"])
    records = [event for event in instance.all_logs(result.run_id) if "left out 1 files" in event.user_message]
    assert records
    assert {(event.level, event.step_key) for event in records} == {(logging.WARNING, "raw_pool")}
    said = [line for line in capfd.readouterr().err.splitlines() if "left out 1 files" in line]
    assert len(said) == len(records)
    assert not logging.getLogger("pipeline").handlers


def test_a_result_is_shown_in_full_once(execute, tmp_path):
    first, second = shown(execute(*RAW)), shown(execute(*RAW))
    run = open_store(tmp_path).run("one")
    assert set(first) == set(second) == set(RAW)
    for name in RAW:
        manifest = run.require(name).manifest
        for event, cached in ((first[name], False), (second[name], True)):
            assert event.metadata["cached"].value == cached
            assert event.metadata["dagster/row_count"].value == manifest.rows[name]
            assert event.metadata["path"].value == str(tmp_path / "runs" / "one" / name)
            assert manifest.fingerprint.startswith(event.metadata["fingerprint"].value)
            assert event.tags["dagster/data_version"] == manifest.digest
        assert set(second[name].metadata) == {"cached", "dagster/row_count", "path", "fingerprint"}
        assert {"preview", "dagster/column_schema", *manifest.notes} <= set(first[name].metadata)
    assert "data:image/png;base64," in first["raw_pool"].metadata["plot"].value
    assert first["raw_pool"].metadata["read"].value == 2


def test_what_it_cost_stands_with_a_result_and_what_was_spent_now_with_what_was_computed(execute):
    own, others = shown(execute(*RAW, run="one")), shown(execute(*RAW, run="two"))
    spent = own["raw_pool"].metadata
    assert spent["cost/seconds"].value > 0
    assert "cost/generated_tokens" not in spent
    assert spent["cost_to_make"].value["seconds"] == spent["cost/seconds"].value
    assert others["raw_pool"].metadata["cost_to_make"].value == spent["cost_to_make"].value
    elsewhere = [*others.values(), own["gold_labels"], own["quarantine"]]
    assert not [key for event in elsewhere for key in event.metadata if key.startswith("cost/")]


def test_a_part_of_what_a_stage_makes_can_be_asked_for(execute):
    assert set(shown(execute("gold_labels"))) == {"gold_labels"}


def test_runs_share_artifacts_and_no_history(execute, instance):
    execute(*RAW, run="one")
    assert latest(instance, "raw_pool", run="two") is None
    assert seen(instance, "raw_pool_sources", run="two") is None
    (event,) = [shown(execute(*RAW, run="two"))["raw_pool"]]
    assert event.metadata["cached"].value
    assert "plot" in event.metadata  # nobody has seen it under this run's name
    assert event.tags["dagster/data_version"] == latest(instance, "raw_pool", run="one").tags["dagster/data_version"]
    for run in ("one", "two"):
        records = instance.fetch_materializations(asset_key(run, "raw_pool"), limit=10).records
        assert len(records) == 1


def test_an_observation_tells_what_changed_outside(execute, instance, source):
    """An asset is stale when the version of an input is not the one that it was made from (Dagster's rule)."""

    def made_from():
        return latest(instance, "raw_pool").tags["dagster/input_data_version/one/raw_pool_sources"]

    execute(*RAW)  # sources were never observed
    assert made_from() == seen(instance, "raw_pool_sources")
    assert execute("raw_pool_sources", job="observe_sources").success
    assert made_from() == seen(instance, "raw_pool_sources")

    source.write_text(ROWS + '{"question": "s", "options": ["a", "b"]}\n')
    execute("raw_pool_sources", job="observe_sources")
    assert made_from() != seen(instance, "raw_pool_sources")  # stale
    execute(*RAW)
    assert made_from() == seen(instance, "raw_pool_sources")

    source.write_text(ROWS)
    execute(*RAW)  # not observed since
    assert made_from() == seen(instance, "raw_pool_sources")
    assert len(instance.fetch_observations(asset_key("one", "raw_pool_sources"), limit=10).records) == 4


def test_the_model_is_observed_by_its_weights(execute, instance, tmp_path):
    folder = shutil.copytree(PROJECT_ROOT / "data" / "reference" / "model", tmp_path / "model")
    versions = []
    for _ in range(2):
        assert execute("base_model", job="observe_sources", settings=[f"model.path={folder}"]).success
        versions.append(seen(instance, "base_model"))
        (folder / "generation_config.json").write_text("{}")
    assert len(set(versions)) == 2


def test_observing_a_missing_file_fails_in_one_line(execute, source):
    source.unlink()
    result = execute("raw_pool_sources", job="observe_sources")
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert "pool.jsonl" in failure.step_failure_data.user_failure_data.description


def test_user_errors_are_not_tried_again(execute, source):
    source.unlink()
    result = execute(*RAW)
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert failure.step_failure_data.user_failure_data.label == "intentional-failure"
    assert str(source) in failure.step_failure_data.user_failure_data.description
    assert "Failure" in failure.step_failure_data.error.cls_name


@pytest.mark.parametrize(("crashes", "success", "attempts"), [(1, True, 2), (9, False, 3)])
def test_a_process_that_crashes_is_tried_again_as_often_as_the_job_says(
    tmp_path, instance, source, monkeypatch, crashes, success, attempts
):
    code = (
        "import os, pathlib, sys; folder = pathlib.Path(sys.argv[1]); n = len(list(folder.glob('attempt-*')))\n"
        f"(folder / f'attempt-{{n}}').touch(); print('out of luck', file=sys.stderr)\n"
        f"n < {crashes} and os.kill(os.getpid(), 9)"
    )
    read_pool = pipeline.pool.run.run
    monkeypatch.setattr(
        pipeline.pool.run,
        "run",
        lambda task: (task.launch([sys.executable, "-c", code, str(tmp_path)]), read_pool(task)),
    )
    config = load_config(overrides=[f"raw_pool.path={source}"])
    assets = build_assets((RAW_POOL_STAGE,), config, "one")
    job = dg.define_asset_job("again", op_retry_policy=dg.RetryPolicy(max_retries=2))
    definitions = dg.Definitions(assets=assets, jobs=[job], resources=resources(config))
    result = definitions.resolve_job_def("again").execute_in_process(
        run_config={"resources": {"store": {"config": {"root": str(tmp_path)}}}},
        instance=instance,
        raise_on_error=False,
    )
    assert result.success == success
    assert len(list(tmp_path.glob("attempt-*"))) == attempts
    errors = [event.event_specific_data.user_failure_data for event in result.all_events if event.is_step_failure]
    assert all("was ended by SIGKILL" in error.description and "out of luck" in error.description for error in errors)
    assert len(errors) == (not success)


@pytest.mark.parametrize("status", [0, 3])
def test_a_process_that_a_stage_starts_reports_to_the_run(execute, instance, monkeypatch, status):
    code = (
        "import sys; from dagster_pipes import open_dagster_pipes\n"
        f"with open_dagster_pipes() as pipes: pipes.log.info('step 1 of 2')\nsys.exit({status})"
    )

    def run(task):
        task.launch([sys.executable, "-c", code])
        read_pool(task)

    read_pool = pipeline.pool.run.run
    monkeypatch.setattr(pipeline.pool.run, "run", run)
    result = execute(*RAW)
    assert result.success == (status == 0)
    assert set(shown(result)) == (set() if status else set(RAW))
    assert any("step 1 of 2" in record.user_message for record in instance.all_logs(result.run_id))
    failures = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    assert ["ended with code 3" in failure.user_failure_data.description for failure in failures] == [True] * bool(
        status
    )


def test_too_many_refused_rows_show_as_a_failed_check_and_stop_what_follows(execute, source):
    source.write_text('{"question": "q", "options": ["a", "b"]}\n{"question": "r"}\n{broken\n')
    for share, stored in ((0.1, {"quarantine"}), (0.5, set(RAW)), (0.1, {"quarantine"})):
        result = execute(*RAW, "pool", settings=[f"raw_pool.max_quarantined_share={share}"])
        checks = {(check.asset_key.path[-1], check.check_name): check for check in result.get_asset_check_evaluations()}
        check = checks["raw_pool", "refused_share"]
        assert {name for name, check in checks.items() if not check.passed} == (
            set() if share == 0.5 else {("raw_pool", "refused_share")}
        )
        assert (check.passed, check.blocking) == (share == 0.5, True)
        assert check.metadata["measured"].value == pytest.approx(1 / 3)
        assert check.metadata["limit"].value == share
        assert "1 of 3 rows refused" in check.description
        assert set(shown(result)) - {"pool"} == stored
        assert "plot" in shown(result)["quarantine"].metadata
        steps = {event.step_key for event in result.all_events if event.is_step_start}
        assert ("pool" in steps) == (share == 0.5)


def test_a_process_per_step_takes_turns_with_the_model(tmp_path, monkeypatch, source):
    monkeypatch.setenv("FAKES_FOLDER", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(PROJECT_ROOT))
    monkeypatch.syspath_prepend(PROJECT_ROOT)
    from tests.assets.fakes import job

    limits = {"concurrency": {"pools": {"default_limit": 1}}, "telemetry": {"enabled": False}}
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides=limits) as instance:
        result = dg.execute_job(
            dg.reconstructable(job),
            instance,
            run_config={
                "resources": {"store": {"config": {"root": str(tmp_path)}}},
                "execution": {"config": {"max_concurrent": 3}},
            },
        )
        assert result.success
        assert {key.path[-1] for key in instance.get_asset_keys()} >= {"left", "right", *RAW}
    left, right = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("left", "right"))
    assert left["pid"] != right["pid"]
    assert left["ended"] <= right["started"] or right["ended"] <= left["started"]
