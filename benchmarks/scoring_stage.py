"""What the stage ``neuron_scores`` costs beyond its scoring loop, and what memory it takes for pools of two sizes.

The embedded model is the hard case: its scoring is so cheap that files, digests and loading weigh most. Rollouts are
random tokens of the lengths given. Every measurement is a process of its own; seconds are processor seconds of all
threads, and memory is the peak of the resident set. ``python -m benchmarks.scoring_stage``.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from benchmarks.machine import RESULTS, describe_machine, store_report
from pipeline.answers.schemas import ANSWERS
from pipeline.chain import materialize
from pipeline.config import Config
from pipeline.model_fingerprint import model_fingerprint
from pipeline.models import load_model
from pipeline.neurons.batch import score_shared
from pipeline.neurons.rollout import Rollout
from pipeline.neurons.schemas import NEURON_SCORES
from pipeline.neurons.score import NeuronScorer
from pipeline.paths import PROJECT_ROOT
from pipeline.presets import load_config
from pipeline.rollouts.schemas import ROLLOUTS
from pipeline.stages import open_store, stage_of
from pipeline.store.store import Run

BATCH_ROWS = 1_000
TOLD = ("id", "sample", "prompt_ids", "response_ids")
N_STORED = 256


def write_rollouts(run: Run, config: Config, options: argparse.Namespace, n_rows: int) -> None:
    """Make ``n_rows`` rollouts of random tokens the run's, without answers, a bounded number at a time."""
    provenance = {"inputs": {}, "model": model_fingerprint(config.model)}
    with (
        run.store.write("rollouts", "random", {}, provenance) as rollouts,
        run.store.write("answers", "random", {}, provenance) as answers,
    ):
        for number, rows in enumerate(_random_rollouts(options, n_rows)):
            rollouts.write_shard(number, {"rollouts": rows})
            answers.write_shard(number, {"answers": _none_stated(rows)})
    for name in ("rollouts", "answers"):
        run.show(name, "random")


