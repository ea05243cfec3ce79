"""The guard: when a vital counts as collapsed, and what a run that is ended leaves."""

import json
import math
from types import SimpleNamespace

import polars as pl
import pytest
import torch
from peft import get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import TrainerCallback

from pipeline.adapters.config import DistilledAdapterConfig, TrainingConfig
from pipeline.model_config import ModelConfig
from pipeline.models import load_model
from training.guard import LIMITS, Guard, first_to_move, judge
from training.objectives import opsd
from training.reporting import Reporter
from training.run import train
from training.vitals import LOGGED

SETTINGS = TrainingConfig(objective="any", trajectories_per_step=4, guard_responses=10)  # windows of 3 steps
SOUND = {
    "response_tokens": 100.0,
    "clipped_share": 0.2,
    "entropy": 0.4,
    "distinct_responses": 0.8,
    "distinct_answers": 0.4,
    "agreement": 0.6,
    "kl_to_base": 0.01,
}
LIMIT = {  # by hand, from the default settings
    "response_tokens": 25.0,
    "clipped_share": 0.7,
    "entropy": 0.04,
    "distinct_responses": 0.2,
    "distinct_answers": 0.1,
    "agreement": 0.3,
    "kl_to_base": 1.0,
}


def history(*later, **first):
    """Return a trainer's log: three sound steps, then a step for each of ``later``."""
    steps = [SOUND | first] * 3 + [SOUND | first | changed for changed in later]
    named = [{LOGGED[column]: value for column, value in step.items() if value is not None} for step in steps]
    return [{"loss": 0.1, "step": n, **entry} for n, entry in enumerate(named, 1)]


def strain_of(vital, log):
    return next(found.strain for found in judge(log, SETTINGS) if found.vital == vital)


@pytest.mark.parametrize("vital", LIMITS)
def test_a_vital_is_strained_to_one_at_its_limit_and_not_at_all_where_it_began(vital):
    assert strain_of(vital, history(*[{vital: LIMIT[vital]}] * 3)) == pytest.approx(1)
    assert strain_of(vital, history({})) == pytest.approx(0, abs=0.02)  # the divergence has begun at 0.01
    assert judge(history(*[{vital: LIMIT[vital]}] * 3), SETTINGS)[0].vital == vital


@pytest.mark.parametrize(("vital", "limit"), [("response_tokens", 400.0), ("entropy", 4.0)])
def test_what_may_move_both_ways_has_a_limit_both_ways(vital, limit):
    assert strain_of(vital, history(*[{vital: limit}] * 3)) == pytest.approx(1)


@pytest.mark.parametrize("vital", LIMITS)
def test_one_noisy_step_crosses_no_limit(vital):
    assert strain_of(vital, history({}, {vital: LIMIT[vital]}, {})) < 1


def test_nothing_is_judged_before_the_first_window_ends():
    assert judge(history()[:2], SETTINGS) == []


@pytest.mark.parametrize(
    ("vital", "value"),
    [("clipped_share", 1.0), ("entropy", 0.0), ("distinct_answers", 0.0), ("agreement", 0.0), ("response_tokens", 0.0)],
)
def test_what_was_at_its_worst_from_the_first_cannot_collapse(vital, value):
    assert strain_of(vital, history({vital: value}, **{vital: value})) == 0


@pytest.mark.parametrize("vital", ["entropy", "response_tokens"])
def test_nothing_left_is_past_any_factor(vital):
    assert strain_of(vital, history(*[{vital: 0.0}] * 3)) == math.inf


def test_what_an_objective_does_not_have_is_not_judged():
    assert {found.vital for found in judge(history({}, agreement=None, distinct_answers=None), SETTINGS)} == (
        set(LIMITS) - {"agreement", "distinct_answers"}
    )


def test_given_targets_may_be_learnt_by_heart():
    """Without samples, length and entropy are those of the targets: to be sure of them is the purpose."""
    of_targets = dict.fromkeys(("clipped_share", "distinct_responses", "distinct_answers", "agreement"))
    sure = {"entropy": 0.001, "response_tokens": 2.0}
    assert [found.vital for found in judge(history(*[sure] * 3, **of_targets), SETTINGS)] == ["kl_to_base"]


def test_a_figure_that_is_not_taken_at_every_step_counts_where_it_is():
    log = history({"kl_to_base": None}, {"kl_to_base": 2.0}, {"kl_to_base": None})
    assert strain_of("kl_to_base", log) == pytest.approx(2)
    assert "kl_to_base" not in {found.vital for found in judge(history(*[{"kl_to_base": None}] * 3), SETTINGS)}


def test_the_first_to_move_is_the_first_past_half_way():
    log = history({"agreement": 0.1}, {"kl_to_base": 9.0, "agreement": 0.1}, {"kl_to_base": 9.0})
    assert first_to_move(log, SETTINGS) == ("agreement", 4)


COLLAPSING = {
    "steps": 16,
    "warmup_share": 0.5,
    "trajectories_per_step": 4,
    "micro_batch": 4,
    "learning_rate": 0.02,
    "max_new_tokens": 5,
    "temperature": 1.0,
    "teacher": "live",
    "kl_every": 1,
    "guard_responses": 8,
}


class Listener(Reporter):
    """Keeps what is reported."""

    def __init__(self):
        super().__init__(None)
        self.warnings = []

    def warning(self, text):
        self.warnings.append(text)


@pytest.fixture
def run(fill, job_for, tiny_folder, tmp_path, capsys):
    """Return a function that trains with changed settings and returns output folder, notes and warnings."""

    def train_with(**changes):
        output = tmp_path / "-".join(map(str, changes.values()))
        settings = DistilledAdapterConfig(**COLLAPSING | changes)
        model, inputs = ModelConfig(path=str(tiny_folder)), fill(tmp_path / "inputs")
        train(job_for("opsd", output, settings, model=model, inputs=inputs), Reporter(None))
        lines = capsys.readouterr().err.splitlines()
        warnings = [line.removeprefix("warning: ") for line in lines if line.startswith("warning: ")]
        return output, json.loads((output / "notes.json").read_text()), warnings

    return train_with


