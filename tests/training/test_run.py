"""A training job as a program: one file in, an adapter out, the same bytes every time, for every objective."""

import json
import subprocess
import sys
from types import SimpleNamespace

import polars as pl
import pyarrow.parquet as pq
import pytest
import torch
from dagster_pipes import encode_param
from huggingface_hub import ModelCard
from peft import PeftModel

from pipeline.adapters.config import CeilingAdapterConfig, DistilledAdapterConfig, RivalAdapterConfig
from pipeline.adapters.job import TrainingJob, read_job, write_job
from pipeline.adapters.schemas import TRAINING_LOG
from pipeline.digests import digest_file
from pipeline.errors import ArtifactError, ConfigError, TrainingError
from pipeline.model_config import ModelConfig
from pipeline.models import load_model
from pipeline.paths import PROJECT_ROOT
from training.objectives import OBJECTIVES, load_objective
from training.reporting import ProgressCallback, Reporter
from training.run import train

pytestmark = pytest.mark.slow
SHARED = {"steps": 3, "trajectories_per_step": 4, "micro_batch": 2, "learning_rate": 1e-2}
SETTINGS = {
    "opsd": DistilledAdapterConfig(max_new_tokens=5, temperature=1.0, **SHARED),
    "opsd_majority": RivalAdapterConfig(objective="opsd_majority", max_new_tokens=5, temperature=1.0, **SHARED),
    "u_opsd": RivalAdapterConfig(objective="u_opsd", **SHARED),
    "sft": RivalAdapterConfig(**SHARED),
    "gold_context": CeilingAdapterConfig(enabled=True, max_new_tokens=5, temperature=1.0, **SHARED),
    "grpo": RivalAdapterConfig(objective="grpo", num_generations=4, max_new_tokens=3, temperature=1.0, **SHARED),
}


def run_program(*arguments, env=None):
    command = [sys.executable, "-m", "training.run", *arguments]
    return subprocess.run(command, cwd=PROJECT_ROOT, env=env, capture_output=True, text=True, check=False)


