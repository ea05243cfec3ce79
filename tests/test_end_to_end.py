"""The real chain on a slice of the embedded pool: real sampling, hooks and training."""

import json
import re
import subprocess
import sys

import polars as pl
import pytest

from assets.__main__ import materialize
from pipeline.artifacts import ArtifactStore
from pipeline.chain import raw_pool, run_chain
from pipeline.errors import SourceError
from pipeline.evaluation.metrics import DIFFERENCES, MODELS
from pipeline.paths import PROJECT_ROOT
from pipeline.presets import load_config
from pipeline.schemas import ARTIFACTS
from pipeline.stage import OPTIONAL

SLICE = (
    "raw_pool.limit=80",
    "rollouts.n_samples=2",
    "context_beliefs.n_samples=1",
    "curated_subset.fraction=0.2",
    "distilled_adapter.steps=4",
    "distilled_adapter.trajectories_per_step=8",
    "distilled_adapter.micro_batch=8",
    "sft_adapter.steps=4",
    "sft_adapter.trajectories_per_step=4",
    "sft_adapter.micro_batch=2",
    "causal_check.n_questions=16",
    "evaluation.limit=24",
    "evaluation.n_samples=2",
    "evaluation.n_resamples=100",
)
ADAPTERS = ("distilled_adapter", "sft_adapter")
CURATION = (
    *("raw_pool", "pool", "rollouts", "pseudo_labels", "neuron_scores"),
    *("context_beliefs", "curated_subset", "teacher_contexts"),
)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    store = ArtifactStore(tmp_path_factory.mktemp("run"))
    config = load_config(overrides=SLICE)
    return store, config, materialize("reference", config, store)


def test_every_artifact_is_there_with_its_rows(done):
    store, _, cached = done
    assert set(cached) == set(ARTIFACTS) - set(OPTIONAL)
    assert not any(cached.values())
    rows = {name: store.require(name).rows[name] for name in CURATION}
    assert rows == {
        "raw_pool": 80,
        "pool": 80,
        "rollouts": 160,
        "pseudo_labels": 80,
        "neuron_scores": 160,
        "context_beliefs": 80,
        "curated_subset": 80,
        "teacher_contexts": 16,
    }
    assert {"score_vs_length", "score_vs_entropy"} <= set(store.require("curated_subset").notes)
    for name in cached:
        for table in ARTIFACTS[name]:
            store.read(name, table)


def test_nothing_unchanged_is_computed_again(done):
    store, config, _ = done
    assert all(materialize("reference", config, store).values())


def test_a_changed_setting_recomputes_what_depends_on_it(done):
    store, config, _ = done
    changed = ["teacher_contexts.n_demonstrations=1", "context_beliefs.n_demonstrations=3"]
    outcomes = run_chain(load_config(overrides=[*SLICE, *changed]), store, last="teacher_contexts")
    assert {name for name, outcome in outcomes.items() if not outcome.cached} == {"teacher_contexts"}
    run_chain(config, store, last="teacher_contexts")


@pytest.mark.parametrize("run", ["assets", "calls"])
def test_a_missing_test_stops_a_run_before_training(done, run):
    store, _, _ = done
    changes = ["distilled_adapter.steps=5", "evaluation.in_domain_path=missing.jsonl"]
    config = load_config(overrides=[*SLICE, *changes])
    adapter = store.require("distilled_adapter")
    with pytest.raises(SourceError, match=r"evaluation\.in_domain_path: missing\.jsonl"):
        if run == "calls":
            run_chain(config, store)
        else:
            materialize("reference", config, store, select="key:distilled_adapter or key:evaluation")
    assert store.require("distilled_adapter") == adapter


def test_the_causal_check_runs_where_it_is_asked_for(done):
    store, config, _ = done
    assert materialize("reference", config, store, select="causal_check") == {"causal_check": False}
    notes, table = store.require("causal_check").notes, store.read("causal_check")
    assert len(table) == notes["n_questions"] == config.causal_check.n_questions
    assert notes["difference"]["low"] <= notes["difference"]["mean"] <= notes["difference"]["high"]


def test_demonstrations_are_other_questions_of_the_pool(done):
    store, _, _ = done
    pool = set(store.read("pool")["id"])
    for row in store.read("teacher_contexts").iter_rows(named=True):
        assert row["id"] not in row["demonstration_ids"]
        assert set(row["demonstration_ids"]) <= pool


