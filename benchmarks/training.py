"""What a step of distillation costs beside TRL's own trainer for it, in time and in memory, and what it is spent on.

Time: processor seconds of whole optimizer steps on the same random model, rows, contexts, adapter, batch and
divergence, in turns whose order is reversed each time: ``training.objectives.opsd`` and TRL's stock ``SDFTTrainer``,
both with the untouched model as teacher; and the latter with its own choice of divergence, between the 100 likeliest
tokens. No token ends a response, so all are as long. Ratios are geometric means over the pairs, with 95 % intervals by
Student's t.

Memory: by how much the resident memory of a process rises during two steps, for a small body with a vocabulary of
150,000; a process each, ours with the vitals that a real run takes.

Parts: the product's step at its default settings, with moving-average teacher, vitals and checkpoints; shares of the
processor seconds of a step without the occasional parts, comparison with the base model and checkpoint, which stand
apart, by themselves and spread over as many steps as lie between two by default. A checkpoint waits for the disk, so
its wall seconds are given too.
``python -m benchmarks.training``.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import disable_progress_bars
from scipy import stats

import training.vitals
from benchmarks.machine import LIBRARIES, RESULTS, describe_machine, store_report
from benchmarks.sampling import SHAPES
from benchmarks.step_parts import Parts
from benchmarks.trainers import DEFAULTS, NAMES, build_trainer, describe_job
from training.checkpoints import Checkpoints
from training.divergence import apply_head, sum_divergence
from training.objectives import opsd
from training.run import save_adapter
from training.vitals import Vitals

SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
VOCABULARY = 150_000
N_STEPS, KL_EVERY, CHECKPOINT_EVERY = 8, 4, 2
"""Of the run whose parts are measured."""
COMPARISON, CHECKPOINT = "comparison with the base model", "checkpoint"


def compare_time(shape: dict[str, Any], options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return the processor seconds of steps in turns, and their ratios; the first turn warms up."""
    trainers = {name: build_trainer(name, shape, options, folder, teacher="base", steps=1) for name in NAMES}
    parts = {name: Parts(trainer) for name, trainer in trainers.items()}
    turns: list[dict[str, float]] = []
    for number in range(options.repeats + 1):
        turn = {}
        for name in NAMES if number % 2 else NAMES[::-1]:
            before = parts[name].step()
            trainers[name].train()
            turn[name] = parts[name].step() - before
        turns.append(turn)
    check_lengths(parts.values(), options)
    del turns[0]
    return {
        "n": len(turns),
        "cpu_seconds_per_step": {name: statistics.median(turn[name] for turn in turns) for name in NAMES},
        "ratios": {f"ours / {name}": ratio([turn["ours"] / turn[name] for turn in turns]) for name in NAMES[1:]},
    }


def ratio(values: Sequence[float]) -> dict[str, float]:
    """Return the geometric mean of ratios with its 95 % interval."""
    logs = np.log(values)
    reach = stats.t.ppf(0.975, len(logs) - 1) * stats.sem(logs)
    mean, low, high = np.exp([logs.mean(), logs.mean() - reach, logs.mean() + reach]).tolist()
    return {"mean": mean, "low": low, "high": high}


def check_lengths(parts: Iterable[Parts], options: argparse.Namespace) -> None:
    """Raise ValueError unless all responses ran to the limit."""
    if any(length != options.response_tokens for each in parts for length in each.lengths):
        raise ValueError("a response ended before the limit, so steps are not alike")


