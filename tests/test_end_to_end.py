"""The real chain on a slice of the embedded pool: real sampling, hooks and training."""

import json
import re
import subprocess
import sys

import dagster as dg
import polars as pl
import pytest

from assets.__main__ import _print_summary, materialize
from assets.figures import key_figures
from assets.publish import publish
from pipeline import chain
from pipeline.chain import run_chain
from pipeline.errors import SourceError
from pipeline.paths import PROJECT_ROOT
from pipeline.presets import load_config
from pipeline.stages import CATALOGUE, STAGES, open_store, stage_of

pytestmark = pytest.mark.slow
SLICE = (
    "raw_pool.limit=80",
    "rollouts.n_samples=2",
    "context_beliefs.n_samples=1",
    "curated_subset.fraction=0.2",
    "teacher_lift.n_samples=1",
    "distilled_adapter.steps=4",
    "distilled_adapter.trajectories_per_step=8",
    "distilled_adapter.micro_batch=8",
    "rival_adapter.steps=4",
    "rival_adapter.trajectories_per_step=4",
    "rival_adapter.micro_batch=2",
    "causal_check.n_questions=16",
    "tests.limit=24",
    "predictions.n_samples=2",
    "evaluation.n_resamples=100",
)
ADAPTERS = ("distilled_adapter", "rival_adapter")
CURATION = (
    *("raw_pool", "pool", "rollouts", "answers", "pseudo_labels", "neuron_scores"),
    *("context_beliefs", "curated_subset", "teacher_contexts"),
)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    run = open_store(tmp_path_factory.mktemp("data")).run("slice")
    config = load_config(overrides=SLICE)
    return run, config, materialize("reference", config, run)


def columns(run):
    """Return the columns of figures in the table that a run shows."""
    header = run.require("evaluation").manifest.notes["table"].splitlines()[0]
    return [cell.strip() for cell in header.split("|")[2:-1]]


def test_every_artifact_is_there_with_its_rows(done):
    run, _, cached = done
    assert set(cached) == set(CATALOGUE) - {spec.name for spec in STAGES if spec.optional}
    assert not any(cached.values())
    rows = {name: run.require(name).manifest.rows[name] for name in CURATION}
    assert rows == {
        "raw_pool": 80,
        "pool": 80,
        "rollouts": 160,
        "answers": 160,
        "pseudo_labels": 80,
        "neuron_scores": 160,
        "context_beliefs": 80,
        "curated_subset": 80,
        "teacher_contexts": 16,
    }
    assert {"score_vs_length", "score_vs_entropy"} <= set(run.require("curated_subset").manifest.notes)
    assert run.require("teacher_contexts").manifest.notes["demonstrations_dropped"] == 0
    for name in cached:
        for table in CATALOGUE[name]:
            run.require(name).read(table)


def test_the_page_of_the_run_is_left_and_linked(done):
    run, _, _ = done
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "Run slice" in page
    assert "This run has no causal_check: materialize it" in page
    linked = publish(stage_of("evaluation"), run.require("evaluation"), run, cached=True, is_known=True).metadata
    assert linked["report"].value == str(run.folder / "report.html")


def test_every_stage_has_key_figures_that_are_numbers(done):
    run, _, cached = done
    for name in set(cached) - {"tests", "test_labels"}:  # which are told by their rows
        artifact = run.require(name)
        numbers = [value for value in artifact.manifest.notes.values() if isinstance(value, int | float)]
        assert numbers or key_figures(artifact) or "skipped" in artifact.manifest.notes, name
    shown = publish(stage_of("evaluation"), run.require("evaluation"), run, cached=False).metadata
    metrics = run.require("evaluation").read("metrics").filter(split="in_domain", metric="avg_at_k", model="distilled")
    assert shown["figure/in_domain/avg_at_k/distilled"] == metrics["value"].item()
    assert (
        key_figures(run.require("distilled_adapter"))["last_loss"]
        == run.require("distilled_adapter").read()["loss"][-1]
    )


def test_the_summary_shows_the_comparison_and_what_there_is(done, capsys):
    run, _, cached = done
    _print_summary(run, cached)
    shown = capsys.readouterr().out
    assert run.require("evaluation").manifest.notes["table"] in shown
    listed = {line.split("/")[-2] for line in shown.splitlines() if line.endswith(".parquet")}
    assert listed == set(cached) - {"ceiling_adapter", "ceiling_predictions"}


