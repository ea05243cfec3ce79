"""What stands of rounds: the runs that they are, and the tables of what was judged. Loads no model and no torch."""

from typing import Any, Final

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import ArtifactError
from pipeline.rounds.schemas import DRIFT, ROUNDS
from pipeline.store.store import Run
from pipeline.table import conform

ROUNDS_FILE: Final = "rounds.parquet"
DRIFT_FILE: Final = "drift.parquet"


def run_of(rounds: Run, number: int) -> Run:
    """Return the run that is a round."""
    return rounds.store.run(f"{rounds.name}-{number}")


def run_after(rounds: Run, number: int) -> Run:
    """Return the run in which the model of a round is asked the pool."""
    return rounds.store.run(f"{rounds.name}-{number}-after")


def read_rounds(rounds: Run) -> pl.DataFrame:
    """Return what was judged, of schema ROUNDS; none before the first round."""
    return _read(rounds, ROUNDS_FILE, ROUNDS)


def last_promoted(judged: pl.DataFrame) -> int:
    """Return the number of the last round that was promoted, by rows of schema ROUNDS; 0 without one."""
    return max(judged.filter("promoted")["round"].to_list(), default=0)


def read_drift(rounds: Run) -> pl.DataFrame:
    """Return what the gate measured of the rounds that were judged, of schema DRIFT."""
    return _read(rounds, DRIFT_FILE, DRIFT).filter(pl.col("round") <= read_rounds(rounds).height)


def judged_round(rounds: Run, row: dict[str, Any], drift: list[dict[str, Any]]) -> None:
    """Record that a round was judged, by a row of schema ROUNDS and rows of schema DRIFT without the round.

    What a round that was cut off has left is replaced. Raises ArtifactError where it cannot be written.
    """
    measured = [{"round": row["round"], **signal} for signal in drift]
    _write(rounds, DRIFT_FILE, DRIFT, read_drift(rounds), measured)
    _write(rounds, ROUNDS_FILE, ROUNDS, read_rounds(rounds), [row])  # last: now it is judged


def _read(rounds: Run, file: str, schema: pa.Schema) -> pl.DataFrame:
    path = rounds.folder / file
    if not path.is_file():
        return pl.DataFrame(schema.empty_table())
    if not pq.read_schema(path).equals(schema):
        raise ArtifactError(f"{path} is of other code: remove run '{rounds.name}', its rounds are then judged again")
    return pl.read_parquet(path)


def _write(rounds: Run, file: str, schema: pa.Schema, before: pl.DataFrame, rows: list[dict[str, Any]]) -> None:
    path = rounds.folder / file
    new = pl.DataFrame(rows, schema=before.schema)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{file}.part")
        pq.write_table(conform(pl.concat([before, new]), schema, where=file), unfinished)
        unfinished.replace(path)
    except OSError as error:
        raise rounds.store.unwritable(error) from error
