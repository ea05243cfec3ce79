"""Checkpoints: what a training run that was cut off goes on from, to the same bytes as one that was not.

A checkpoint is a folder ``checkpoints/step-00000020`` of the output folder: the adapter, as PEFT loads it, Trainer's
own state (step, log), and every other tensor and number that changes from step to step: optimizer, schedule, callbacks
such as the moving-average teacher. A manifest of sizes and digests tells a whole one from a damaged one, which is
passed over for the one before. Nothing is pickled.

Random numbers need no state: ``StepSeeds`` seeds them anew at every optimizer step. The data's order needs none either:
it follows from seed and epoch, and Trainer passes over the batches that were seen.

Pinned by ``tests/training/test_checkpoints.py``.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

import polars as pl
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Trainer, TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import set_seed

from pipeline.adapters.config import TrainingConfig
from pipeline.adapters.job import CHECKPOINTS, TrainingJob
from pipeline.digests import digest_file
from pipeline.errors import TrainingError
from pipeline.model_fingerprint import model_fingerprint
from pipeline.seeding import derive_seed
from pipeline.store.lock import held

_LAYOUT: Final = 1
"""Version of what a checkpoint holds."""
_N_KEPT: Final = 2
"""The newest, and the one before it should that be damaged."""
_SECONDS_TO_END: Final = 30.0
"""That a process is given which was left behind: it ends with its input, after what it is computing at most."""
_LIBRARIES: Final = ("accelerate", "peft", "torch", "transformers", "trl")
_MANIFEST, _TENSORS, _NUMBERS = "manifest.json", "state.safetensors", "state.json"


@runtime_checkable
class Stateful(Protocol):
    """A callback of a trainer with a state that changes from step to step."""

    def tensors(self) -> Mapping[str, Tensor]:
        """Return its tensors by name."""

    def values(self) -> Mapping[str, Any]:
        """Return what else it holds, as JSON has it."""

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Take both back."""


