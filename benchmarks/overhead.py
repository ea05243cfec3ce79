"""What is spent beside the work itself: on declarations, on finding that nothing changed, and on Dagster.

Every measurement is a process of its own, started as users do; processor seconds are those of all its threads and of
the processes that it starts, on one thread where the libraries ask. Medians of several starts, in turn, of which that
of a bare interpreter, or of one that only imports, is subtracted. The whole chain is made under Dagster and by plain
calls in turn, each time in a fresh store.
``python -m benchmarks.overhead``.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import RESULTS, describe_machine, store_report
from pipeline.paths import PROJECT_ROOT

PLAIN_IMPORTS = (
    "import sys; from pathlib import Path; from pipeline.chain import run_chain; "
    "from pipeline.presets import load_config; from pipeline.stages import open_store"
)
PLAIN_CALLS = f"{PLAIN_IMPORTS}; run_chain(load_config(), open_store(Path(sys.argv[1])).run('overhead'))"
LIBRARIES = ("dagster", "torch", "transformers", "polars", "pyarrow")
QUIET = {"OMP_NUM_THREADS": "1", "DAGSTER_DISABLE_TELEMETRY": "yes", "HF_HUB_DISABLE_TELEMETRY": "1"}

Cost = Mapping[str, float]


def started(arguments: Sequence[str], home: Path) -> Cost:
    """Return the wall seconds, and the processor seconds with those of its children, of a Python process."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(  # noqa: S603  our own command
        [sys.executable, *arguments],
        check=True,
        cwd=PROJECT_ROOT,
        env={**os.environ, **QUIET, "DAGSTER_HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return {"wall_seconds": wall, "cpu_seconds": cpu}


def under_dagster(store: Path) -> list[str]:
    """Return the arguments that make the whole chain under Dagster."""
    return ["-m", "assets", "--run", "overhead", "--store", str(store)]


def by_plain_calls(store: Path) -> list[str]:
    """Return the arguments that make the whole chain by plain calls."""
    return ["-c", PLAIN_CALLS, str(store)]


def measure(home: Path, repeats: int, n_chains: int) -> dict[str, Any]:
    """Return the costs of all commands, and what is beyond the bare ones; ``home`` is an empty folder."""
    chains: dict[str, list[Cost]] = {"dagster": [], "plain calls": []}
    for number in range(n_chains):
        chains["dagster"].append(started(under_dagster(home / f"dagster-{number}"), home))
        chains["plain calls"].append(started(by_plain_calls(home / f"plain-{number}"), home))
    seconds = {name: [cost["cpu_seconds"] for cost in own] for name, own in chains.items()}
    commands = {
        "bare interpreter": ["-c", "pass"],
        "import definitions": ["-c", "import definitions"],
        "import the command line": ["-c", "import assets.__main__"],
        "nothing to do, dagster": under_dagster(home / "dagster-0"),
        "import the chain": ["-c", PLAIN_IMPORTS],
        "nothing to do, plain calls": by_plain_calls(home / "plain-0"),
    }
    costs: dict[str, list[Cost]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, command in commands.items():
            costs[name].append(started(command, home))
    median = {
        name: {unit: statistics.median(cost[unit] for cost in own) for unit in own[0]} for name, own in costs.items()
    }
    pairs = {
        "import definitions": "bare interpreter",
        "nothing to do, dagster": "import the command line",
        "nothing to do, plain calls": "import the chain",
    }
    return {
        "median": median,
        "all": costs,
        "beyond": {
            f"{name} - {bare}": {unit: median[name][unit] - median[bare][unit] for unit in median[name]}
            for name, bare in pairs.items()
        },
        "whole chain": chains,
        "ratios": {
            "dagster / plain calls, processor": sum(seconds["dagster"]) / sum(seconds["plain calls"]),
            "in each pair": [d / p for d, p in zip(seconds["dagster"], seconds["plain calls"], strict=True)],
        },
    }


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="starts of each command (%(default)s)")
    parser.add_argument("--chains", type=int, default=3, help="whole chains of each kind (%(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS / "overhead.json", help="(%(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(Path(folder), options.repeats, options.chains)
    setting = {"repeats": options.repeats, "chains": options.chains, "environment": QUIET}
    machine = describe_machine("overhead", LIBRARIES)
    store_report({"setting": setting, "machine": machine, **measured}, options.output)


if __name__ == "__main__":
    main()
