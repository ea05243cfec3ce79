"""A training job as a program: one file in, one artifact out, the same bytes every time, for every objective."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from dagster_pipes import encode_param
from peft import PeftModel

from pipeline.adapters.config import DistilledAdapterConfig, SftAdapterConfig
from pipeline.adapters.job import JOBS, DistillationJob, SftJob, read_job, write_job
from pipeline.artifacts import ArtifactStore
from pipeline.errors import ConfigError, TrainingError
from pipeline.model_config import ModelConfig
from pipeline.models import load_model
from pipeline.paths import PROJECT_ROOT
from pipeline.selection.config import CuratedSubsetConfig
from pipeline.teacher.config import TeacherContextsConfig
from training.objectives import OBJECTIVES
from training.reporting import ProgressCallback, Reporter

SETTINGS = {"steps": 3, "trajectories_per_step": 4, "micro_batch": 2, "learning_rate": 1e-2}
ARTIFACT = {"opsd": "distilled_adapter", "sft": "sft_adapter"}


def run_program(*arguments, env=None):
    command = [sys.executable, "-m", "training.run", *arguments]
    return subprocess.run(command, cwd=PROJECT_ROOT, env=env, capture_output=True, text=True, check=False)


def job_for(objective, store, model_folder, work_dir, **changes):
    common = {
        "artifact": ARTIFACT[objective],
        "store_root": store.root,
        "fingerprint": "0" * 64,
        "provenance": {"inputs": {"curated_subset": "digest"}},
        "model": ModelConfig(path=str(model_folder)),
        "curated_subset": CuratedSubsetConfig(rule="vote_share"),
        "work_dir": work_dir,
    }
    if objective == "sft":
        return SftJob(settings=SftAdapterConfig(**SETTINGS | changes), **common)
    settings = DistilledAdapterConfig(max_new_tokens=5, temperature=1.0, **SETTINGS | changes)
    return DistillationJob(settings=settings, teacher_contexts=TeacherContextsConfig(), **common)


@pytest.fixture(scope="module", params=["opsd", "sft"])
def runs(request, fill, tiny_folder, tmp_path_factory):
    """The same job run twice, in two stores."""
    finished = []
    for name in ("one", "two"):
        folder = tmp_path_factory.mktemp(name)
        store = ArtifactStore(folder / "store")
        fill(store)
        write_job(job_for(request.param, store, tiny_folder, folder / "work"), folder / "job.json")
        finished.append((store, run_program("--job", str(folder / "job.json"))))
    return ARTIFACT[request.param], finished


def test_a_job_leaves_a_finished_artifact_and_says_nothing_but_its_progress(runs):
    artifact, [(store, done), _] = runs
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert [line.split(" ")[0] for line in done.stderr.splitlines()] == ["training", *["step"] * 3, "adapter"]
    manifest = store.current(artifact, "0" * 64)
    assert {"adapter_model.safetensors", "README.md", "training_curve.png"} < set(manifest.digests)
    assert manifest.notes == {"training_questions": 6}
    log = store.read(artifact, "training_log")
    assert log["step"].to_list() == [1, 2, 3]
    assert (log["loss"] > 0).all()
    assert (log["response_tokens"] > 0).all()


def test_the_adapter_loads_with_peft_and_changes_the_model(runs, tiny_folder):
    artifact, [(store, _), _] = runs
    base = load_model(ModelConfig(path=str(tiny_folder))).model
    ids = torch.tensor([[5, 6, 7]])
    before = base(ids).logits.detach()
    adapted = PeftModel.from_pretrained(base, store.root / artifact)
    assert adapted.peft_config["default"].base_model_name_or_path == str(tiny_folder)
    assert not torch.allclose(before, adapted(ids).logits, atol=1e-5)


def test_the_bytes_of_every_file_repeat(runs):
    artifact, [(one, _), (two, _)] = runs
    assert one.manifest(artifact).digests == two.manifest(artifact).digests


def test_the_model_card_tells_method_and_lineage_and_names_no_scratch_folder(runs, tiny_folder):
    artifact, [(store, _), _] = runs
    card = (store.root / artifact / "README.md").read_text()
    told = ["No gold label", "| training questions | 6 |", "`curated_subset`, SHA-256", "rule: vote_share"]
    told += [f"{artifact}:\n", "learning_rate: 0.01"]
    own = {"distilled_adapter": ["on-policy self-distillation\n", "builder: stem_overlap", "ema_decay"]}
    told += own.get(artifact, ["fine-tuning on majority votes\n", "- sft\n"])
    assert [fact for fact in told if fact not in card] == []
    assert ("builder" in card) == ("worked examples" in card) == (artifact == "distilled_adapter")
    assert str(store.root) not in card


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ("opsd", "6 training questions are fewer than distilled_adapter.trajectories_per_step = 8: lower it, or keep"),
        (
            "sft",
            "6 training questions with a majority are fewer than sft_adapter.trajectories_per_step = 8: lower it, ",
        ),
    ],
)
def test_too_few_questions_are_refused_in_one_line_and_leave_no_artifact(
    fill, tiny_folder, tmp_path, objective, message
):
    store = ArtifactStore(tmp_path / "store")
    fill(store)
    job = job_for(objective, store, tiny_folder, tmp_path / "work", trajectories_per_step=8)
    write_job(job, tmp_path / "job.json")
    done = run_program("--job", str(tmp_path / "job.json"))
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {message}")
    assert ("sft_adapter.enabled=false" in done.stderr) == (objective == "sft")
    assert done.stderr.count("\n") == 1
    assert store.manifest(ARTIFACT[objective]) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("{", "not valid JSON"),
        ("[]", "one JSON object"),
        ("{}", "objective = 'None' is not known"),
        (json.dumps({"objective": "sfft"}), "objective = 'sfft' is not known, did you mean 'sft'"),
        (json.dumps({"objective": "opsd", "work_dirr": "x"}), "did you mean 'work_dir'"),
        (json.dumps({"objective": "sft", "settings": {"stepz": 1}}), "'settings.stepz', did you mean 'steps'"),
        (json.dumps({"objective": "sft", "settings": {"ema_decay": 0.9}}), "unknown key 'settings.ema_decay'"),
    ],
)
def test_unusable_jobs_are_refused(tmp_path, content, message):
    path = tmp_path / "job.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_job(path)


@pytest.mark.parametrize("objective", JOBS)
def test_a_job_survives_its_file(tmp_path, objective):
    job = job_for(objective, ArtifactStore(tmp_path), "some/model", tmp_path / "work", lora_rank=3)
    write_job(job, tmp_path / "new" / "job.json")
    assert read_job(tmp_path / "new" / "job.json") == job


def test_every_objective_has_its_job():
    assert OBJECTIVES.keys() == JOBS.keys()


def test_a_run_whose_loss_is_no_number_stops():
    state = SimpleNamespace(global_step=7, max_steps=9)
    logs = {"loss": float("nan"), "grad_norm": 1.0, "completions/mean_length": 5.0}
    with pytest.raises(TrainingError, match=r"step 7: the loss is nan .* lower sft_adapter.learning_rate"):
        ProgressCallback(Reporter(None), "sft_adapter").on_log(None, state, None, logs=logs)


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
