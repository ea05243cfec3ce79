"""The asset graph as Dagster loads it."""

import dagster as dg
import pytest

from assets import build_definitions
from assets.__main__ import main
from pipeline.config import Config
from pipeline.presets import load_config
from pipeline.schemas import ARTIFACTS
from pipeline.stage import INPUTS


@pytest.fixture(scope="module")
def graph():
    return build_definitions("reference").resolve_asset_graph()


def test_assets_are_the_artifacts_and_depend_as_the_stages_do(graph):
    keys = {key.to_user_string() for key in graph.get_all_asset_keys()}
    assert keys == set(ARTIFACTS)
    for name, inputs in INPUTS.items():
        assert {p.to_user_string() for p in graph.get(dg.AssetKey(name)).parent_keys} == set(inputs)


def test_only_evaluation_sees_gold(graph):
    below = dg.AssetSelection.assets("gold_labels").downstream(include_self=False).resolve(graph)
    assert {key.to_user_string() for key in below} == {"evaluation"}


def test_root_module_is_what_dagster_loads():
    import definitions

    definitions.defs.resolve_job_def("all_stages")
    assert definitions.defs.resolve_schedule_def("weekly_curation")


def test_launchpad_defaults_are_the_presets():
    config = load_config("reference")
    job = build_definitions("reference").resolve_job_def("all_stages")
    schema = job.get_node_named("rollouts").definition.config_schema
    fields = schema.config_type.fields
    assert fields["temperature"].default_value == config.rollouts.temperature
    assert all(field.description for field in fields.values())


def test_every_stage_has_a_section():
    assert set(INPUTS) == set(Config.model_fields) - {"model"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "raw_pol.path=x"], "did you mean 'raw_pool'"),
        (["--select", "raw_pool", "--set", "raw_pool.path=/missing.jsonl"], "/missing.jsonl"),
        (["--select", "nothing_such"], "nothing_such"),
    ],
)
def test_user_errors_are_one_line(tmp_path, capfd, arguments, message):
    assert main([*arguments, "--store", str(tmp_path)]) == 2
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]


@pytest.mark.parametrize("row", ["{broken", '{"question": "q", "options": ["a", "b"]}\n{broken'])
def test_refused_rows_are_one_line_on_the_console(tmp_path, capfd, row):
    source = tmp_path / "pool.jsonl"
    source.write_text(row)
    arguments = ["--select", "raw_pool", "--set", f"raw_pool.path={source}", "--store", str(tmp_path / "run")]
    assert main(arguments) == 2
    assert "rows refused" in capfd.readouterr().err.splitlines()[-1]


def test_too_many_refused_rows_show_as_a_failed_check_and_stop_what_follows(tmp_path):
    source = tmp_path / "pool.jsonl"
    source.write_text('{"question": "q", "options": ["a", "b"]}\n{"question": "r"}\n{broken\n')

    def run(share):
        config = load_config(overrides=[f"raw_pool.path={source}", f"raw_pool.max_quarantined_share={share}"])
        job = build_definitions("reference", config).resolve_job_def("all_stages")
        resources = {"store": {"config": {"root": str(tmp_path / "run")}}}
        return job.execute_in_process(
            asset_selection=[dg.AssetKey(name) for name in ("raw_pool", "gold_labels", "quarantine", "pool")],
            run_config={"resources": resources},
            raise_on_error=False,
        )

    for share, stored in ((0.1, {"quarantine"}), (0.5, {"raw_pool", "gold_labels", "quarantine"})):
        result = run(share)
        (check,) = result.get_asset_check_evaluations()
        assert (check.check_name, check.passed, check.blocking) == ("refused_share", share == 0.5, True)
        assert check.metadata["refused_share"].value == pytest.approx(1 / 3)
        materialized = {event.asset_key.to_user_string() for event in result.get_asset_materialization_events()}
        assert materialized - {"pool"} == stored
        steps = {event.step_key for event in result.all_events if event.is_step_start}
        assert ("pool" in steps) == (share == 0.5)
