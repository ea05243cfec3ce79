"""Every column says what it is made from, by columns that there are."""

import dagster as dg
import pytest

from assets import build_definitions
from assets.lineage import LINEAGE, column_lineage, column_schema, flat, key_of, made_from
from pipeline.stages import CATALOGUE, STAGES, stage_of

ELSEWHERE = {"evaluation": {"pool", "pseudo_labels", "teacher_lift"}, "merged_model": {"distilled_adapter"}}
"""Inputs of which no column goes into a table: reports tell of them; besides, adapters are read for their weights."""


def test_every_artifact_is_declared():
    assert set(LINEAGE) == set(CATALOGUE)


@pytest.mark.parametrize("artifact", CATALOGUE)
def test_every_column_is_declared_and_made_from_columns_of_the_inputs(artifact):
    used = {key_of(artifact, column) for column in flat(CATALOGUE[artifact])}
    assert used == set(LINEAGE[artifact]), "None: a column without a key; else a key without a column"
    for column in flat(CATALOGUE[artifact]):
        for source, name in made_from(artifact, column):
            assert source in stage_of(artifact).inputs, (column, source)
            assert name in flat(CATALOGUE[source]), (column, source, name)


@pytest.mark.parametrize("spec", STAGES, ids=lambda spec: spec.name)
def test_every_input_is_made_something_of(spec):
    columns = [(name, column) for name, tables in spec.artifacts.items() for column in flat(tables)]
    found = {source for name, column in columns for source, _ in made_from(name, column)}
    expected = {name for name in spec.inputs if spec.group != "evaluation" or not name.endswith("_adapter")}
    assert found == expected - ELSEWHERE.get(spec.name, set())


def test_it_stands_in_the_metadata_of_assets_and_in_the_descriptions_of_columns():
    graph = build_definitions("reference").resolve_asset_graph()
    metadata = graph.get(dg.AssetKey(["reference", "pseudo_labels"])).metadata
    deps = metadata["dagster/column_lineage"].deps_by_column
    sources = [("answers", "answer"), ("answers", "answer_index"), ("rollouts", "logprobs")]
    assert deps["representative"] == [dg.TableColumnDep(["reference", name], column) for name, column in sources]
    told = {column.name: column.description for column in metadata["dagster/column_schema"].columns}
    assert told["entropy"].endswith("left out; made from answers.answer, answers.answer_index")
    told = {column.name: column.description for column in column_schema("evaluation", CATALOGUE["evaluation"]).columns}
    assert told["model"].endswith("such as sft")
    assert ", gold_labels, test_labels" in told["correct"]


def test_further_tables_go_by_their_name_and_copies_by_the_same_name():
    tables = CATALOGUE["neuron_scores"]
    assert list(flat(tables))[:5] == ["id", "sample", "neurons", "scores", "neuron_sizes.id"]
    lineage = column_lineage("one", "neuron_scores", tables).deps_by_column
    assert lineage["neuron_sizes.self_certainty"] == [dg.TableColumnDep(["one", "rollouts"], "self_certainty")]
    assert made_from("tests", "out_of_domain.question") == [("pool", "out_of_domain_test.question")]
    assert made_from("rollouts", "sample") == []
