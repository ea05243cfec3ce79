"""What it costs to ingest a pool: reading, cleaning, hashing, exact deduplication and writing of the three tables.

A file of synthetic four-option questions is made, one row in a hundred a duplicate in other letter case and order of
options. The stage runs on it in a process of its own, beside a plain Polars scan of the same file, which only parses
it: the limit of what reading can cost. ``python -m benchmarks.ingestion``.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.machine import RESULTS, describe_machine, store_report

DUPLICATE_EVERY = 100


def write_questions(path: Path, n_rows: int) -> None:
    """Write JSON Lines of about 400 bytes each."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(3_000)]
    row: dict[str, Any] = {}
    with path.open("w", encoding="utf-8") as file:
        for number in range(n_rows):
            if number % DUPLICATE_EVERY == DUPLICATE_EVERY - 1:
                row = row | {"question": row["question"].upper(), "options": row["options"][::-1]}
            else:
                stem = " ".join(rng.choices(words, k=rng.randint(15, 45)))
                options = [f"{' '.join(rng.choices(words, k=5))} {letter}" for letter in "abcd"]
                row = {"question": f"{number} {stem}?", "options": options, "answer": "B", "domain": rng.choice("xyz")}
            file.write(json.dumps(row) + "\n")


def run_stage(path: Path) -> dict[str, int]:
    """Run the stage ``raw_pool`` into a temporary store and return its counts."""
    from pipeline.chain import materialize
    from pipeline.model_config import ModelConfig
    from pipeline.pool.config import RawPoolConfig
    from pipeline.stages import open_store, stage_of

    with tempfile.TemporaryDirectory() as folder:
        run = open_store(Path(folder)).run("ingestion")
        made = materialize(stage_of("raw_pool"), RawPoolConfig(path=str(path)), ModelConfig(), run)
        notes = made.artifact.manifest.notes
    return {name: notes[name] for name in ("read", "kept", "refused")}


def run_scan(path: Path) -> dict[str, int]:
    """Parse question and options of every row with Polars and return what keeps it from skipping any."""
    parsed = pl.scan_ndjson(path).select(
        read=pl.len(),
        question_bytes=pl.col("question").str.len_bytes().sum(),
        options=pl.col("options").list.len().sum(),
    )
    return parsed.collect(engine="streaming").row(0, named=True)


RUNS: dict[str, Callable[[Path], dict[str, int]]] = {"stage": run_stage, "polars_scan": run_scan}


def measure(name: str, path: Path) -> dict[str, Any]:
    """Run one of ``RUNS`` in this process; importing libraries counts for the memory only."""
    import pipeline.chain
    import pipeline.pool.run  # noqa: F401  the stage's time is not that of imports

    darwin = sys.platform == "darwin"
    start, cpu_start = time.perf_counter(), time.process_time()
    counts = RUNS[name](path)
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu_start,
        "process_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if darwin else 1024),
        "counts": counts,
    }


def measure_apart(name: str, path: Path, cores: int) -> dict[str, Any]:
    """Run one of ``RUNS`` in a process of its own that may use so many cores."""
    command = [sys.executable, "-m", "benchmarks.ingestion", "--run", name, "--path", str(path), "--cores", str(cores)]
    environment = os.environ | {"POLARS_MAX_THREADS": str(cores), "OMP_NUM_THREADS": str(cores)}
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment).stdout)  # noqa: S603


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ingestion", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the file (%(default)s)")
    parser.add_argument("--cores", type=int, default=2, help="cores that each run may use (%(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS / "ingestion.json", help="results file (%(default)s)")
    parser.add_argument("--run", choices=list(RUNS), help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        if hasattr(os, "sched_setaffinity"):  # Linux
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
        sys.stdout.write(json.dumps(measure(options.run, options.path)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pool.jsonl"
        write_questions(path, options.rows)
        runs = {name: measure_apart(name, path, options.cores) for name in RUNS}
        size = path.stat().st_size
    report = {
        "setting": {"rows": options.rows, "file_bytes": size, "cores": options.cores},
        "machine": describe_machine("ingestion"),
        "runs": runs,
        "rows_per_second": options.rows / runs["stage"]["seconds"],
        "stage / polars_scan": runs["stage"]["seconds"] / runs["polars_scan"]["seconds"],
    }
    store_report(report, options.output)


if __name__ == "__main__":
    main()
