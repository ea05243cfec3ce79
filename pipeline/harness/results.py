"""What the harness found of a run, as it stands in the run's folder: a table, and how it was asked for."""

from pathlib import Path
from typing import NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import ArtifactError
from pipeline.harness.schemas import HARNESS, HARNESS_FILE
from pipeline.store.store import Run
from pipeline.table import conform

_COMMAND = b"command"


class Results(NamedTuple):
    """What a run's models do on tasks of the harness."""

    rows: pl.DataFrame
    """Of schema HARNESS."""
    command: str
    """Command that asked for them."""


def keep_results(run: Run, results: Results) -> Path:
    """Write results in the place of earlier ones and return where; raises ArtifactError where that cannot be done."""
    path = run.folder / HARNESS_FILE
    table = conform(results.rows, HARNESS, where=str(path))
    unfinished = path.with_name(f".{HARNESS_FILE}.part")
    try:
        pq.write_table(table.replace_schema_metadata({_COMMAND: results.command}), unfinished)
        unfinished.replace(path)
    except OSError as error:
        raise run.store.unwritable(error) from error
    return path


def find_results(run: Run) -> Results | None:
    """Return what stands in a run's folder, or none; raises ArtifactError for a table that is of other code."""
    path = run.folder / HARNESS_FILE
    if not path.is_file():
        return None
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError(
            f"{path} cannot be read ({error}): remove it, or ask python -m pipeline.harness again"
        ) from error
    if not table.schema.equals(HARNESS):
        raise ArtifactError(f"{path} is of other code: remove it, or ask python -m pipeline.harness again")
    command = (table.schema.metadata or {}).get(_COMMAND, b"").decode()
    return Results(pl.DataFrame(table), command)
