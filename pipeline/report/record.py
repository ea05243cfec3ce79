"""The chapters of a run's page on costs, checks, and how to make it again."""

from typing import Final

import polars as pl

from pipeline.ledger.table import ledger_of
from pipeline.report.blocks import Block, Cell, Fold, Plot, Plots, Prose, Remark, Section, Table, Tile, Tiles
from pipeline.report.charts import bars
from pipeline.report.outcome import report_sections
from pipeline.report.shown import Shown

_VERDICTS: Final = "checks.parquet"
"""Table of a run: stage, check, state, severity and message of each verdict."""
_TOKENS: Final = ("read_tokens", "generated_tokens", "trained_tokens")


def ledger(shown: Shown) -> Section:
    """Return what each stage cost: all attempts at what the run shows, whatever run made them."""
    lead = "Seconds, memory and tokens of every attempt at what this run shows, those of earlier runs included."
    rows = ledger_of(shown.run)
    if rows.is_empty():
        return Section("ledger", "Costs", lead, [Remark("No attempt is recorded.", "missing")])
    amounts = [pl.col(name).sum() for name in ("seconds", "processor_seconds", "gpu_seconds", *_TOKENS)]
    total = [pl.len().alias("attempts"), *amounts, pl.col("peak_memory", "peak_gpu_memory").max()]
    own = rows.filter("shown")
    stages = own.group_by("stage", "objective", maintain_order=True).agg(*total)
    totals = [*stages.to_dicts(), {"stage": "all", "objective": None, **own.select(total).to_dicts()[0]}]
    header = {
        "stage": "stage", "objective": "objective", "attempts": "attempts", "seconds": "seconds",
        "processor_seconds": "processor s", "gpu_seconds": "GPU s", "peak_memory": "memory MB",
        "peak_gpu_memory": "GPU MB", "read_tokens": "read tokens", "generated_tokens": "generated",
        "trained_tokens": "trained",
    }  # fmt: skip
    used = [name for name in header if any(row[name] for row in totals)]
    cells = [[_amount(name, row[name]) for name in used] for row in totals]
    table = Table("All attempts at what the run shows", [header[name] for name in used], cells)
    spent = {row["stage"]: round(row["processor_seconds"], 2) for row in stages.to_dicts()}
    others = rows.filter(~pl.col("shown"))
    besides = f"Besides, {others.height} attempts of this run are of settings that it does not show, or did not finish."
    return Section("ledger", "Costs", lead, [
        Plots([Plot("costs", "Processor seconds by stage", bars(spent, "processor seconds"), is_wide=True)]), table,
        *([Remark(besides)] if others.height else []),
    ])  # fmt: skip


def checks(shown: Shown) -> Section:
    """Return the verdicts on what stages have made, failures first, and whether it still is what they made."""
    damaged = [name for name, artifact in shown.made().items() if not artifact.is_intact()]
    lead = "What must hold of any run, and whether it does."
    blocks: list[Block] = [
        Remark(f"Changed since they were made: {', '.join(damaged)}. Materialize them again.", "warning")
        if damaged
        else Remark(f"The files of all {len(shown.made())} artifacts are those that their manifests tell of.")
    ]
    path = shown.run.folder / _VERDICTS
    if not path.is_file():
        return Section("checks", "Checks", lead, [*blocks, Remark("No verdicts of checks are kept here.", "missing")])
    found = pl.read_parquet(path)
    failed, passed = (found.filter(state=state) for state in ("failed", "passed"))
    tiles = [
        Tile("checks passed", f"{passed.height:,}", mood="good"),
        Tile("failed", f"{failed.height:,}", mood="bad" if failed.height else ""),
        Tile("nothing to judge", f"{found.height - passed.height - failed.height:,}"),
    ]
    shown_first = [_verdicts("What failed", failed, "✗")] if failed.height else []
    folded = Fold("What passed", [_verdicts("What passed", passed, "✓")])
    return Section("checks", "Checks", lead, [*blocks, Tiles(tiles), *shown_first, folded])


def _verdicts(caption: str, rows: pl.DataFrame, mark: str) -> Table:
    checks = [f"{mark} {name.replace('_', ' ')}" for name in rows["check"]]
    outcomes = [row["severity"] if row["state"] == "failed" else "passed" for row in rows.to_dicts()]
    cells = list(zip(checks, rows["stage"], outcomes, rows["message"], strict=True))
    return Table(caption, ["check", "stage", "outcome", "found"], cells)


def making(shown: Shown) -> Section:
    """Return what determined the run, and the command that makes it again."""
    blocks: list[Block] = []
    if evaluated := shown.find("evaluation"):
        words = report_sections((evaluated.folder / "report.md").read_text("utf-8"))
        blocks.append(Prose(words.get("How to reproduce", "")))
    prints: list[list[Cell]] = []
    folds = []
    for name, artifact in shown.made().items():
        manifest = artifact.manifest
        prints.append([name, manifest.fingerprint, manifest.digest[:16], sum(manifest.rows.values())])
        if manifest.settings and name in shown.run.store.catalogue and manifest.provenance.get("stage") == name:
            folds.append(
                Table(name, ["setting", "value"], [[key, str(value)] for key, value in manifest.settings.items()])
            )
    blocks.append(Fold("Settings of every stage", folds))
    header = ["artifact", "fingerprint", "digest of the content", "rows"]
    blocks.append(Fold("Artifacts", [Table("Artifacts by their fingerprints", header, prints)]))
    lead = "What determined each artifact: code, settings, inputs, model and libraries make its fingerprint."
    return Section("making", "How it was made", lead, blocks)


def _amount(name: str, value: float | str | None) -> Cell:
    if isinstance(value, str) or not value:
        return value
    return round(value / 1e6) if name.startswith("peak_") else round(value, 1) if "seconds" in name else value
