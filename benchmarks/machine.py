"""What figures depend on besides the code, and where they are stored."""

import json
import os
import platform
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("torch", "transformers", "polars", "pyarrow", "numpy")


def describe_machine(benchmark: str, libraries: Iterable[str] = LIBRARIES) -> dict[str, Any]:
    """Return date, command, processor and the versions of ``libraries`` for the benchmark of this name."""
    cpu = [line.partition(":")[2].strip() for line in _cpu_lines() if line.startswith("model name")]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python", "-m", f"benchmarks.{benchmark}", *sys.argv[1:]]),
        "cpu": cpu[0] if cpu else platform.processor(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in libraries},
    }


def store_report(report: dict[str, Any], path: Path) -> None:
    """Write a report as JSON and print it."""
    text = json.dumps(report, indent=2) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    sys.stdout.write(text)


def _cpu_lines() -> list[str]:
    source = Path("/proc/cpuinfo")
    return source.read_text(encoding="utf-8").splitlines() if source.exists() else []
