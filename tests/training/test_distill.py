"""The distillation job as a program: one file in, one artifact out, the same bytes every time."""

import json
import subprocess
import sys
from types import SimpleNamespace

import polars as pl
import pytest
import torch
from dagster_pipes import encode_param
from peft import PeftModel

from pipeline.artifacts import ArtifactStore
from pipeline.config import (
    PROJECT_ROOT,
    CuratedSubsetConfig,
    DistilledAdapterConfig,
    ModelConfig,
    TeacherContextsConfig,
)
from pipeline.errors import ArtifactError, ConfigError, TrainingError
from pipeline.jobs import DistillationJob, read_job, write_job
from pipeline.models import load_model
from pipeline.schemas import TEACHER_CONTEXTS
from training.distill import read_contexts
from training.reporting import ProgressCallback, Reporter

SETTINGS = DistilledAdapterConfig(
    steps=3, trajectories_per_step=4, micro_batch=2, learning_rate=1e-2, max_new_tokens=5, temperature=1.0
)


def run_program(*arguments, env=None):
    command = [sys.executable, "-m", "training.distill", *arguments]
    return subprocess.run(command, cwd=PROJECT_ROOT, env=env, capture_output=True, text=True, check=False)


def write_contexts(store):
    rows = [(f"q{i}", f"colour {i}?", "Example\nred\nResponse: blue\n\n", ["x"], [0.5], 30, 0) for i in range(6)]
    with store.write("teacher_contexts", "f", {}) as writer:
        schema = pl.DataFrame(TEACHER_CONTEXTS.empty_table()).schema
        writer.append("teacher_contexts", pl.DataFrame(rows, schema=schema, orient="row"))


def job_in(store, model_folder, work_dir):
    return DistillationJob(
        contexts_path=store.path("teacher_contexts"),
        store_root=store.root,
        fingerprint="0" * 64,
        provenance={"inputs": {"teacher_contexts": "digest"}},
        model=ModelConfig(path=str(model_folder)),
        settings=SETTINGS,
        curated_subset=CuratedSubsetConfig(rule="vote_share"),
        teacher_contexts=TeacherContextsConfig(),
        work_dir=work_dir,
    )


@pytest.fixture(scope="module")
def runs(tiny_folder, tmp_path_factory):
    """The same job run twice, in two stores."""
    finished = []
    for name in ("one", "two"):
        folder = tmp_path_factory.mktemp(name)
        store = ArtifactStore(folder / "store")
        write_contexts(store)
        write_job(job_in(store, tiny_folder, folder / "work"), folder / "job.json")
        finished.append((store, run_program("--job", str(folder / "job.json"))))
    return finished


def test_a_job_leaves_a_finished_artifact_and_says_nothing_but_its_progress(runs):
    store, done = runs[0]
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert [line.split(" ")[0] for line in done.stderr.splitlines()] == ["distilling", *["step"] * 3, "adapter"]
    manifest = store.current("distilled_adapter", "0" * 64)
    assert {"adapter_model.safetensors", "README.md", "training_curve.png"} < set(manifest.digests)
    log = store.read("distilled_adapter", "training_log")
    assert log["step"].to_list() == [1, 2, 3]
    assert (log["loss"] > 0).all()


def test_the_adapter_loads_with_peft_and_changes_the_model(runs, tiny_folder):
    store, _ = runs[0]
    base = load_model(ModelConfig(path=str(tiny_folder))).model
    ids = torch.tensor([[5, 6, 7]])
    before = base(ids).logits.detach()
    adapted = PeftModel.from_pretrained(base, store.root / "distilled_adapter")
    assert adapted.peft_config["default"].base_model_name_or_path == str(tiny_folder)
    assert not torch.allclose(before, adapted(ids).logits, atol=1e-5)


def test_the_bytes_of_every_file_repeat(runs):
    (one, _), (two, _) = runs
    assert one.manifest("distilled_adapter").digests == two.manifest("distilled_adapter").digests


def test_the_model_card_tells_the_lineage_and_names_no_scratch_folder(runs, tiny_folder):
    store, _ = runs[0]
    card = (store.root / "distilled_adapter" / "README.md").read_text()
    told = ["No gold label", "| training questions | 6 |", "`vote_share`", "`neuron_overlap`", "learning_rate: 0.01"]
    assert [fact for fact in told if fact not in card] == []
    assert str(store.root) not in card


def test_too_few_questions_are_refused_in_one_line_and_leave_no_artifact(tiny_folder, tmp_path):
    store = ArtifactStore(tmp_path / "store")
    write_contexts(store)
    job = job_in(store, tiny_folder, tmp_path / "work")
    settings = SETTINGS.model_copy(update={"trajectories_per_step": 8})
    write_job(job.model_copy(update={"settings": settings}), tmp_path / "job.json")
    done = run_program("--job", str(tmp_path / "job.json"))
    assert done.returncode == 2
    assert done.stderr.startswith("error: 6 training questions are fewer than distilled_adapter.trajectories_per_step")
    assert done.stderr.count("\n") == 1
    assert store.manifest("distilled_adapter") is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("{", "not valid JSON"),
        ("[]", "one JSON object"),
        (json.dumps({"contexts_pth": "x"}), "did you mean 'contexts_path'"),
        (json.dumps({"settings": {"stepz": 1}}), "unknown key 'settings.stepz', did you mean 'steps'"),
    ],
)
def test_unusable_jobs_are_refused(tmp_path, content, message):
    path = tmp_path / "job.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_job(path)


def test_a_job_survives_its_file(tmp_path):
    job = job_in(ArtifactStore(tmp_path), "some/model", tmp_path / "work")
    write_job(job, tmp_path / "new" / "job.json")
    assert read_job(tmp_path / "new" / "job.json") == job


def test_contexts_of_another_schema_are_refused(tmp_path):
    path = tmp_path / "contexts.parquet"
    with pytest.raises(ArtifactError, match="missing or not Parquet"):
        read_contexts(path)
    path.write_bytes(b"not Parquet")
    with pytest.raises(ArtifactError, match="missing or not Parquet"):
        read_contexts(path)
    pl.DataFrame({"id": ["q"], "gold_answer": ["x"]}).write_parquet(path)
    with pytest.raises(ArtifactError, match="not the declared"):
        read_contexts(path)


def test_a_run_whose_loss_is_no_number_stops():
    state = SimpleNamespace(global_step=7, max_steps=9)
    logs = {"loss": float("nan"), "grad_norm": 1.0, "completions/mean_length": 5.0}
    with pytest.raises(TrainingError, match="step 7: the loss is nan"):
        ProgressCallback(Reporter(None)).on_log(None, state, None, logs=logs)


def test_under_dagster_pipes_errors_and_lines_go_to_dagster(tmp_path, monkeypatch):
    context = {"asset_keys": ["distilled_adapter"], "run_id": "r", "job_name": "j", "retry_number": 0, "extras": {}}
    unset = ("code_version_by_asset_key", "provenance_by_asset_key", "partition_key", "partition_key_range")
    context |= dict.fromkeys([*unset, "partition_time_window", "job_name"])
    monkeypatch.setenv("DAGSTER_PIPES_CONTEXT", encode_param({"data": context}))
    monkeypatch.setenv("DAGSTER_PIPES_MESSAGES", encode_param({"path": str(tmp_path / "messages")}))
    done = run_program("--job", str(tmp_path / "missing.json"))
    assert done.returncode == 2
    messages = [json.loads(line) for line in (tmp_path / "messages").read_text().splitlines()]
    assert messages[-1]["method"] == "closed"
    assert "cannot be read" in messages[-1]["params"]["exception"]["message"]
