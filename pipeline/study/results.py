"""Writing what a study found: tables, a picture and the report."""

from collections.abc import Mapping
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from pipeline.errors import CurationError
from pipeline.study.config import Cell, StudyConfig, cells
from pipeline.study.costs import cost_of
from pipeline.study.figures import Answers
from pipeline.study.report import forest, write_report
from pipeline.study.schemas import CELLS, FIGURES
from pipeline.table import conform


def write_results(study: StudyConfig, root: Path, found: Mapping[Cell, Path | str], out: Path, command: str) -> str:
    """Write tables, picture and report into the folder ``out``; return the report.

    Args:
        study: The study.
        root: Folder of its store.
        found: Of every cell the file of its graded answers, or why there is none: its arm is then left out.
        out: Folder of the results, made where it is not there.
        command: What makes them again.

    Raises:
        CurationError: No arm is whole.
    """
    failed = {cell: made for cell, made in found.items() if isinstance(made, str)}
    incomplete = {cell.arm for cell in failed}
    whole = {cell: pl.read_parquet(found[cell]) for cell in cells(study) if cell.arm not in incomplete}
    reasons = {", ".join(map(str, cell)): reason for cell, reason in failed.items()}
    if not whole:
        raise CurationError(f"no arm was made whole: {'; '.join(reasons.values())}")
    answers = Answers(study, whole, {cell: cost_of(study, cell, root) for cell in whole})
    figures = answers.figures()
    out.mkdir(parents=True, exist_ok=True)
    pq.write_table(conform(answers.cells(), CELLS, where="cells"), out / "cells.parquet")
    pq.write_table(conform(figures, FIGURES, where="figures"), out / "figures.parquet")
    (out / "forest.png").write_bytes(forest(study, figures))
    report = write_report(study, figures, reasons, command)
    (out / "report.md").write_text(report, encoding="utf-8")
    return report
