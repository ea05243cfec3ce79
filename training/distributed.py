"""Several processes that train one adapter: each takes its share of a step's rows, and all keep the same weights.

Data parallel, started by torchrun, which names the processes in the environment. A job that asks for several starts
them itself (``launch``). The first, rank 0, alone writes and reports; of an error it is whoever meets it first that
tells, so that one line says what happened however many fail of it.
"""

import logging
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Final

import torch
from torch import distributed, nn
from torch.distributed import DistError, TCPStore, run  # type: ignore[attr-defined]  # not in its __all__
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from transformers.utils.logging import set_verbosity_error

from pipeline.adapters.config import TrainingConfig
from pipeline.adapters.job import read_job
from pipeline.errors import ConfigError, TrainingError

_SHARDED: Final = {
    # ZeRO-2 would do; nothing of it is tested here, so it is refused alike.
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed (ZeRO-3 fails with a LoRA student: trl#6828, trl#6829, trl#6237)",
    "ACCELERATE_USE_FSDP": "FSDP (the moving-average teacher needs whole weights)",
}


def world_size() -> int:
    """Return how many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Return this process's number, from 0; rank 0 writes and reports."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """Return this process's number on its machine, which is that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def missing_processes(job: Path) -> int:
    """Return how many processes a job asks for that are yet to be started; 0 for one that needs no others.

    A job that cannot be read, or asks for nonsense, needs none either: who trains it says what is wrong.
    """
    with suppress(ConfigError):
        n = read_job(job).settings.get("processes", 1)
        return n if isinstance(n, int) and n > 1 and "RANK" not in os.environ else 0
    return 0


def launch(program: Sequence[str], n_processes: int) -> int:
    """Run a Python program in so many processes of this machine and return the exit status, the highest of theirs.

    Where one fails, the others are ended.
    """
    logging.disable()  # a process that fails says why; torchrun would add a page
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // n_processes)))
    try:
        run.main(["--standalone", f"--nproc-per-node={n_processes}", *program])
    except ChildFailedError as error:
        codes = {number: failure.exitcode for number, failure in error.failures.items()}
        for number, code in codes.items():
            if (
                code < 0 and code != -signal.SIGTERM
            ):  # it could not say so itself, and torchrun ends the others by SIGTERM
                end = f"process {number} of {n_processes} was ended by {signal.Signals(-code).name}"
                sys.stderr.write(f"error: {end}: is the memory exhausted?\n")
        return max(1, *codes.values())
    except SignalException as interrupt:
        return 128 + int(interrupt.sigval)
    return 0


def join(stage: str, settings: TrainingConfig, device: str) -> None:
    """Take this process's place among those that train.

    Args:
        stage: Section that the settings are from, for messages.
        settings: Training settings.
        device: ``model.device``.

    Raises TrainingError when they are not as many as the settings say, have no GPU each, or hold a share of the weights
    each. To be called before the model is loaded.
    """
    for variable, what in _SHARDED.items():
        if os.environ.get(variable, "false").lower() in ("true", "1"):
            raise TrainingError(
                f"{variable} is set: training is data parallel and takes neither {what} "
                f"nor another way to share the weights out: use DDP, set {stage}.processes and start without accelerate"
            )
    if world_size() != settings.processes:
        raise TrainingError(
            f"started as {world_size()} processes, but {stage}.processes = {settings.processes}: "
            f"set it to {world_size()}, or let the job start its own"
        )
    if rank():  # the others would warn of the same
        warnings.simplefilter("ignore")
        set_verbosity_error()
    if world_size() > 1:
        sys.excepthook = _tell_first
        if device != "cpu" and torch.cuda.is_available():
            take_gpu(stage, settings)


def take_gpu(stage: str, settings: TrainingConfig) -> None:
    """Let "cuda" be the GPU of this process; raises TrainingError when there is none for it."""
    if local_rank() >= torch.cuda.device_count():
        raise TrainingError(
            f"{stage}.processes = {settings.processes}: process {local_rank()} of this machine has no GPU, "
            f"there are {torch.cuda.device_count()}: lower processes, or set model.device to cpu"
        )
    torch.cuda.set_device(local_rank())  # where "cuda" then is


def leave() -> None:
    """End what connects the processes; to be called when all have done their work."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def tell(text: str) -> None:
    """Write a line to stderr, unless another process has told of the same end already."""
    if _is_first():
        sys.stderr.write(f"{text}\n")


def _is_first() -> bool:
    # torchrun's own store outlives every process that it has started.
    if world_size() == 1 or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return True
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    with suppress(DistError):  # torchrun is gone
        return TCPStore(host, port, is_master=False, timeout=timedelta(seconds=10)).add("neuron_opsd/told", 1) == 1
    return True


def _tell_first(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Show an error as the interpreter does, unless it is but what another process's end has caused here."""
    if not _is_first():
        return
    if isinstance(error, DistError) or "/gloo/" in str(error):  # gloo's own are plain RuntimeErrors
        sys.stderr.write("error: the connection to another process was lost\n")
    else:
        sys.__excepthook__(kind, error, traceback)


def average_gradients(model: nn.Module) -> None:
    """Replace each gradient by its mean over the processes, in one message; does nothing in one process."""
    if not distributed.is_initialized():
        return
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    parts = (flat / distributed.get_world_size()).split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))