def test_the_ledger_tells_what_each_stage_and_objective_cost(done):
    run, _, cached = done
    ledger = pl.read_parquet(run.folder / "ledger.parquet").filter("shown", pl.col("state") == "done")
    made = {row["stage"]: row for row in ledger.iter_rows(named=True)}
    assert set(made) == {stage_of(name).name for name in cached}
    for stage in ("rollouts", "base_predictions", "rival_predictions", "distilled_predictions"):
        tables = [table for table in CATALOGUE[stage] if not table.endswith("p_true")]
        responses = [run.require(stage).read(table)["response_ids"] for table in tables]
        assert made[stage]["generated_tokens"] == sum(column.list.len().sum() for column in responses)
        assert made[stage]["read_tokens"] > 0
    sampled = run.require("distilled_adapter").read()["response_tokens"].sum() * 8
    assert made["distilled_adapter"]["generated_tokens"] == pytest.approx(sampled)
    assert made["rival_adapter"]["generated_tokens"] == 0
    objectives = {stage: row["objective"] for stage, row in made.items() if row["objective"]}
    of_stage = {"distilled": "opsd", "rival": "sft", "ceiling": "gold_context"}
    assert objectives == {
        f"{name}_{stage}": objective for name, objective in of_stage.items() for stage in ("adapter", "predictions")
    }
    for name in ADAPTERS:
        assert made[name]["trained_tokens"] > made[name]["generated_tokens"]
        assert made[name]["processor_seconds"] > 1  # of the process that trained


def test_nothing_unchanged_is_computed_again(done):
    run, config, _ = done
    assert all(materialize("reference", config, run).values())


def test_a_changed_setting_recomputes_what_depends_on_it(done):
    run, config, _ = done
    changed = ["teacher_contexts.n_demonstrations=1", "context_beliefs.n_demonstrations=3"]
    outcomes = run_chain(load_config(overrides=[*SLICE, *changed]), run, last="teacher_contexts")
    assert {name for name, outcome in outcomes.items() if not outcome.cached} == {"teacher_contexts"}
    run_chain(config, run, last="teacher_contexts")


@pytest.mark.parametrize(
    ("change", "remade"),
    [
        ("evaluation.n_resamples=120", {"evaluation"}),
        ("rollouts.batch_tokens=999", set()),
        ("pseudo_labels.min_votes=2", {"pseudo_labels", "context_beliefs", "curated_subset", "teacher_contexts"}),
    ],
)
def test_a_change_remakes_what_it_reaches_and_going_back_nothing(done, change, remade):
    run, config, _ = done
    last = "evaluation" if change.startswith("evaluation") else "teacher_contexts"
    outcomes = run_chain(load_config(overrides=[*SLICE, change]), run, last)
    assert {name for name, outcome in outcomes.items() if not outcome.cached} <= remade
    assert not remade or not outcomes[min(remade, key=list(outcomes).index)].cached
    assert all(outcome.cached for outcome in run_chain(config, run).values())


def test_runs_share_what_is_equal(done):
    run, _, _ = done
    other = run.store.run("other")
    changed = load_config(overrides=[*SLICE, "curated_subset.rule=random"])
    outcomes = run_chain(changed, other, last="curated_subset")
    assert {name for name, outcome in outcomes.items() if not outcome.cached} == {"curated_subset"}
    assert other.require("rollouts").folder == run.require("rollouts").folder
    assert other.require("curated_subset").folder != run.require("curated_subset").folder


@pytest.mark.parametrize("way", ["assets", "calls"])
def test_a_missing_test_stops_a_run_before_anything_is_sampled_or_trained(done, way, tmp_path):
    run = open_store(tmp_path).run("slice")
    config = load_config(overrides=[*SLICE, "tests.in_domain_path=missing.jsonl"])
    with pytest.raises((SourceError, dg.Failure), match=r"tests\.in_domain_path: missing\.jsonl"):
        if way == "calls":
            run_chain(config, run)
        else:
            materialize("reference", config, run)
    assert run.find("pool")
    assert not run.find("tests")
    assert not run.find("distilled_adapter")


def test_the_causal_check_runs_where_it_is_asked_for(done):
    run, config, _ = done
    assert materialize("reference", config, run, select="causal_check") == {"causal_check": False}
    check = run.require("causal_check")
    notes, table = check.manifest.notes, check.read()
    assert len(table) == notes["n_questions"] == config.causal_check.n_questions
    assert notes["difference"]["low"] <= notes["difference"]["mean"] <= notes["difference"]["high"]


def test_demonstrations_are_other_questions_of_the_pool(done):
    run, _, _ = done
    pool = set(run.require("pool").read()["id"])
    for row in run.require("teacher_contexts").read().iter_rows(named=True):
        assert row["id"] not in row["demonstration_ids"]
        assert set(row["demonstration_ids"]) <= pool


def test_adapter_and_report_are_files_for_people(done):
    run, _, _ = done
    for adapter in (run.folder / name for name in ADAPTERS):
        assert {"adapter_model.safetensors", "adapter_config.json", "README.md"} <= {p.name for p in adapter.iterdir()}
        settings = json.loads((adapter / "adapter_config.json").read_text())
        assert settings["base_model_name_or_path"] == "data/reference/model"
    metrics = run.require("evaluation").read("metrics")
    models, differences = ["untouched", "sft", "distilled"], ["distilled - untouched", "distilled - sft"]
    assert columns(run) == [*models, *differences, "n"]
    assert set(metrics["model"]) == {*models, *differences}
    assert set(run.require("evaluation").read("predictions")["model"]) == set(models)
    means = metrics.filter(pl.col("metric").str.contains("^(avg|maj|pass|brier|nll|agreement|abstention)"))
    assert means.select((pl.col("low") <= pl.col("value")) & (pl.col("value") <= pl.col("high"))).to_series().all()
    report = (run.folder / "evaluation" / "report.md").read_text()
    assert "In-domain" in report
    assert "rival_adapter.steps=4" in report
    assert "tried without gold before the training: cannot tell: " in report
    assert "- *sft*, the model trained by the rival method: fine-tuning on own responses. " in report
    assert "- *distilled*, the distilled model: on-policy self-distillation. " in report
    assert "gold answers" not in report