def test_adapter_and_report_are_files_for_people(done):
    store, _, _ = done
    for adapter in (store.root / name for name in ADAPTERS):
        assert {"adapter_model.safetensors", "adapter_config.json", "README.md"} <= {p.name for p in adapter.iterdir()}
        settings = json.loads((adapter / "adapter_config.json").read_text())
        assert settings["base_model_name_or_path"] == "data/reference/model"
    metrics = store.read("evaluation", "metrics")
    assert set(metrics["model"]) == {*MODELS, *DIFFERENCES}
    assert set(store.read("evaluation", "predictions")["model"]) == set(MODELS)
    assert metrics.select((pl.col("low") <= pl.col("value")) & (pl.col("value") <= pl.col("high"))).to_series().all()
    report = (store.root / "evaluation" / "report.md").read_text()
    assert "In-domain" in report
    assert "sft_adapter.steps=4" in report


def test_fine_tuning_takes_the_selected_questions_that_have_a_majority(done):
    store, _, _ = done
    majority = store.read("pseudo_labels").filter(pl.col("state") == "majority")
    selected = store.read("curated_subset").filter("selected").join(majority, on="id", how="semi")
    assert store.require("sft_adapter").notes == {"training_questions": len(selected)}
    assert store.read("sft_adapter")["step"].to_list() == [1, 2, 3, 4]


def test_the_rival_can_be_left_out(done):
    store, config, _ = done
    settings = [*SLICE, "sft_adapter.enabled=false"]
    select = "key:sft_adapter or key:evaluation"
    assert not any(materialize("reference", load_config(overrides=settings), store, select).values())
    assert store.require("sft_adapter").notes == {"skipped": "sft_adapter.enabled is false"}
    assert store.read("sft_adapter").is_empty()
    assert not (store.root / "sft_adapter" / "adapter_model.safetensors").exists()
    assert set(store.read("evaluation", "metrics")["model"]) == {"untouched", "distilled", "distilled - untouched"}
    run_chain(config, store)


def test_the_examples_of_the_documentation_run(done, tmp_path, monkeypatch):
    duckdb = pytest.importorskip("duckdb")
    (tmp_path / "data" / "runs").mkdir(parents=True)
    (tmp_path / "data" / "runs" / "reference").symlink_to(done[0].root)
    monkeypatch.chdir(tmp_path)
    pages = [(PROJECT_ROOT / page).read_text() for page in ("README.md", "data/README.md")]
    blocks = [block for page in pages for block in re.findall(r"```(python|sql)\n(.*?)```", page, re.DOTALL)]
    programs = [text for kind, text in blocks if kind == "python" and "import polars" in text]
    assert len(programs) == 2
    for program in programs:
        shown = subprocess.run(
            [sys.executable, "-W", "error", "-c", program], check=True, capture_output=True, text=True
        )
        assert "shape: " in shown.stdout
    queries = [text for kind, text in blocks if kind == "sql"]
    assert len(queries) == 3
    assert all(duckdb.sql(query).fetchall() for query in queries)


@pytest.mark.parametrize("change", ["deleted", "permuted"])
def test_gold_never_reaches_curation_or_training(done, tmp_path, change):
    store, _, _ = done
    lines = (PROJECT_ROOT / "data/reference/pool.jsonl").read_text().splitlines()[:80]
    rows = [json.loads(line) for line in lines]
    answers = [row.pop("answer") for row in rows]
    if change == "permuted":
        rows = [row | {"answer": answer} for row, answer in zip(rows, answers[1:] + answers[:1], strict=True)]
    source = tmp_path / "pool.jsonl"
    source.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    other = ArtifactStore(tmp_path / "run")
    run_chain(load_config(overrides=[*SLICE, f"raw_pool.path={source}"]), other, last="sft_adapter")
    for name in (*CURATION, *ADAPTERS):
        folder = store.root / name
        files = [p.relative_to(folder) for p in sorted(folder.rglob("*")) if p.is_file()]
        for file in (file for file in files if file.name not in {"manifest.json", "README.md"}):
            assert (other.root / name / file).read_bytes() == (folder / file).read_bytes(), (name, file)


def test_too_many_bad_rows_fail_but_leave_the_quarantine(tmp_path):
    source = tmp_path / "pool.jsonl"
    source.write_text('{"question": "q", "options": ["only one"]}\n{"question": "q", "options": ["a", "b"]}\n{broken\n')
    store = ArtifactStore(tmp_path / "run")
    with pytest.raises(SourceError, match="2 of 3 rows refused"):
        raw_pool(store, load_config(overrides=[f"raw_pool.path={source}"]).raw_pool)
    assert store.read("quarantine")["reason"].to_list() == ["too_few_options", "malformed_json"]
    assert store.manifest("raw_pool") is None
