"""Run a study and write its tables, report and picture: arms on worlds under seeds, each cell a run of the stages.

Cells that stand are not made again, and what is equal between them is made once. Exit status: 0 done, 1 some cells
could not be made (the report names them), 2 the study cannot run, 130 interrupted.
"""

import argparse
import shlex
import sys
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
from tqdm import tqdm

from pipeline.errors import CurationError
from pipeline.paths import PROJECT_ROOT, resolve_path
from pipeline.study.config import StudyConfig, read_study
from pipeline.study.costs import cost_of
from pipeline.study.figures import Answers
from pipeline.study.report import forest, write_report
from pipeline.study.run import Cell, answer_cells, cells, configure, make_worlds
from pipeline.study.schemas import CELLS, FIGURES
from pipeline.table import conform


def main() -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.study", description=__doc__)
    parser.add_argument(
        "study", type=Path, help="YAML file: name, arms, seeds, worlds, against (pipeline/study/config.py)"
    )
    parser.add_argument("--out", type=Path, help="folder of the results (docs/studies/<name>)")
    parser.add_argument("--store", type=Path, default=Path("data/studies"), help="folder of all runs (%(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="cells side by side, one thread each (%(default)s)")
    options = parser.parse_args()
    try:
        study = read_study(options.study)
        out = options.out or PROJECT_ROOT / "docs" / "studies" / study.name
        command = shlex.join(["python", "-m", "pipeline.study", str(options.study)])
        return _run(study, resolve_path(options.store), out, options.jobs, command)
    except CurationError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: the same command goes on where it was\n")
        return 130


def _run(study: StudyConfig, root: Path, out: Path, n_jobs: int, command: str) -> int:
    for cell in cells(study):
        configure(study, cell, root)  # a misspelt setting is told before anything is made
    make_worlds(study, root)
    found: dict[Cell, Path | str] = {}
    with tqdm(total=len(cells(study)), unit="cell", desc=study.name) as progress:
        for cell, made in answer_cells(study, root, n_jobs):
            found[cell] = made
            progress.update()
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
    sys.stdout.write(report)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
