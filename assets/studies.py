"""Studies in Dagster: a job that makes one cell a partition, and a job that writes what all the cells say.

Jobs of operations rather than assets: assets that need a partition would stand in the way of materializing a run of
the chain with one click. What a cell makes is kept in the study's store, which the command line shares.
"""

from pathlib import Path
from typing import Final

import dagster as dg

from assets.stages import POOL
from pipeline.errors import CurationError
from pipeline.paths import PROJECT_ROOT
from pipeline.study.config import StudyConfig, cells, command_of, read_study, results_of, world_of

CELL_JOB: Final = "study_cell"
REPORT_JOB: Final = "study_report"


class CellForm(dg.Config):
    """What making a cell needs besides the partition."""

    store: str = "data/studies"
    """Folder of all runs of studies, relative to the project."""


class ReportForm(CellForm):
    """Where a study's results stand."""

    out: str = ""
    """Folder of the results; by default docs/studies/<name>."""


def build_study_jobs(path: Path) -> list[dg.JobDefinition]:
    """Return the jobs of the study in a file; raises ConfigError for one that cannot be read."""
    study = read_study(path)
    partitions = {f"{cell.arm} / {cell.world} / {cell.seed}": cell for cell in cells(study)}

    @dg.op(name="answer_cell", pool=POOL, description="Makes an arm on a world under a seed, and grades its answers.")
    def answer(context: dg.OpExecutionContext, config: CellForm) -> str:
        from pipeline.study.run import answer_cell, make_worlds  # not when definitions are loaded

        root, cell = PROJECT_ROOT / config.store, partitions[context.partition_key]
        make_worlds([world_of(study, cell)], root)
        made = answer_cell(study, cell, root)
        if isinstance(made, str):
            raise dg.Failure(description=made, allow_retries=False)
        return str(made)

    @dg.op(name="write_results", description="Writes tables, picture and report of all arms whose cells stand.")
    def write(context: dg.OpExecutionContext, config: ReportForm) -> None:
        _write(context, study, config, path)

    @dg.job(
        name=CELL_JOB,
        partitions_def=dg.StaticPartitionsDefinition(list(partitions)),
        description=f"A cell of the study '{study.name}': arm / world / seed. Launch a backfill for all.",
    )
    def cell_job() -> None:
        answer()

    @dg.job(name=REPORT_JOB, description=f"Tables and report of the study '{study.name}', as far as its cells stand.")
    def report_job() -> None:
        write()

    return [cell_job, report_job]


def _write(context: dg.OpExecutionContext, study: StudyConfig, config: ReportForm, path: Path) -> None:
    from pipeline.study.results import write_results  # not when definitions are loaded
    from pipeline.study.run import find_cell

    root, out = PROJECT_ROOT / config.store, PROJECT_ROOT / config.out if config.out else results_of(study)
    found = {cell: find_cell(study, cell, root) for cell in cells(study)}
    try:
        report = write_results(study, root, found, out, command_of(path))
    except CurationError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from error
    context.add_output_metadata({"report": dg.MetadataValue.md(report), "folder": dg.MetadataValue.path(str(out))})
