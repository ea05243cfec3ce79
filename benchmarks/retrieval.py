"""What top-k retrieval by overlap costs as the pool grows, exact and by sketches, and what the sketches lose.

Every set is compared with all: n targets, n candidates, k = 12, which is what the context builder asks for to keep 3.
Sets are drawn, not real. Of 350,000 neurons each takes 30 to 70 % of its domain's core (20 domains, 2,500 neurons
each) and of its topic's (a topic for 25 sets, 2,500 neurons each), 1,750 draws of popular neurons (some are in every
set, most in few) and 1,250 of any, all times a factor from 0.6 to 1.4: about 5,300 neurons a set. Each n and path runs
in a process of its own that reads the sets from Parquet; times are without compilation.
``python -m benchmarks.retrieval``.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from benchmarks.machine import RESULTS, describe_machine, store_report
from pipeline.retrieval.exact import build_index
from pipeline.retrieval.nearest import nearest_by_overlap
from pipeline.retrieval.sets import NeuronSets

WIDTH, CORE, DOMAINS, PER_TOPIC = 350_000, 2_500, 20, 25
PATHS = ("exact", "sketch")


def draw(n: int, path: Path) -> None:
    """Store ``n`` neuron sets in a Parquet file with columns id and neurons; their order is not that of the ids."""
    rng = np.random.default_rng(0)
    popular = rng.permutation(WIDTH)
    domains, topics = ([rng.choice(WIDTH, CORE, replace=False) for _ in range(m)] for m in (DOMAINS, n // PER_TOPIC))
    domain_of = rng.integers(DOMAINS, size=len(topics))
    neurons, offsets = np.empty(n * 8_000, dtype=np.int32), np.zeros(n + 1, dtype=np.int64)
    for row, topic in enumerate(rng.integers(len(topics), size=n)):
        size = rng.uniform(0.6, 1.4)
        own, domain = topics[topic], domains[domain_of[topic]]
        parts = [core[rng.random(CORE) < size * rng.uniform(0.3, 0.7)] for core in (own, domain)]
        parts.append(popular[(WIDTH * rng.random(int(1_750 * size)) ** 4).astype(np.int64)])
        drawn = np.unique(np.concatenate([*parts, rng.integers(WIDTH, size=int(1_250 * size))]))
        offsets[row + 1] = offsets[row] + len(drawn)
        neurons[offsets[row] : offsets[row + 1]] = drawn
    column = pl.Series(pa.LargeListArray.from_arrays(offsets, neurons[: offsets[-1]]))
    ids = pl.Series([f"{number:06}" for number in rng.permutation(n)])
    pl.DataFrame({"id": ids, "neurons": column}).write_parquet(path)


def measure(path: Path, exact_up_to: int, k: int) -> dict[str, Any]:
    """Return cost and mean similarities of the retrieval of all sets in a file from one another."""
    started = time.perf_counter()
    table = pl.scan_parquet(path)
    sets = NeuronSets.of(table, table.select("id").collect()["id"])
    loaded = time.perf_counter()
    few = sets.rows(0, 20)
    nearest_by_overlap(few, few, k, min(exact_up_to, len(few)))  # compiles
    wall, cpu = time.perf_counter(), time.process_time()
    indices, similarities = nearest_by_overlap(sets, sets, k, exact_up_to)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    others = np.argsort(indices == np.arange(len(sets))[:, None], axis=1, kind="stable")[:, : k - 1]
    values = np.take_along_axis(similarities, others, axis=1)
    return {
        "wall_seconds": wall,
        "cpu_seconds": cpu,
        "load_seconds": loaded - started,
        "peak_rss_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "mean_similarity": {"3 nearest others": values[:, :3].mean(), f"{k - 1} nearest others": values.mean()},
        "neurons_per_set": len(sets.neurons) / len(sets),
        "frequent_neurons": build_index(sets.rows(0, 2**16), 0).bits.shape[1] * 64,
    }


def in_own_process(*arguments: object) -> str:
    """Run this module with ``arguments`` and return what it prints."""
    command = [sys.executable, "-m", "benchmarks.retrieval", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603


def compare(sizes: list[int], k: int) -> dict[str, Any]:
    """Return the measurements for every size and path, the quality of sketches and the growth of the cost."""
    runs: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for n in sizes:
            file = Path(folder) / "sets.parquet"
            in_own_process("--draw", file, "--sizes", n)
            limits = zip(PATHS, (n, 0), strict=True)
            runs[str(n)] = {
                name: json.loads(in_own_process("--measure", file, "--exact-up-to", limit, "--k", k))
                for name, limit in limits
            }
            exact, sketch = (runs[str(n)][name]["mean_similarity"] for name in PATHS)
            runs[str(n)]["similarity_of_sketch / exact"] = {key: sketch[key] / exact[key] for key in exact}
    cpu = {name: [runs[str(n)][name]["cpu_seconds"] for n in sizes] for name in PATHS}
    growth = {name: float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0]) for name, seconds in cpu.items()}
    return {"by_n": runs, "growth_exponent_of_cpu_seconds": growth}


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.retrieval", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[5_000, 10_000, 20_000, 50_000], help="numbers of sets")
    parser.add_argument("--k", type=int, default=12, help="neighbours, at least 4 (%(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS / "retrieval.json", help="results file (%(default)s)")
    for name in ("--draw", "--measure", "--exact-up-to"):
        parser.add_argument(name, type=int if name == "--exact-up-to" else Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.draw:
        draw(options.sizes[0], options.draw)
    elif options.measure:
        sys.stdout.write(json.dumps(measure(options.measure, options.exact_up_to, options.k)))
    else:
        machine = describe_machine("retrieval", ("numba", "numpy", "polars", "faiss-cpu"))
        report = {"sizes": options.sizes, "k": options.k, "machine": machine, **compare(options.sizes, options.k)}
        store_report(report, options.output)


if __name__ == "__main__":
    main()