class StepSeeds(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """Seeds the global generators at every optimizer step by run, step and process, however the run got there."""

    def on_step_begin(self, args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Seed the step."""
        seed = derive_seed(args.seed, "optimizer step", state.global_step, args.process_index)
        set_seed(seed % 2**32)  # NumPy takes no more


class Checkpoints(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """Saves a trainer's state every so many steps, and puts it back; to be added after all other callbacks."""

    def __init__(
        self, trainer: Trainer, job: TrainingJob, every: int, made_from: Mapping[str, object], save: Callable[..., None]
    ) -> None:
        """Keep checkpoints of a trainer.

        Args:
            trainer: What is trained.
            job: Its job; checkpoints stand in its output folder.
            every: Steps from one checkpoint to the next; 0 saves none.
            made_from: What determines the run, see ``describe_run``.
            save: Saves the adapter of a model into a folder, in PEFT's files.
        """
        self._trainer, self._stage, self._every, self._save_adapter = trainer, job.stage, every, save
        self._folder = job.output / CHECKPOINTS
        self._made_from = json.loads(json.dumps(made_from))
        self._kept: list[Path] = []

    @property
    def last(self) -> Path | None:
        """The newest checkpoint that is whole, as far as ``find`` has looked or this run has come."""
        return self._kept[-1] if self._kept else None

    def find(self, say: Callable[[str], None]) -> Path | None:
        """Return the newest checkpoint that is whole; raises TrainingError when it is of another run.

        ``say`` gets a line on what is passed over or gone on from.
        """
        for path in sorted(self._folder.glob("step-*"), reverse=True):
            made_from = _read_manifest(path)
            if made_from is None:
                say(f"{path} is damaged and passed over")
                continue
            self._refuse_another(made_from)
            self._kept.append(path)
            say(f"going on after step {int(path.name.removeprefix('step-'))}, from {path}")
            return path
        return None

    @contextmanager
    def named_in_errors(self) -> Iterator[None]:
        """Have a TrainingError of the block say which checkpoint is kept."""
        try:
            yield
        except TrainingError as error:
            if self.last is None:
                raise
            raise TrainingError(f"{error}; {self.last} is kept") from error

    def discard(self) -> None:
        """Remove all checkpoints."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Put back what Trainer has not put back: all but adapter and its own state."""
        if not state.global_step:
            return
        assert self.last, "Trainer went on from a checkpoint that find did not return"
        # Copies: the loaded ones need not begin at an address that suits vector instructions.
        tensors = {name: tensor.clone() for name, tensor in load_file(self.last / _TENSORS).items()}
        numbers = json.loads((self.last / _NUMBERS).read_text(encoding="utf-8"))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _under("optimizer", tensors).items():
            parameter, moment = name.split(".")
            moments.setdefault(int(parameter), {})[moment] = tensor
        self._trainer.optimizer.load_state_dict({"state": moments, "param_groups": numbers["param_groups"]})
        self._trainer.lr_scheduler.load_state_dict(numbers["scheduler"])
        for name, callback in self._stateful():
            callback.restore(_under(name, tensors), numbers["callbacks"][name])
        # TRL 1.16's RepeatSampler draws the next epoch's order whenever it is iterated; Trainer 5.23 passes over the
        # batches that were seen of the epoch that it is in, not over the epochs before.
        batches = self._trainer.callback_handler.train_dataloader.batch_sampler
        sampler = getattr(batches, "batch_sampler", batches).sampler
        for _epoch in range(int(state.epoch)):
            next(iter(sampler))

    def on_log(self, _args: Any, state: Any, control: Any, logs: Mapping[str, float], **_: Any) -> None:
        """Save a checkpoint where one is due: the step's line stands in the log by now, and all checks have passed."""
        due = self._every and state.global_step % self._every == 0 and not control.should_training_stop
        if due and "loss" in logs and state.is_world_process_zero:
            self._save(state)

    def _save(self, state: Any) -> None:
        tensors = self._tensors()
        final = self._folder / f"step-{state.global_step:08}"
        part = self._folder / f".{final.name}.part"
        with writing(self._folder):
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            try:
                self._write(part, state, tensors)
                shutil.rmtree(final, ignore_errors=True)  # a damaged one of the same step
                part.rename(final)
                sync(self._folder)
            finally:
                shutil.rmtree(part, ignore_errors=True)  # half of one, which a full disk has no room for
        self._kept = [*self._kept, final][-_N_KEPT:]
        for path in set(self._folder.iterdir()) - set(self._kept):
            shutil.rmtree(path, ignore_errors=True)

    def _write(self, part: Path, state: Any, tensors: dict[str, Tensor]) -> None:
        numbers = {
            "param_groups": self._trainer.optimizer.state_dict()["param_groups"],
            "scheduler": self._trainer.lr_scheduler.state_dict(),
            "callbacks": {name: dict(callback.values()) for name, callback in self._stateful()},
        }
        self._save_adapter(self._trainer.model, part)
        save_file(tensors, part / _TENSORS)
        (part / _NUMBERS).write_text(json.dumps(numbers), encoding="utf-8")
        state.save_to_json(str(part / TRAINER_STATE_NAME))
        files = {path.name: [path.stat().st_size, digest_file(path)] for path in part.iterdir()}
        manifest = json.dumps({"made_from": self._made_from, "files": files})
        (part / _MANIFEST).write_text(manifest, encoding="utf-8")
        sync(part)

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {
            f"optimizer.{parameter}.{name}": tensor
            for parameter, moments in self._trainer.optimizer.state_dict()["state"].items()
            for name, tensor in moments.items()
        }
        for prefix, callback in self._stateful():
            tensors |= {f"{prefix}.{name}": tensor for name, tensor in callback.tensors().items()}
        weights = [weight for weight in self._trainer.model.parameters() if weight.requires_grad]
        if not all(tensor.isfinite().all() for tensor in [*weights, *tensors.values()]):
            raise TrainingError(
                f"step {self._trainer.state.global_step}: weights of the adapter are no numbers any more: "
                f"lower {self._stage}.learning_rate"
            )
        return {name: tensor.contiguous() for name, tensor in tensors.items()}

    def _stateful(self) -> list[tuple[str, Stateful]]:
        callbacks = self._trainer.callback_handler.callbacks
        return [(type(callback).__name__, callback) for callback in callbacks if isinstance(callback, Stateful)]

    def _refuse_another(self, made_from: Mapping[str, object]) -> None:
        for name in self._made_from | dict(made_from):
            before, now = (described.get(name, "unset") for described in (made_from, self._made_from))
            if before != now:
                raise TrainingError(
                    f"{self._folder} holds checkpoints of another run, with {name} = {before}, not {now}: "
                    "set it back to go on, or delete the folder to start anew"
                )


def describe_run(job: TrainingJob, settings: TrainingConfig, questions: pl.DataFrame) -> dict[str, object]:
    """Return what determines a run's result, by names for people; equal for all runs that may share checkpoints.

    How the work is spread over processes and devices is not in it.
    """
    return {
        **{f"{job.stage}.{name}": value for name, value in settings.material().items()},
        "model.path": job.model.path,
        "the model's fingerprint": model_fingerprint(job.model),
        "the training questions' digest": sha256(questions.write_ndjson().encode()).hexdigest(),
        "the job's fingerprint": job.fingerprint,
        **{f"{library}'s version": version(library) for library in _LIBRARIES},
        "the checkpoints' layout": _LAYOUT,
    }


@contextmanager
def alone(output: Path) -> Iterator[None]:
    """Hold an output folder for the block, so that no process that was left behind writes into it too.

    One that is ending is waited for. Raises TrainingError where another process keeps it. Of several processes of one
    run, the first is the one that writes.
    """
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + _SECONDS_TO_END
    while True:
        with held(output) as free:
            if free:
                yield
                return
        if time.monotonic() > deadline:
            raise TrainingError(f"another process is training into {output}: wait for it, or end it")
        time.sleep(0.2)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Raise TrainingError naming the folder when the block cannot write its files."""
    try:
        yield
    except (OSError, SafetensorError) as error:  # safetensors has an error of its own for a full disk
        reason = getattr(error, "strerror", None) or str(error)
        raise TrainingError(f"{folder} cannot be written ({reason}): make room there") from error


def sync(folder: Path) -> None:
    """Have a folder's files, and their names, outlive a power cut."""
    for path in [*(path for path in folder.iterdir() if path.is_file()), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _read_manifest(path: Path) -> dict[str, object] | None:
    """Return what a checkpoint was made from, or none unless all its files are as they were written."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
        files, made_from = manifest["files"], manifest["made_from"]
        if all([(path / name).stat().st_size, digest_file(path / name)] == files[name] for name in files):
            return dict(made_from)
    return None


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
