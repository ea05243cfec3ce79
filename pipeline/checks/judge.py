"""Judging the result of a stage, and keeping the verdicts: ``runs/<run>/checks.parquet``."""

import logging
from collections.abc import Sequence
from typing import Final

import polars as pl
import pyarrow.parquet as pq

from pipeline.checks.check import Evidence, Verdict
from pipeline.checks.config import ChecksConfig
from pipeline.checks.registry import checks_of
from pipeline.checks.schemas import CHECKS
from pipeline.errors import CheckError
from pipeline.section import Section
from pipeline.store.run_table import write_run_table
from pipeline.store.store import Run

CHECKS_FILE: Final = "checks.parquet"
PASSED, FAILED, NOTHING = "passed", "failed", "nothing to judge"
_logger = logging.getLogger(__name__)
_LEVELS: Final = {"error": logging.ERROR, "warning": logging.WARNING}


def judge(stage: str, section: Section, limits: ChecksConfig, run: Run) -> tuple[Verdict, ...]:
    """Return what each check says of the stage's result in a run; failures are logged, and all is kept in the run."""
    evidence = Evidence(stage, section, limits, run)
    verdicts = tuple(Verdict(check, check.judge(evidence)) for check in checks_of(stage))
    for check, finding in verdicts:
        if finding is not None and not finding.passed:
            _logger.log(_LEVELS[check.severity], "%s: check %s: %s", stage, check.name, finding.message)
    _keep(verdicts, stage, run)
    return verdicts


def require_sound(stage: str, verdicts: Sequence[Verdict]) -> None:
    """Raise CheckError where a blocking check failed."""
    failed = [
        (check.name, finding.message)
        for check, finding in verdicts
        if check.blocking and finding and not finding.passed
    ]
    if failed:
        raise CheckError("; ".join(f"{stage}: check {name} failed: {message}" for name, message in failed))


def read_checks(run: Run) -> pl.DataFrame:
    """Return rows of schema CHECKS, by stage in the order in which they were judged; none for a run of other code."""
    path = run.folder / CHECKS_FILE
    empty = pl.DataFrame(CHECKS.empty_table())
    return pl.read_parquet(path) if path.is_file() and pq.read_schema(path).equals(CHECKS) else empty


def _keep(verdicts: Sequence[Verdict], stage: str, run: Run) -> None:
    own = run.find(stage)
    rows = [
        {
            "stage": stage,
            "check": check.name,
            "state": NOTHING if finding is None else PASSED if finding.passed else FAILED,
            "severity": check.severity,
            "blocking": check.blocking,
            "measured": finding and finding.measured,
            "limit": finding and finding.limit,
            "message": finding.message if finding else "",
            "fingerprint": own.manifest.fingerprint if own else "",
        }
        for check, finding in verdicts
    ]
    found = pl.DataFrame(rows, schema=pl.DataFrame(CHECKS.empty_table()).schema)
    if not found.equals(read_checks(run).filter(stage=stage)):
        others = pl.col("stage") != stage
        write_run_table(run, CHECKS_FILE, CHECKS, lambda: pl.concat([read_checks(run).filter(others), found]))