def test_a_run_that_collapses_is_ended_and_leaves_the_adapter_of_its_last_sound_steps(run):
    output, notes, (warning,) = run(guard="stop")
    assert notes["stopped_at"] < COLLAPSING["steps"]
    assert 0 < notes["kept_step"] <= notes["stopped_at"] - 2
    assert notes["kept_step"] % 2 == 0
    because = notes["stopped_because"]
    assert because.startswith("the divergence from the base model (nats per token) went from ")
    assert "past distilled_adapter.guard_max_kl = 1.0; the first to move was" in because
    assert (
        warning == f"stopped at step {notes['stopped_at']}: {because}. The adapter of step {notes['kept_step']} is kept"
    )
    log = pl.read_parquet(output / "training_log.parquet")
    assert log["step"].to_list() == list(range(1, notes["stopped_at"] + 1))
    assert log["kl_to_base"][-1] > 1
    assert f"| stopped at | {notes['stopped_at']} |" in (output / "README.md").read_text()


class Recorder(TrainerCallback):
    """Keeps the adapter of every step."""

    def __init__(self, trainer):
        self.trainer, self.adapters = trainer, [self.adapter(trainer)]

    @staticmethod
    def adapter(trainer):
        return {name: weight.clone() for name, weight in get_peft_model_state_dict(trainer.model).items()}

    def on_step_end(self, *_args, **_):
        self.adapters.append(self.adapter(self.trainer))


def test_the_kept_adapter_is_that_of_its_step_to_the_bit(run, fill, job_for, tiny_folder, tmp_path):
    output, notes, _ = run(guard="stop")
    settings = DistilledAdapterConfig(**COLLAPSING)
    job = job_for("opsd", tmp_path, settings, inputs=fill(tmp_path / "inputs"))
    trainer = opsd.build(job, settings, opsd.read(job).collect(), load_model(ModelConfig(path=str(tiny_folder))))
    recorder = Recorder(trainer)
    trainer.add_callback(recorder)
    trainer.train()
    kept = load_file(output / "adapter_model.safetensors")
    same = [all(torch.equal(adapter[name], weight) for name, weight in kept.items()) for adapter in recorder.adapters]
    assert [step for step, equal in enumerate(same) if equal] == [notes["kept_step"]]


def guarded(log, cut_after=None):
    """Return notes, warnings and weight of a model whose weight is the number of the step, guarded along a log."""
    model, listener, control = torch.nn.Linear(1, 1), Listener(), SimpleNamespace(should_training_stop=False)
    model.weight.data.fill_(0)
    guard = Guard(model, listener, SETTINGS, "stage")
    for step, entry in enumerate(log, 1):
        model.weight.data.fill_(step)
        guard.on_log(None, SimpleNamespace(log_history=log[:step], global_step=step), control, logs=entry)
        if control.should_training_stop:
            break
        if step == cut_after:
            tensors, values = guard.tensors(), json.loads(json.dumps(guard.values()))
            guard = Guard(model, listener, SETTINGS, "stage")
            guard.restore(tensors, values)
    guard.on_train_end()
    return guard.notes, listener.warnings, model.weight.item()


@pytest.mark.parametrize(
    ("divergences", "stopped", "kept"),
    [
        ([0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 5.0], 10, 6),  # the copy of step 9 may hold what began in steps 8 to 10
        ([0.1, 0.1, 0.1, 0.1, 0.1, 1.4, 0.7, 0.7, 9.0], 12, 6),  # not sound since 9: 6 is a window older
        ([0.1, 0.1, 0.1, 0.8, 0.8, *[0.1] * 7, 9.0], 16, 12),  # it recovered between
        ([9.0], 4, 0),
        ([0.1] * 9, None, 12),
    ],
)
def test_what_is_kept_is_a_window_older_than_the_first_step_that_was_not_sound(divergences, stopped, kept):
    log = history(*({"kl_to_base": value} for value in divergences))
    notes, warnings, weight = guarded(log)
    assert (notes.get("stopped_at"), weight) == (stopped, kept)
    assert len(warnings) == (stopped is not None)
    assert notes.get("kept_step", 12) == kept


@pytest.mark.parametrize("cut_after", range(1, 12))
def test_a_guard_goes_on_from_its_state_as_if_it_had_not_been_cut_off(cut_after):
    log = history(*({"kl_to_base": value} for value in [0.1, 0.1, 0.1, 0.1, 0.1, 1.4, 0.7, 0.7, 9.0]))
    assert guarded(log, cut_after) == guarded(log)


def test_a_warning_is_given_once_and_changes_no_weight(run):
    warned, notes, warnings = run(guard="warn")
    assert len(warnings) == 1
    assert warnings[0] == f"step {notes['warned_at']}: {notes['warned_because']}"
    unguarded, others, nothing = run(guard="off")
    assert (nothing, others.keys() - notes.keys()) == ([], set())
    assert notes.keys() - others.keys() == {"warned_at", "warned_because"}
    assert pl.read_parquet(warned / "training_log.parquet").height == COLLAPSING["steps"]
    weights = [(folder / "adapter_model.safetensors").read_bytes() for folder in (warned, unguarded)]
    assert weights[0] == weights[1]


def test_a_sound_run_is_left_alone(run):
    _, notes, warnings = run(learning_rate=1e-3)
    assert warnings == []
    assert not any(key.endswith(("_at", "_because")) for key in notes)
