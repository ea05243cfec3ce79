"""The asset graph as Dagster loads it."""

import subprocess
import sys
from dataclasses import replace

import dagster as dg
import pytest

import assets.stages
from assets import build_definitions
from assets.keys import artifact_of
from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.paths import PROJECT_ROOT
from pipeline.presets import load_config
from pipeline.stages import CATALOGUE, STAGES

SOURCES = {"raw_pool_sources", "pool_sources", "tests_sources", "base_model"}


@pytest.fixture(scope="module")
def graph():
    return build_definitions("reference").resolve_asset_graph()


def names(keys):
    return {artifact_of(key) for key in keys}


def test_assets_are_the_artifacts_and_depend_as_the_stages_do(graph):
    assert names(graph.get_all_asset_keys()) == {*CATALOGUE, *SOURCES}
    for spec in STAGES:
        sources = {f"{spec.name}_sources"} if spec.sources else set()
        sources |= {"base_model"} if spec.uses_model else set()
        for name in spec.artifacts:
            node = graph.get(dg.AssetKey(["reference", name]))
            assert names(node.parent_keys) == {*spec.inputs, *spec.after, *sources}
            assert (node.group_name, bool(node.description)) == (spec.group, True)
            assert node.pools == ({"model"} if spec.uses_model else set())
            assert node.metadata["dagster/column_schema"].columns


def test_what_a_stage_reads_is_there_before_it_runs(graph):
    for spec in STAGES:
        own = dg.AssetSelection.assets(dg.AssetKey(["reference", spec.name]))
        assert set(spec.reads) <= names(own.upstream(include_self=False).resolve(graph))


def test_every_run_has_assets_of_its_own():
    one, other = (build_definitions("reference", run=run).resolve_asset_graph() for run in ("a.1", "b-2"))
    assert {key.path[0] for key in one.get_all_asset_keys()} == {"a.1"}
    assert not set(one.get_all_asset_keys()) & set(other.get_all_asset_keys())
    preset = build_definitions("reference-published").resolve_asset_graph()
    assert {key.path[0] for key in preset.get_all_asset_keys()} == {"reference-published"}
    with pytest.raises(ConfigError, match="run 'a/b' is not a name"):
        build_definitions("reference", run="a/b")


@pytest.mark.parametrize(
    ("labels", "readers"),
    [("gold_labels", {"ceiling_adapter", "ceiling_predictions", "evaluation"}), ("test_labels", {"evaluation"})],
)
def test_only_evaluation_and_the_ceiling_see_gold(graph, labels, readers):
    below = dg.AssetSelection.assets(dg.AssetKey(["reference", labels])).downstream(include_self=False)
    assert names(below.resolve(graph)) == readers
    for name in readers - {"evaluation"}:
        assert "from gold answers" in graph.get(dg.AssetKey(["reference", name])).description


def test_jobs_leave_out_what_must_be_asked_for_by_name():
    definitions = build_definitions("reference")
    optional = {name for spec in STAGES if spec.optional for name in spec.artifacts}
    assert optional
    graph = definitions.resolve_job_def("all_stages").asset_layer
    assert names(graph.executable_asset_keys) == set(CATALOGUE) - optional
    observed = definitions.resolve_job_def("observe_sources").asset_layer
    assert names(observed.executable_asset_keys) == SOURCES


def test_root_module_is_what_dagster_loads():
    import definitions

    definitions.defs.resolve_job_def("all_stages")
    for schedule in ("weekly_curation", "daily_observation"):
        assert definitions.defs.resolve_schedule_def(schedule)
    dg.Definitions.validate_loadable(definitions.defs)


def test_definitions_load_without_heavy_libraries():
    heavy = {"torch", "transformers", "peft", "trl", "datasets", "numba", "scipy", "matplotlib", "sympy"}
    code = f"import sys, definitions; assert not (found := {heavy} & set(sys.modules)), found"
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=PROJECT_ROOT, check=True)


def test_an_unknown_executor_is_a_configuration_error():
    with pytest.raises(ConfigError, match=r"NEURON_OPSD_EXECUTOR.*did you mean 'multiprocess'"):
        build_definitions("reference", executor="multiproces")


def test_launchpad_defaults_are_the_presets():
    config = load_config("reference", ["rollouts.temperature=0.7"])
    job = build_definitions("reference", config).resolve_job_def("all_stages")
    for spec in STAGES:
        if not spec.optional:
            section = getattr(config, spec.key)
            fields = job.get_node_named(spec.name).definition.config_schema.config_type.fields
            assert {name: field.default_value for name, field in fields.items()} == section.model_dump()
            assert all(field.description for field in fields.values())


def test_every_stage_has_a_section():
    assert {spec.key for spec in STAGES} == set(Config.model_fields) - {"model", "checks"}
    assert all(isinstance(getattr(Config(), spec.key), spec.section) for spec in STAGES)


def test_code_versions_follow_the_code_of_their_stage(graph, monkeypatch):
    whole = assets.stages.reachable_code

    def edited(modules):
        code = whole(modules)
        return replace(code, digest="edited" + code.digest) if "pipeline.votes.run" in code.modules else code

    monkeypatch.setattr(assets.stages, "reachable_code", edited)
    after = build_definitions("reference").resolve_asset_graph()
    changed = {
        artifact_of(key)
        for key in after.get_all_asset_keys()
        if after.get(key).code_version != graph.get(key).code_version
    }
    assert changed == {"pseudo_labels"}
