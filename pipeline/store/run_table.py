"""Tables of a run beside its links, written by whoever makes a stage of it."""

import fcntl
import logging
import os
from collections.abc import Callable

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.store.store import Run
from pipeline.table import conform

_logger = logging.getLogger(__name__)


def write_run_table(run: Run, file: str, schema: pa.Schema, rows: Callable[[], pl.DataFrame]) -> None:
    """Leave rows of ``schema`` as a file of the run; where that cannot be done it is said in one line.

    ``rows`` is called while other processes wait, or the older of two tables could be the last to be written.
    """
    if not run.folder.is_dir():
        return
    path = run.folder / file
    try:
        folder = os.open(run.folder, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            unfinished = path.with_name(f".{file}.part")
            pq.write_table(conform(rows(), schema, where=str(path)), unfinished)
            unfinished.replace(path)
        finally:
            os.close(folder)
    except OSError as error:
        _logger.warning("%s cannot be written (%s): make room", path, error.strerror)
