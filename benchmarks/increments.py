"""What a pool with 5 % new questions costs in sampling and scoring, by what the whole pool costs.

The whole pool is made in a fresh store; in a second one first the pool without the new questions, then the whole. Both
costs are processor seconds of the same work in one process on one thread, whose imports and compilations are paid for
before. The embedded model is the hard case: it scores a question in the time in which twenty are copied. Copies of the
pool, told apart by a number at the end of the question, make a larger one, in which what a stage costs whatever it
computes weighs less.
``python -m benchmarks.increments``.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import RESULTS, describe_machine, store_report
from pipeline.chain import materialize, run_chain
from pipeline.config import Config
from pipeline.paths import PROJECT_ROOT
from pipeline.presets import load_config
from pipeline.stages import open_store, stage_of
from pipeline.store.store import Run

POOL = PROJECT_ROOT / "data" / "reference" / "pool.jsonl"
STAGES = ("rollouts", "answers", "neuron_scores")
MEASURED = ("rollouts", "neuron_scores")
N_WARM = 32
"""Questions of the run that warms up."""


def copied(lines: list[str], n_copies: int) -> list[str]:
    """Return JSON lines of a pool of ``n_copies`` times as many questions."""
    rows = [json.loads(line) for line in lines]
    further = [row | {"question": f"{row['question']} ({n})"} for n in range(2, n_copies + 1) for row in rows]
    return [json.dumps(row) for row in (*rows, *further)]


def cost(path: Path, lines: list[str], run: Run) -> dict[str, float]:
    """Make the stages for a pool of these lines; return processor seconds, and the number of questions."""
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    config = load_config(overrides=(f"raw_pool.path={path}", "pool.drop_near_duplicates=false"))
    run_chain(config, run, last="pool")
    seconds = {name: _seconds(name, config, run) for name in STAGES}
    return {name: seconds[name] for name in MEASURED} | {"questions": run.require("pool").manifest.rows["pool"]}


def _seconds(name: str, config: Config, run: Run) -> float:
    spec, start = stage_of(name), time.process_time()
    materialize(spec, getattr(config, spec.key), config.model, run)
    return time.process_time() - start


def measure(lines: list[str], share: float, seed: int) -> dict[str, Any]:
    """Return costs of the whole pool, of the pool before the new questions came, and of these."""
    new = set(random.Random(seed).sample(range(len(lines)), round(share * len(lines))))
    old = [line for number, line in enumerate(lines) if number not in new]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pool.jsonl"
        whole = cost(path, lines, open_store(Path(folder) / "whole").run("whole"))
        growing = open_store(Path(folder) / "growing").run("growing")
        before = cost(path, old, growing)
        after = cost(path, lines, growing)
    return {
        "seconds": {"whole": whole, "before": before, "new": after},
        "new questions / all": 1 - before["questions"] / after["questions"],
        "ratios": {name: after[name] / whole[name] for name in MEASURED}
        | {"together": sum(after[name] for name in MEASURED) / sum(whole[name] for name in MEASURED)},
    }


def measure_apart(n_copies: int, share: float, seed: int) -> dict[str, Any]:
    """Return ``measure`` of so many copies of the reference pool, in a process of its own with one thread."""
    command = [sys.executable, "-m", "benchmarks.increments", "--work"]
    command += ["--copies", str(n_copies), "--share", str(share), "--seed", str(seed)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    done = subprocess.run(command, cwd=PROJECT_ROOT, check=True, stdout=subprocess.PIPE, env=environment)  # noqa: S603
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def main() -> None:
    """Measure, print and store; with ``--work``, measure one size in this process and print what it cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--copies", type=int, nargs="+", default=[1, 4], help="sizes, in reference pools (%(default)s)")
    parser.add_argument("--share", type=float, default=0.05, help="of new questions (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of new questions (%(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS / "increments.json", help="(%(default)s)")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        lines = POOL.read_text(encoding="utf-8").splitlines()
        measure(lines[:N_WARM], 0.25, options.seed)
        sys.stdout.write(json.dumps(measure(copied(lines, *options.copies), options.share, options.seed)))
        return
    report = {
        "setting": {"share": options.share, "seed": options.seed},
        "machine": describe_machine("increments"),
        "pools": {n: measure_apart(n, options.share, options.seed) for n in options.copies},
    }
    store_report(report, options.output)


if __name__ == "__main__":
    main()