def test_fine_tuning_takes_the_selected_questions_that_have_a_majority(done):
    run, _, _ = done
    majority = run.require("pseudo_labels").read().filter(pl.col("state") == "majority")
    selected = run.require("curated_subset").read().filter("selected").join(majority, on="id", how="semi")
    assert run.require("rival_adapter").manifest.notes["training_questions"] == len(selected)
    assert run.require("rival_adapter").read()["step"].to_list() == [1, 2, 3, 4]


def test_the_rival_can_be_left_out(done):
    run, config, _ = done
    settings = [*SLICE, "rival_adapter.enabled=false"]
    select = "key:rival_adapter or key:rival_predictions or key:evaluation"
    assert not any(materialize("reference", load_config(overrides=settings), run, select).values())
    assert run.require("rival_adapter").manifest.notes == {"skipped": "rival_adapter.enabled is false"}
    assert run.require("rival_adapter").read().is_empty()
    assert not (run.folder / "rival_adapter" / "adapter_model.safetensors").exists()
    assert set(run.require("evaluation").read("metrics")["model"]) == {
        "untouched",
        "distilled",
        "distilled - untouched",
    }
    assert all(outcome.cached for outcome in run_chain(config, run).values())


def test_the_ceiling_is_trained_where_it_is_asked_for_and_marked_wherever_it_shows(done):
    run, config, _ = done
    assert run.require("ceiling_adapter").manifest.notes == {"skipped": "ceiling_adapter.enabled is false"}
    assert set(run.require("ceiling_predictions").manifest.rows.values()) == {0}
    asked = load_config(overrides=[*SLICE, "ceiling_adapter.enabled=true"])
    outcomes = run_chain(asked, run)
    made = {name for name, outcome in outcomes.items() if not outcome.cached}
    assert made == {"ceiling_adapter", "ceiling_predictions", "evaluation"}
    assert outcomes["ceiling_adapter"].artifact.read()["step"].to_list() == [1, 2, 3, 4]
    assert columns(run) == [
        *("untouched", "sft", "distilled", "ceiling (gold)"),
        *("distilled - untouched", "distilled - sft", "ceiling (gold) - distilled", "n"),
    ]
    card = (run.folder / "ceiling_adapter" / "README.md").read_text()
    report = (run.folder / "evaluation" / "report.md").read_text()
    assert "- *ceiling (gold)*, the model distilled from gold answers (a ceiling): " in report
    assert "gold" in card.partition("## Lineage")[0].lower()
    assert "No gold label" not in card
    assert all(outcome.cached for outcome in run_chain(config, run).values())


def test_the_examples_of_the_documentation_run(done, tmp_path, monkeypatch):
    duckdb = pytest.importorskip("duckdb")
    (tmp_path / "data" / "runs").mkdir(parents=True)
    (tmp_path / "data" / "runs" / "reference").symlink_to(done[0].folder)
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


def test_gold_never_reaches_curation_or_training(done, tmp_path):
    """A pool without any answers, as a user has it, gives the same bytes; so no stage up to training reads them."""
    run, _, _ = done
    lines = (PROJECT_ROOT / "data/reference/pool.jsonl").read_text().splitlines()[:80]
    rows = [json.loads(line) for line in lines]
    assert all(row.pop("answer") for row in rows)
    source = tmp_path / "pool.jsonl"
    source.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    other = open_store(tmp_path / "data").run("other")
    run_chain(load_config(overrides=[*SLICE, f"raw_pool.path={source}"]), other, last="ceiling_adapter")
    for name in (*CURATION, *ADAPTERS, "ceiling_adapter"):  # the ceiling is empty unless it is asked for
        folder = run.require(name).folder
        files = [p.relative_to(folder) for p in sorted(folder.rglob("*")) if p.is_file()]
        for file in (file for file in files if file.name not in {"manifest.json", "README.md"}):
            assert (other.folder / name / file).read_bytes() == (folder / file).read_bytes(), (name, file)


def test_too_many_bad_rows_fail_but_leave_the_quarantine(tmp_path):
    source = tmp_path / "pool.jsonl"
    source.write_text('{"question": "q", "options": ["only one"]}\n{"question": "q", "options": ["a", "b"]}\n{broken\n')
    run, config = open_store(tmp_path / "data").run("bad"), load_config(overrides=[f"raw_pool.path={source}"])
    with pytest.raises(SourceError, match="2 of 3 rows refused"):
        chain.materialize(stage_of("raw_pool"), config.raw_pool, config.model, run)
    assert run.require("quarantine").read()["reason"].to_list() == ["too_few_options", "malformed_json"]
    assert run.find("raw_pool") is None
