"""A study as its file says it, and as a program on a slice of the reference world."""

import subprocess
import sys
from datetime import UTC, datetime

import polars as pl
import pytest
import yaml

from pipeline.errors import ConfigError
from pipeline.ledger.attempt import Attempt
from pipeline.paths import PROJECT_ROOT
from pipeline.study.config import read_study
from pipeline.study.costs import first_made
from pipeline.study.run import Cell, cells, configure, stages_for

SLICE = [
    "raw_pool.limit=24",
    "tests.limit=6",
    "rollouts.n_samples=2",
    "rollouts.max_new_tokens=40",
    "context_beliefs.n_samples=1",
    "curated_subset.fraction=0.4",
    "teacher_lift.n_questions=0",
    "predictions.n_samples=2",
    *(
        f"{stage}_adapter.{setting}"
        for stage in ("rival", "distilled")
        for setting in ("steps=1", "trajectories_per_step=2", "micro_batch=2")
    ),
    "distilled_adapter.max_new_tokens=16",
]
STUDY = {
    "name": "slice",
    "title": "Does it run?",
    "set": SLICE,
    "seeds": [0],
    "arms": [
        {"name": "untouched", "of": "base"},
        {"name": "votes", "of": "rival"},
        {"name": "poolless", "of": "rival", "set": ["raw_pool.path=missing.jsonl"]},
    ],
    "against": ["untouched"],
    "n_resamples": 100,
}


def write(tmp_path, **changes):
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(STUDY | changes))
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"armz": []}, "unknown key 'armz', did you mean 'arms'"),
        ({"arms": []}, "arms"),
        ({"against": ["random"]}, "there is no arm 'random'"),
        ({"arms": [{"name": "a"}, {"name": "a"}], "against": ["a"]}, "yaml: arms: 'a' stands twice, or is no name$"),
        ({"arms": [{"name": "../a"}], "against": ["../a"]}, "is no name"),
        ({"arms": [{"name": "a", "of": "distiled"}], "against": ["a"]}, "did you mean 'distilled'"),
    ],
)
def test_a_faulty_study_is_refused_by_name(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        read_study(write(tmp_path, **changes))


def test_files_that_are_no_studies(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_study(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- a")
    with pytest.raises(ConfigError, match="must hold a mapping"):
        read_study(tmp_path / "list.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match="not valid YAML"):
        read_study(tmp_path / "bad.yaml")


def test_cells_are_configured_from_preset_world_and_arm(tmp_path):
    arms = [{"name": "a", "set": ["curated_subset.rule=random"]}, {"name": "top", "of": "ceiling"}]
    worlds = [{"name": "0"}, {"name": "1", "reference_seed": 1, "set": ["rollouts.n_samples=3"]}]
    study = read_study(write(tmp_path, arms=arms, worlds=worlds, seeds=[3, 4], against=["a"]))
    assert len(cells(study)) == 8
    here, there = (configure(study, Cell("a", world, 4), tmp_path) for world in ("0", "1"))
    assert (here.rollouts.n_samples, there.rollouts.n_samples) == (2, 3)
    assert (here.curated_subset.rule, here.rollouts.seed, here.distilled_adapter.seed) == ("random", 4, 4)
    assert (here.raw_pool.path, here.model.path) == ("data/reference/pool.jsonl", "data/reference/model")
    assert there.raw_pool.path == str(tmp_path / "worlds" / "1" / "pool.jsonl")
    assert configure(study, Cell("top", "0", 3), tmp_path).ceiling_adapter.enabled
    bad = read_study(write(tmp_path, arms=[{"name": "a", "set": ["rollouts.n_sampels=3"]}], against=["a"]))
    with pytest.raises(ConfigError, match="did you mean 'n_samples'"):
        configure(bad, Cell("a", "0", 0), tmp_path)


def test_only_what_an_arm_needs_is_made():
    names = [spec.name for spec in stages_for("base_predictions")]
    assert "rollouts" in names
    assert not {"distilled_adapter", "rival_adapter", "teacher_contexts"} & set(names)
    assert "teacher_contexts" not in {spec.name for spec in stages_for("rival_predictions")}
    assert "rival_adapter" not in {spec.name for spec in stages_for("distilled_predictions")}


def test_a_shared_stage_costs_what_it_cost_to_make_it_once():
    states = ("killed", "done", "done", "running")
    attempts = [
        Attempt(stage="s", objective=None, fingerprint="f", run="r", started=datetime.now(UTC), state=state, seconds=n)
        for n, state in enumerate(states, start=1)
    ]
    assert [attempt.seconds for attempt in first_made(attempts)] == [1, 2]
    assert first_made([attempts[0], attempts[3]]) == []


@pytest.mark.slow
def test_a_slice_from_file_to_report_and_again(tmp_path):
    command = [sys.executable, "-m", "pipeline.study", str(write(tmp_path)), "--out", str(tmp_path / "out")]
    command += ["--store", str(tmp_path / "store"), "--jobs", "1"]
    done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr  # one arm cannot be made: the others are reported
    assert "- poolless, 0, 0: raw_pool.path: " in done.stdout
    figures = pl.read_parquet(tmp_path / "out" / "figures.parquet")
    assert set(figures["arm"]) == {"untouched", "votes"}
    assert set(figures["against"].drop_nulls()) == {"untouched"}
    costs = pl.read_parquet(tmp_path / "out" / "cells.parquet").filter(pl.col("split").is_null())
    spent = {(row["arm"], row["metric"]): row["value"] for row in costs.to_dicts()}
    ledger = pl.read_parquet(tmp_path / "store" / "runs" / "slice-votes-0-0" / "ledger.parquet")
    trained = ledger.filter(pl.col("stage") == "rival_adapter")["trained_tokens"].item()
    assert spent["votes", "training_trained_tokens"] == spent["votes", "trained_tokens"] == trained > 0
    assert spent["votes", "generated_tokens"] > 0 == spent["untouched", "generated_tokens"]
    made = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert set(made) == {"cells.parquet", "figures.parquet", "forest.png", "report.md"}
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "store" / "store").rglob("*.parquet")}
    again = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
    assert again.stdout == done.stdout
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == made
    assert {path: path.stat().st_mtime_ns for path in written} == written
