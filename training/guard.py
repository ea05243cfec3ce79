"""Ends a run that collapses, and keeps the adapter of its last sound steps.

A vital (``training.vitals``) is judged by its mean over a window of steps, so that one noisy step ends nothing, against
its mean over the first window, when the student is about the base model. How far it has come from there to its limit
is its *strain*: 0 at the start, 1 at the limit. The run is sound while no strain is above one half.

The adapter is copied at the end of every window of a sound run. Of a run that is ended the newest copy is kept that is
a window older than the first step that was not sound, since a mean tells late of what began in its window.
Pinned by ``tests/training/test_guard.py``.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from torch import Tensor
from transformers import TrainerCallback

from pipeline.adapters.config import TrainingConfig
from pipeline.strain import Strain, by_factor, by_floor, by_itself, by_rise
from training.reporting import Reporter
from training.vitals import LOGGED

_SOUND: Final = 0.5
"""Highest strain of a sound run: half way to the limit; own choice."""


class Limit(NamedTuple):
    """How a vital is judged."""

    words: str
    """What it is called in a message."""
    setting: str
    """Setting that the limit follows from."""
    strain: Strain
    """Share of the way to the limit, of the first and the last window's mean and the setting."""


class Finding(NamedTuple):
    """What a vital says at a step."""

    vital: str
    """Column of TRAINING_LOG."""
    first: float
    """Mean over the first window."""
    last: float
    """Mean over the last window."""
    strain: float
    """Share of the way to the limit that it has come."""


LIMITS: Final[Mapping[str, Limit]] = {
    "response_tokens": Limit("the responses' length (tokens)", "guard_length_factor", by_factor),
    "clipped_share": Limit("the share of responses that the length limit cuts", "guard_clipped_rise", by_rise),
    "entropy": Limit("the entropy of the next token (nats)", "guard_entropy_factor", by_factor),
    "distinct_responses": Limit("the share of different responses", "guard_distinct_floor", by_floor),
    "distinct_answers": Limit("the share of different answers", "guard_distinct_floor", by_floor),
    "agreement": Limit("the agreement with the leading answers", "guard_agreement_floor", by_floor),
    "kl_to_base": Limit("the divergence from the base model (nats per token)", "guard_max_kl", by_itself),
}
"""What is judged, by its column in TRAINING_LOG."""
_OF_SAMPLES: Final = frozenset({"response_tokens", "entropy"})
"""What is judged of the student's own samples only: to be sure of given targets is what fine-tuning is for."""


def steps_to_average(settings: TrainingConfig) -> int:
    """Return how many steps a window has."""
    return math.ceil(settings.guard_responses / settings.trajectories_per_step)


def judge(history: Sequence[Mapping[str, Any]], settings: TrainingConfig) -> list[Finding]:
    """Return what each vital says after the last step, the gravest first; nothing before the first window ends.

    Args:
        history: Log history of the trainer, with keys of ``training.vitals.LOGGED``.
        settings: Window and limits.
    """
    steps, window = [entry for entry in history if "loss" in entry], steps_to_average(settings)
    if len(steps) < window:
        return []
    sampled = LOGGED["distinct_responses"] in steps[0]
    findings = []
    for vital, limit in LIMITS.items():
        first, last = (_mean(part, LOGGED[vital]) for part in (steps[:window], steps[-window:]))
        if first is None or last is None or (vital in _OF_SAMPLES and not sampled):
            continue
        strain = float(limit.strain(first, last, getattr(settings, limit.setting)))
        findings.append(Finding(vital, first, last, strain))
    return sorted(findings, key=lambda finding: -finding.strain)


def first_to_move(history: Sequence[Mapping[str, Any]], settings: TrainingConfig) -> tuple[str, int]:
    """Return which vital was no longer sound first, and the step; of a history in which one is not."""
    steps = [entry for entry in history if "loss" in entry]
    findings = ((found, entry["step"]) for n, entry in enumerate(steps) for found in judge(steps[: n + 1], settings))
    return next((found.vital, step) for found, step in findings if found.strain > _SOUND)


