"""The tables that a job names."""

import polars as pl
import pyarrow as pa

from pipeline.adapters.job import TrainingJob
from pipeline.errors import ArtifactError
from pipeline.store.artifact import scan_files


def scan_input(job: TrainingJob, name: str, schema: pa.Schema) -> pl.LazyFrame:
    """Return a lazy frame of an input's main table, which is named like the artifact, after checking its schema.

    Raises ArtifactError, naming the stage to materialize, when the table is not there or is not of ``schema``.
    """
    if name not in job.inputs:
        raise ArtifactError(
            f"the job of {job.stage} names no input '{name}': add the folder of that artifact to inputs"
        )
    path, remedy = job.inputs[name] / f"{name}.parquet", f"materialize '{name}' again"
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise ArtifactError(f"{path} holds no shard: {remedy}")
    return scan_files(files, schema, remedy)
