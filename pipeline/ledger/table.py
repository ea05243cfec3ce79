"""The ledger of a run: every attempt at what it shows, and every other attempt of its own, as a table."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import polars as pl
import pyarrow as pa

from pipeline.ledger.attempt import Attempt, read_attempts
from pipeline.ledger.usage import Cost
from pipeline.stages import CATALOGUE
from pipeline.store.run_table import write_run_table
from pipeline.store.store import Run, Store
from pipeline.table import TEXT, table

LEDGER_FILE: Final = "ledger.parquet"


def _told(name: str) -> str:
    return " ".join((Attempt.model_fields[name].description or "").split())


LEDGER: Final = table(
    **{
        name: (TEXT, name == "objective", _told(name)) for name in ("stage", "objective", "fingerprint", "run", "state")
    },
    started=(pa.timestamp("us", "UTC"), False, _told("started")),
    shown=(
        pa.bool_(),
        False,
        "whether the run shows what was made; false for its other settings, and while it is made",
    ),
    **{name: (pa.float64(), False, _told(name)) for name in ("seconds", "processor_seconds", "gpu_seconds")},
    peak_memory=(pa.int64(), True, _told("peak_memory")),
    **{
        name: (pa.int64(), False, _told(name))
        for name in ("peak_gpu_memory", "read_tokens", "generated_tokens", "trained_tokens")
    },
)
_COST: Final = tuple(Cost.model_fields)


def cost_to_make(store: Store, stage: str, fingerprint: str) -> Cost:
    """Return what all attempts at an artifact cost together, whatever run made them."""
    return sum(read_attempts([store.ledger / stage / fingerprint]), start=Cost())


def ledger_of(run: Run) -> pl.DataFrame:
    """Return rows of schema LEDGER, by stage and time."""
    links = run.folder.glob("[!.]*")
    shown = {(link.name, link.readlink().name) for link in links if link.is_symlink()}
    order = {name: number for number, name in enumerate(CATALOGUE)}
    attempts = read_attempts(sorted(run.store.ledger.glob("*/*")))
    rows = [
        attempt.model_dump() | {"shown": is_shown}
        for attempt in sorted(attempts, key=lambda attempt: order.get(attempt.stage, len(order)))
        if (is_shown := (attempt.stage, attempt.fingerprint) in shown) or attempt.run == run.name
    ]
    return pl.DataFrame(rows, schema=pl.DataFrame(LEDGER.empty_table()).schema)


def write_ledger(run: Run) -> None:
    """Leave the ledger as a file of the run; where that cannot be done it is said in one line."""
    write_run_table(run, LEDGER_FILE, LEDGER, lambda: ledger_of(run))


def show_ledger(ledger: pl.DataFrame, totals: Mapping[str, pl.Expr]) -> str:
    """Return rows of schema LEDGER as an aligned table for people: by stage and objective, then some totals.

    In parentheses stands what the run does not show. A total is of the rows that its expression chooses, if any.
    """
    by = ["stage", "objective", "shown"]
    stages = ledger.group_by(by, maintain_order=True).agg(*_total()).sort("shown", descending=True, maintain_order=True)
    rows = [(row["stage"] if row["shown"] else f"({row['stage']})", row) for row in stages.iter_rows(named=True)]
    for name, chosen in totals.items():
        own = ledger.filter(chosen)
        if own.height:
            rows.append((name, own.select(*_total()).row(0, named=True)))
    return align([_HEADER, *([name, *_cells(row)] for name, row in rows)])


_HEADER: Final = [
    *("", "objective", "attempts", "seconds", "processor s", "GPU s", "memory MB", "GPU MB"),
    *("read tokens", "generated", "trained"),
]


def _total() -> list[pl.Expr]:
    peaks = [name for name in _COST if name.startswith("peak_")]
    return [
        pl.len().alias("attempts"),
        *(pl.col(name).max() if name in peaks else pl.col(name).sum() for name in _COST),
    ]


def _cells(row: dict[str, Any]) -> list[str]:
    memory = ["?" if row[name] is None else f"{row[name] / 1e6:,.0f}" for name in ("peak_memory", "peak_gpu_memory")]
    seconds = [f"{row[name]:,.1f}" for name in ("seconds", "processor_seconds", "gpu_seconds")]
    tokens = [f"{row[name]:,}" for name in ("read_tokens", "generated_tokens", "trained_tokens")]
    return [row.get("objective") or "", str(row["attempts"]), *seconds, *memory, *tokens]


def align(rows: Sequence[Sequence[str]]) -> str:
    """Return cells as lines: the first two columns to the left, numbers to the right; empty columns are left out."""
    kept = [column for column in zip(*rows, strict=True) if any(cell not in ("", "0", "0.0") for cell in column[1:])]
    widths = [max(map(len, column)) for column in kept]
    lines = (
        "  ".join(
            cell.ljust(width) if column[0] in ("", "objective") else cell.rjust(width)
            for cell, width, column in zip(row, widths, kept, strict=True)
        )
        for row in zip(*kept, strict=True)
    )
    return "\n".join(line.rstrip() for line in lines)