class Guard(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """Judges every step; see the module's docstring."""

    def __init__(self, model: Any, reporter: Reporter, settings: TrainingConfig, stage: str) -> None:
        """Guard the trained weights of ``model``; messages name settings of ``stage``."""
        self._model, self._reporter, self._settings, self._stage = model, reporter, settings, stage
        self._older, self._newer = (0, self._copy()), (0, self._copy())  # a checkpoint must not hold one twice
        self._unsound_since: int | None = None
        self.notes: dict[str, Any] = {}
        """For the artifact's notes: when and why the run was ended, or would have been; empty for a sound run."""

    def on_log(self, _args: Any, state: Any, control: Any, logs: Mapping[str, Any], **_: Any) -> None:
        """Judge the step that ended; end the run, or warn once, where a limit is crossed."""
        if "loss" not in logs or self.notes or not (found := judge(state.log_history, self._settings)):
            return
        step, gravest, window = state.global_step, found[0], steps_to_average(self._settings)
        if gravest.strain <= _SOUND:
            self._unsound_since = None
            if step % window == 0:
                self._older, self._newer = self._newer, (step, self._copy())
            return
        self._unsound_since = self._unsound_since or step
        if gravest.strain < 1:
            return
        because = self._describe(gravest, state.log_history)
        if self._settings.guard == "warn":
            self.notes = {"warned_at": step, "warned_because": because}
            self._reporter.warning(f"step {step}: {because}")
            return
        control.should_training_stop = True
        if self._newer[0] > self._unsound_since - window:
            self._newer = self._older
        kept_step = self._newer[0]
        self.notes = {"stopped_at": step, "stopped_because": because, "kept_step": kept_step}
        self._reporter.warning(f"stopped at step {step}: {because}. The adapter of step {kept_step} is kept")

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Put the kept weights back after a run that was ended."""
        if "kept_step" in self.notes:
            for name, weight in self._trained():
                weight.data.copy_(self._newer[1][name])

    def tensors(self) -> dict[str, Tensor]:
        """Return the copies of the adapter, for a checkpoint."""
        copies = {"older": self._older[1], "newer": self._newer[1]}
        return {f"{copy}.{name}": weight for copy, weights in copies.items() for name, weight in weights.items()}

    def values(self) -> dict[str, Any]:
        """Return what else a checkpoint needs: steps of the copies, and what was found."""
        steps = {"older": self._older[0], "newer": self._newer[0]}
        return {**steps, "unsound_since": self._unsound_since, "notes": self.notes}

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Go on from what ``tensors`` and ``values`` returned."""
        self._older, self._newer = (
            (values[copy], {name: tensors[f"{copy}.{name}"] for name, _ in self._trained()})
            for copy in ("older", "newer")
        )
        self._unsound_since, self.notes = values["unsound_since"], dict(values["notes"])

    def _describe(self, gravest: Finding, history: Sequence[Mapping[str, Any]]) -> str:
        limit, stage, window = LIMITS[gravest.vital], self._stage, steps_to_average(self._settings)
        value = getattr(self._settings, limit.setting)
        moved, since = first_to_move(history, self._settings)
        return (
            f"{limit.words} went from {gravest.first:.3g} to {gravest.last:.3g}, means of {window} steps, past "
            f"{stage}.{limit.setting} = {value}; the first to move was {LIMITS[moved].words}, at step {since}: "
            f"lower {stage}.learning_rate, or set {stage}.guard=off where this is meant"
        )

    def _trained(self) -> list[tuple[str, Tensor]]:
        return [(name, weight) for name, weight in self._model.named_parameters() if weight.requires_grad]

    def _copy(self) -> dict[str, Tensor]:
        return {name: weight.detach().to("cpu", copy=True) for name, weight in self._trained()}


def _mean(entries: Sequence[Mapping[str, Any]], key: str) -> float | None:
    values = [entry[key] for entry in entries if entry.get(key) is not None]
    return sum(values) / len(values) if values else None
