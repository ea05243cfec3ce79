"""The table that the harness leaves in a run's folder."""

from typing import Final

import pyarrow as pa

from pipeline.table import TEXT, table

HARNESS_FILE: Final = "harness.parquet"
"""Stands in the folder of the run, beside its links."""
HARNESS: Final = table(
    model=(TEXT, False, "a model as evaluation calls it, or a paired difference such as distilled - untouched"),
    split=(TEXT, False, "in_domain or out_of_domain, as it was asked"),
    task=(TEXT, False, "task of the harness"),
    filter=(TEXT, False, "how its answers were read, as the task calls it"),
    metric=(TEXT, False, "metric of the task"),
    value=(pa.float64(), False, "figure, or difference"),
    stderr=(pa.float64(), True, "its standard error, of a difference that of pairs; null where the harness has none"),
    n=(pa.int32(), False, "documents"),
    fingerprint=(TEXT, True, "of the adapter; null for the untouched model and for differences"),
)
