"""The tables that a job names."""

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.adapters.job import TrainingJob
from pipeline.errors import ArtifactError


def scan_input(job: TrainingJob, name: str, schema: pa.Schema) -> pl.LazyFrame:
    """Return a lazy frame of an input's main table, which is named like the artifact, after checking its schema.

    Raises ArtifactError, naming the stage to materialize, when the table is not there or is not of ``schema``.
    """
    if name not in job.inputs:
        raise ArtifactError(
            f"the job of {job.stage} names no input '{name}': add the folder of that artifact to inputs"
        )
    path = job.inputs[name] / f"{name}.parquet"
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise ArtifactError(f"{path} holds no shard: materialize '{name}' again")
    for file in files:
        try:
            stored = pq.read_schema(file)
        except (OSError, pa.ArrowInvalid) as error:
            raise ArtifactError(f"{file} is missing or not Parquet: materialize '{name}' again") from error
        if not stored.equals(schema):
            raise ArtifactError(f"{file} does not have the declared schema: materialize '{name}' again")
    return pl.scan_parquet(files)