def digests(folder):
    return {path.relative_to(folder).as_posix(): digest_file(path) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def real_job(fill, job_for, tiny_folder, talker_folder):
    """Return a function that makes a job with its inputs under a folder."""

    def make(objective, root, **changes):
        settings = SETTINGS[objective].model_copy(update=changes)
        model = ModelConfig(path=str(talker_folder if objective == "grpo" else tiny_folder))  # rewards ask for answers
        return job_for(
            objective,
            root / "output",
            settings,
            model=model,
            inputs=fill(root / "inputs"),
            lineage={"curated_subset": "digest"},
            fingerprint="0" * 64,
        )

    return make


@pytest.fixture(scope="module")
def run_forked(start):
    """Return a function that runs a job in a process that need not import anything."""

    def run_job(job):
        process = start(job)
        process.join()
        said = ((job.output.parent / name).read_text() for name in ("stdout", "stderr"))
        return subprocess.CompletedProcess(["training.run"], process.exitcode, *said)

    return run_job


@pytest.fixture(scope="module", params=sorted(OBJECTIVES))
def runs(request, real_job, run_forked, tmp_path_factory):
    """The same job run twice, in two folders; once as a user does, and once with activation checkpointing."""
    one, two = (tmp_path_factory.mktemp(name) for name in ("one", "two"))
    job, again = real_job(request.param, one), real_job(request.param, two, activation_checkpointing=True)
    write_job(job, one / "job.json")
    return [(job, run_program("--job", str(one / "job.json"))), (again, run_forked(again))]


def test_a_job_leaves_its_files_and_says_nothing_but_its_progress(runs):
    for _, done in runs:
        assert done.returncode == 0, done.stderr
        assert done.stdout == ""
        assert [line.split(" ")[0] for line in done.stderr.splitlines()] == ["training", *["step"] * 3, "adapter"]
    (job, _), _ = runs
    adapter = {"adapter_model.safetensors", "adapter_config.json", "README.md"}
    assert set(digests(job.output)) == adapter | {"training_log.parquet", "notes.json"}
    notes = json.loads((job.output / "notes.json").read_text())
    assert notes.pop("training_questions") == 6
    assert [notes.pop(name) for name in ("label", "title", "summary")] == [
        job.objective,
        load_objective(job.objective).title,
        load_objective(job.objective).summary,
    ]
    own = {
        "opsd": {"teacher_error_bound"},
        "opsd_majority": {"teacher_error_bound"},
        "u_opsd": {"teacher_error_bound", "questions_below_consistency", "questions_without_disagreement"},
        "gold_context": {"teacher_error_bound"},
        "sft": {"training_responses", "questions_without_target"},
    }
    assert set(notes) == own.get(job.objective, set())
    assert 0 <= notes.get("teacher_error_bound", 0) < 0.01
    assert pq.read_schema(job.output / "training_log.parquet").equals(TRAINING_LOG, check_metadata=True)
    log = pl.read_parquet(job.output / "training_log.parquet")
    assert log["step"].to_list() == [1, 2, 3]
    if job.objective != "grpo":  # whose loss is 0 where the policy is the one that was sampled
        assert (log["loss"] > 0).all()
    assert log["grad_norm"].max() > 0
    assert (log["response_tokens"] > 0).all()


def test_the_adapter_loads_with_peft_and_changes_the_model(runs):
    (job, _), _ = runs
    base = load_model(job.model).model
    ids = torch.tensor([[5, 6, 7]])
    before = base(ids).logits.detach()
    adapted = PeftModel.from_pretrained(base, job.output)
    assert adapted.peft_config["default"].base_model_name_or_path == job.model.path
    assert not torch.allclose(before, adapted(ids).logits, atol=1e-5)


def test_the_bytes_of_every_file_repeat_and_activation_checkpointing_changes_none(runs):
    (one, _), (two, _) = runs
    assert digests(one.output) == digests(two.output)


def test_the_model_card_tells_method_and_lineage_and_names_no_scratch_folder(runs):
    (job, _), _ = runs
    card = (job.output / "README.md").read_text()
    own = {
        "opsd": ["on-policy self-distillation\n", "ema_decay", "worked examples", "No gold label"],
        "opsd_majority": ["distillation from majority responses\n", "ema_decay", "No gold label"],
        "u_opsd": ["distillation into disagreeing responses\n", "ema_decay", "min_consistency: 0.5", "No gold label"],
        "sft": ["fine-tuning on own responses\n", "targets: majority", "No gold label"],
        "grpo": ["reinforcement without labels\n", "reward: majority", "num_generations: 4", "No gold label"],
        "gold_context": ["distillation from gold answers\n", "ema_decay", "worked examples", "Gold labels were used"],
    }
    told = ["| training questions | 6 |", "`curated_subset`, SHA-256"]
    told += [f"{job.stage}:\n", "learning_rate: 0.01"]
    assert [fact for fact in [*told, *own[job.objective]] if fact not in card] == []
    others = {fact for facts in own.values() for fact in facts} - {*own[job.objective]}
    assert [fact for fact in others if fact in card] == []
    assert ("\n  targets:" in card) == (job.objective == "sft")  # a setting that another objective reads
    assert str(job.output.parent) not in card


def test_the_header_of_the_model_card_is_what_the_hub_reads(runs):
    (job, _), _ = runs
    assert ModelCard.load(job.output / "README.md").data.to_dict() == {
        "base_model": job.model.path,
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["lora", "neuron-opsd", job.objective],
    }


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ("opsd", "6 training questions are fewer than distilled_adapter.trajectories_per_step = 8: lower it, or keep"),
        (
            "sft",
            "6 training questions with a response to learn are fewer than rival_adapter.trajectories_per_step = 8: ",
        ),
    ],
)
def test_too_few_questions_are_refused_in_one_line_and_leave_nothing(
    real_job, run_forked, tmp_path, objective, message
):
    job = real_job(objective, tmp_path, trajectories_per_step=8)
    done = run_forked(job)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {message}")
    assert ("rival_adapter.enabled=false" in done.stderr) == (objective == "sft")
    assert done.stderr.count("\n") == 1
    assert not job.output.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("{", "not valid JSON"),
        ("[]", "one JSON object"),
        ("{}", "missing key 'objective'"),
        (json.dumps({"objective": "opsd", "outputt": "x"}), "unknown key 'outputt', did you mean 'output'"),
        (json.dumps({"model": {"pathh": "x"}}), "unknown key 'model.pathh', did you mean 'path'"),
    ],
)
def test_unusable_jobs_are_refused(tmp_path, content, message):
    path = tmp_path / "job.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_job(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "sfft"}, "objective = 'sfft' is not known, did you mean 'sft'"),
        ({"objective": "objective"}, "objective = 'objective' is not known"),
        ({"settings": {"stepz": 1}}, "settings of rival_adapter: unknown key 'stepz', did you mean 'steps'"),
        ({"settings": {"require_lift": "stop"}}, "settings of rival_adapter: unknown key 'require_lift'"),
        ({"settings": {"steps": 0}}, "settings of rival_adapter: steps = 0: input should be greater than"),
    ],
)
def test_objectives_and_settings_that_there_are_not_are_refused(job_for, tmp_path, changes, message):
    job = job_for("sft", tmp_path, SETTINGS["sft"])
    with pytest.raises(ConfigError, match=message):
        train(TrainingJob.model_validate(job.model_dump() | changes), Reporter(None))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_job_survives_its_file(job_for, tmp_path, objective):
    settings = SETTINGS[objective].model_copy(update={"lora_rank": 3})
    inputs = {"curated_subset": tmp_path / "curated_subset"}
    job = job_for(objective, tmp_path, settings, inputs=inputs, lineage={"curated_subset": "0"})
    write_job(job, tmp_path / "new" / "job.json")
    assert read_job(tmp_path / "new" / "job.json") == job