def measure_parts(shape: dict[str, Any], options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return what a step of the product at its default settings is spent on."""
    trainer = build_trainer("ours", shape, options, folder, steps=N_STEPS)
    vitals = Vitals(trainer, KL_EVERY)
    trainer.add_callback(vitals)
    job = describe_job(DEFAULTS, folder)
    checkpoints = Checkpoints(trainer, job, CHECKPOINT_EVERY, {}, partial(save_adapter, job=job))
    trainer.add_callback(checkpoints)
    parts = Parts(trainer)
    for owner, attribute, part in [
        (trainer, "sample_rollouts", "sampling"),
        (opsd, "sum_divergence", "logits of both and divergence"),
        (trainer.accelerator, "backward", "student, backward"),
        (trainer.ema, "update", "moving average"),
        (trainer, "compute_loss", "vitals"),
        (vitals, "_compute_loss", "rest"),
        (vitals, "on_step_end", "vitals"),
        (training.vitals, "kl_to_base", COMPARISON),
        (checkpoints, "_save", CHECKPOINT),
    ]:
        parts.around(owner, attribute, lambda part=part: part)
    parts.around(
        trainer, "_hidden_states", lambda: "student, forward" if torch.is_grad_enabled() else "teacher, forward"
    )
    trainer.train()
    check_lengths([parts], options)
    n_steps = len(parts.lengths)
    entropies = entropy_seconds(trainer, options)
    usual = {part: spent for part, spent in parts.seconds.items() if part not in ("outside", COMPARISON, CHECKPOINT)}
    cpu, wall = sum(usual.values()) / n_steps
    occasional = {}
    for part, every in ((COMPARISON, DEFAULTS.kl_every), (CHECKPOINT, DEFAULTS.checkpoint_every)):
        cpu_once, wall_once = parts.seconds[part] / parts.times[part]
        occasional[part] = {
            "n": parts.times[part],
            "share_of_a_step": cpu_once / cpu,
            "every_steps": every,
            "share_of_the_run": cpu_once / cpu / every,
            "share_of_the_run_by_wall_time": wall_once / wall / every,
        }
    return {
        "n_steps": n_steps,
        "cpu_seconds_per_step": cpu,
        "shares": {part: float(spent[0]) / n_steps / cpu for part, spent in usual.items()},
        "of which entropies, for the vitals": entropies / cpu,
        "occasional": occasional,
    }


def entropy_seconds(trainer: Any, options: argparse.Namespace) -> float:
    """Return the processor seconds that the entropies add to a step's divergence, a median."""
    base = trainer.model.get_base_model()
    states = torch.randn(2, DEFAULTS.trajectories_per_step * options.response_tokens, base.config.hidden_size)

    def spend(entropies: list[torch.Tensor] | None) -> float:
        start = time.process_time()
        sum_divergence(*states, partial(apply_head, base), 1.0, None, entropies)
        return time.process_time() - start

    spend([])  # warms up
    return statistics.median(spend([]) - spend(None) for _ in range(options.repeats))


def measure_memory(options: argparse.Namespace) -> dict[str, int]:
    """Return the bytes by which this process's resident memory rises during two steps, and what it was before."""
    options.response_tokens = options.memory_response_tokens
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(
            options.measure, SMALL | {"vocab_size": VOCABULARY}, options, Path(folder), teacher="base", steps=2
        )
        if options.measure == "ours":
            trainer.add_callback(Vitals(trainer, DEFAULTS.kl_every))
        parts = Parts(trainer)
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # forgets the peak (proc(5))
        before = resident_bytes("VmRSS")
        trainer.train()
        check_lengths([parts], options)
        return {"before": before, "rise": resident_bytes("VmHWM") - before}


def resident_bytes(name: str) -> int:
    """Return a line of this process's status."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith(name))


def compare_memory(options: argparse.Namespace) -> dict[str, Any]:
    """Return the rise of memory in processes of their own, and the ratios."""
    found: dict[str, list[int]] = {name: [] for name in NAMES}
    for _ in range(options.memory_repeats):
        for name in NAMES:
            done = subprocess.run(  # noqa: S603  # this program
                [sys.executable, "-m", "benchmarks.training", *sys.argv[1:], "--measure", name],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
            found[name].append(json.loads(done.stdout.splitlines()[-1])["rise"])
    rise = {name: statistics.median(values) for name, values in found.items()}
    return {
        "n": options.memory_repeats,
        "vocabulary": VOCABULARY,
        "response_tokens_of_a_micro_batch": DEFAULTS.micro_batch * options.memory_response_tokens,
        "median_rise_mib": {name: value / 2**20 for name, value in rise.items()},
        "least_and_most_mib": {name: [min(values) / 2**20, max(values) / 2**20] for name, values in found.items()},
        "ratios": {f"ours / {name}": rise["ours"] / rise[name] for name in NAMES[1:]},
    }


def main() -> None:
    """Measure, print and store; or measure the memory of one trainer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default, text in [
        ("layers", 10, "of SmolLM2-135M's shape, where time is measured"),
        ("prompt-tokens", 64, "of a student's prompt"),
        ("teacher-tokens", 448, "of a teacher's prompt"),
        ("response-tokens", 64, "of each response"),
        ("memory-response-tokens", 128, "of each response, where memory is measured"),
        ("repeats", 8, "timed turns"),
        ("memory-repeats", 3, "processes for each trainer"),
        ("threads", 1, "of the processor"),
    ]:
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{text} (%(default)s)")
    parser.add_argument("--measure", choices=NAMES, help="print what one trainer's memory rises by, and end")
    parser.add_argument("--output", type=Path, default=RESULTS / "training.json", help="(%(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    disable_progress_bars()
    warnings.filterwarnings("ignore", "`(is_)?gradient_checkpointing\\w*` is deprecated", FutureWarning)  # TRL's
    if options.measure:
        sys.stdout.write(f"{json.dumps(measure_memory(options))}\n")
        return
    shape = SHAPES["smollm2"] | {"num_hidden_layers": options.layers}
    del shape["model_type"]
    setting = {name: value for name, value in vars(options).items() if name not in ("output", "measure")}
    with tempfile.TemporaryDirectory() as folder:
        report = {
            "setting": setting | {"trajectories_per_step": DEFAULTS.trajectories_per_step, "shape": shape},
            "machine": describe_machine("training", (*LIBRARIES, "peft", "trl", "accelerate")),
            "time": compare_time(shape, options, Path(folder)),
            "memory": compare_memory(options),
            "parts": measure_parts(shape, options, Path(folder)),
        }
    store_report(report, options.output)


if __name__ == "__main__":
    main()