def _random_rollouts(options: argparse.Namespace, n_rows: int) -> Iterator[pl.DataFrame]:
    rng, schema = np.random.default_rng(0), pl.DataFrame(ROLLOUTS.empty_table()).schema
    for start in range(0, n_rows, BATCH_ROWS):
        rows = []
        for number in range(start, min(start + BATCH_ROWS, n_rows)):
            n_prompt, n_response = (
                int(rng.integers(n // 2, n + 1)) for n in (options.prompt_tokens, options.response_tokens)
            )
            rows.append(
                {
                    "id": f"{number:016x}",
                    "sample": 0,
                    "prompt": "",
                    "prompt_ids": rng.integers(10, 700, n_prompt).tolist(),
                    "permutation": [],
                    "response_ids": rng.integers(10, 700, n_response).tolist(),
                    "response": "",
                    "logprobs": [0.0] * n_response,
                    "finish_reason": "stop",
                    "watched_ids": [],
                    "watched_logprobs": [],
                }
            )
        yield pl.DataFrame(rows, schema=schema)


def _none_stated(rollouts: pl.DataFrame) -> pl.DataFrame:
    rows = [
        {"id": key, "sample": sample, "extraction": "none"} for key, sample in rollouts.select("id", "sample").rows()
    ]
    return pl.DataFrame(rows, schema=pl.DataFrame(ANSWERS.empty_table()).schema)


def run_stage(config: Config, run: Run) -> None:
    """Run the stage as the chain does: weights and rollouts read, shards written and digested."""
    materialize(stage_of("neuron_scores"), config.neuron_scores, config.model, run)


def run_loop(config: Config, run: Run) -> float:
    """Score the same rollouts and keep nothing; return the processor seconds of the loop alone."""
    scorer = NeuronScorer(load_model(config.model), config.neuron_scores)
    shards = [
        sorted(
            (Rollout(row, *values) for row, values in enumerate(shard.select(TOLD).collect().iter_rows())),
            key=lambda rollout: (len(rollout.prompt_ids), rollout.id),
        )
        for shard in run.require("rollouts").scan_shards()
    ]
    start = time.process_time()
    for shard in shards:
        for _ in scorer.budget.run(
            shard, lambda rollout: rollout.n_tokens, lambda batch: score_shared(batch, scorer.stack, scorer.config)
        ):
            pass
    return time.process_time() - start


def measure_here(work: str, config: Config, run: Run) -> dict[str, float]:
    """Do one piece of work in this process and return what it cost."""
    start, wall = time.process_time(), time.perf_counter()
    spent = run_loop(config, run) if work == "loop" else run_stage(config, run)
    seconds = time.process_time() - start if spent is None else spent
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return {"cpu_seconds": seconds, "wall_seconds": time.perf_counter() - wall, "peak_rss_mib": peak / 1024}


def stored_kilobytes(root: Path, dtype: str) -> float:
    """Return what a rollout takes on disk (1,000 bytes) with K = 5,000 neurons of Qwen3-4B's 36 * 9,728.

    Neurons are drawn uniformly, and scores exceed their threshold by an exponential variable in logarithm.
    """
    rng, rows = np.random.default_rng(0), []
    for number in range(N_STORED):
        neurons = np.sort(rng.choice(36 * 9_728, 5_000, replace=False))
        scores = (0.01 * np.exp(rng.exponential(0.6, len(neurons)))).astype(dtype).astype(np.float32)
        rows.append((f"{number:016x}", 0, neurons.tolist(), scores.tolist()))
    store = open_store(root)
    with store.write("neuron_scores", "random", {}, {}) as writer:
        schema = pl.DataFrame(NEURON_SCORES.empty_table()).schema
        writer.write_shard(0, {"neuron_scores": pl.DataFrame(rows, schema=schema, orient="row")})
    stored = store.run("random").show("neuron_scores", "random")
    return sum(path.stat().st_size for path in stored.files()) / N_STORED / 1_000


def measure(options: argparse.Namespace, config: Config) -> dict[str, Any]:
    """Return costs and ratios."""
    small, large = options.rows
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, n_rows in (("small", small), ("large", large)):
            write_rollouts(open_store(Path(folder) / name).run("random"), config, options, n_rows)
        for work, name in (("stage", "small"), ("stage", "large"), ("loop", "large")):
            command = [sys.executable, "-m", "benchmarks.scoring_stage", "--work", work, "--store", f"{folder}/{name}"]
            command += ["--threads", str(options.threads)]
            done = subprocess.run(command, cwd=PROJECT_ROOT, check=True, stdout=subprocess.PIPE)  # noqa: S603
            figures[f"{work}, {small if name == 'small' else large} rows"] = json.loads(done.stdout)
        kilobytes = {dtype: stored_kilobytes(Path(folder) / dtype, dtype) for dtype in ("float16", "float32")}
    stage, loop = figures[f"stage, {large} rows"], figures[f"loop, {large} rows"]
    return {
        "figures": figures,
        "ratios": {
            "stage / scoring loop, processor seconds": stage["cpu_seconds"] / loop["cpu_seconds"],
            f"peak memory of {large} rows / {small} rows": stage["peak_rss_mib"]
            / figures[f"stage, {small} rows"]["peak_rss_mib"],
        },
        "kilobytes per rollout of 5,000 neurons out of 350,208": kilobytes,
    }


def main() -> None:
    """Measure, print and store; with ``--work``, do one piece of work and print what it cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs=2, default=[500, 20_000], metavar=("SMALL", "LARGE"), help="rollouts")
    parser.add_argument("--prompt-tokens", type=int, default=64, help="longest prompt (%(default)s)")
    parser.add_argument("--response-tokens", type=int, default=64, help="longest response (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of the processor (%(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS / "scoring_stage.json", help="(%(default)s)")
    parser.add_argument("--work", choices=("stage", "loop"), help=argparse.SUPPRESS)
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = load_config()
    if options.work:
        sys.stdout.write(json.dumps(measure_here(options.work, config, open_store(options.store).run("random"))))
        return
    setting = {name: getattr(options, name) for name in ("rows", "prompt_tokens", "response_tokens", "threads")}
    report = {"setting": setting, "machine": describe_machine("scoring_stage"), **measure(options, config)}
    store_report(report, options.output)


if __name__ == "__main__":
    main()