@pytest.mark.parametrize("damage", ["gone", "cut", "emptied", "another", "unnamed", "garbled"])
def test_inputs_that_cannot_be_read_are_refused_with_the_stage_to_run(real_job, tmp_path, damage):
    job = real_job("sft", tmp_path)
    shard = job.inputs["rollouts"] / "rollouts.parquet" / "shard-00001.parquet"
    content = shard.read_bytes()
    if damage == "gone":
        (job.inputs["curated_subset"] / "curated_subset.parquet").unlink()
    elif damage == "cut":
        shard.write_bytes(content[:-20])
    elif damage == "emptied":
        [path.unlink() for path in list(shard.parent.iterdir())]
    elif damage == "another":
        shard.write_bytes((job.inputs["pseudo_labels"] / "pseudo_labels.parquet").read_bytes())
    elif damage == "unnamed":
        job = job.model_copy(update={"inputs": {"rollouts": job.inputs["rollouts"]}})
    else:
        shard.write_bytes(content[:4] + bytes(len(content) // 2) + content[4 + len(content) // 2 :])
    with pytest.raises(ArtifactError, match=r"materialize '|add the folder"):
        train(job, Reporter(None))


def test_an_earlier_run_s_notes_do_not_outlive_a_failed_one(real_job, tmp_path):
    job = real_job("sft", tmp_path, micro_batch=3)
    job.output.mkdir()
    (job.output / "notes.json").write_text("{}")
    with pytest.raises(ConfigError, match="does not divide"):
        train(job, Reporter(None))
    assert not (job.output / "notes.json").exists()


def test_a_run_whose_loss_is_no_number_stops():
    state = SimpleNamespace(global_step=7, max_steps=9)
    logs = {"loss": float("nan"), "grad_norm": 1.0, "completions/mean_length": 5.0}
    with pytest.raises(TrainingError, match=r"step 7: the loss is nan .* lower rival_adapter.learning_rate"):
        ProgressCallback(Reporter(None), "rival_adapter").on_log(None, state, None, logs=logs)


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
