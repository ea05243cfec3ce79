"""The jobs of a study: a cell a partition, and what they found as far as they stand."""

import dagster as dg
import polars as pl
import pytest
import yaml

from assets.studies import build_study_jobs
from pipeline.errors import ConfigError
from pipeline.paths import PROJECT_ROOT

STUDY = {
    "name": "slice",
    "set": ["raw_pool.limit=12", "tests.limit=4", "rollouts.n_samples=2", "predictions.n_samples=2"],
    "seeds": [0, 1],
    "arms": [
        {"name": "untouched, (as it is)", "of": "base", "set": ["rollouts.max_new_tokens=40"]},
        {"name": "too few", "of": "rival", "set": ["raw_pool.limit=1", "curated_subset.fraction=0.01"]},
    ],
    "against": ["untouched, (as it is)"],
    "n_resamples": 100,
}


@pytest.fixture
def jobs(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(STUDY))
    return {job.name: job for job in build_study_jobs(path)}


@pytest.fixture
def execute(jobs, tmp_path):
    def run(job, op, partition=None, **config):
        return jobs[job].execute_in_process(
            partition_key=partition,
            run_config={"ops": {op: {"config": {"store": str(tmp_path / "store"), **config}}}},
            raise_on_error=False,
        )

    return run


def failure(result):
    (event,) = [event for event in result.all_events if event.is_step_failure]
    return event.step_failure_data.user_failure_data.description


def test_each_cell_is_a_partition(jobs):
    keys = jobs["study_cell"].partitions_def.get_partition_keys()
    assert keys == [f"{arm} / 0 / {seed}" for arm in ("untouched, (as it is)", "too few") for seed in (0, 1)]
    assert {node.definition.pool for node in jobs["study_cell"].nodes} == {"model"}


def test_a_faulty_study_is_refused_when_it_is_loaded(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        build_study_jobs(tmp_path / "none.yaml")


def test_cells_are_made_one_by_one_and_results_written_of_arms_that_stand(execute, tmp_path):
    out = tmp_path / "out"
    results = {"op": "write_results", "out": str(out)}
    assert "no arm was made whole" in failure(execute("study_report", **results))
    untouched = "untouched, (as it is)"
    made = [execute("study_cell", "answer_cell", f"{untouched} / 0 / {seed}") for seed in (0, 1)]
    assert all(
        pl.read_parquet(result.output_for_node("answer_cell"))["model"].unique().to_list() == [untouched]
        for result in made
    )
    assert execute("study_cell", "answer_cell", f"{untouched} / 0 / 1").output_for_node("answer_cell") == made[
        1
    ].output_for_node("answer_cell")
    assert "rival_adapter" in failure(execute("study_cell", "answer_cell", "too few / 0 / 0"))
    assert execute("study_report", **results).success
    assert pl.read_parquet(out / "cells.parquet")["arm"].unique().to_list() == [untouched]
    missing = (out / "report.md").read_text().split("## Missing")[1]
    assert "- too few, 0, 1: not made: 'raw_pool' of run 'slice-too-few-0-1' does not stand" in missing


def test_the_project_loads_the_jobs_of_the_reference_study():
    import definitions

    job = definitions.defs.resolve_job_def("study_cell")
    assert "recommended / 0 / 0" in job.partitions_def.get_partition_keys()
    assert definitions.defs.resolve_job_def("study_report")
    assert (PROJECT_ROOT / "docs" / "studies" / "reference.yaml").is_file()
    dg.Definitions.validate_loadable(definitions.defs)
