"""Checks of a stage as Dagster shows them: declared with its assets, judged when it has run."""

from collections.abc import Collection, Iterator, Sequence
from typing import Final

import dagster as dg

from assets.keys import asset_key
from pipeline.checks.check import Finding, Verdict
from pipeline.checks.registry import checks_of

_SEVERITIES: Final = {"error": dg.AssetCheckSeverity.ERROR, "warning": dg.AssetCheckSeverity.WARN}


def check_specs(stage: str, run: str) -> list[dg.AssetCheckSpec]:
    """Return the checks of a stage's asset in a run."""
    asset = asset_key(run, stage)
    return [
        dg.AssetCheckSpec(check.name, asset=asset, description=check.meaning, blocking=check.blocking)
        for check in checks_of(stage)
    ]


def check_results(
    verdicts: Sequence[Verdict], stage: str, run: str, wanted: Collection[dg.AssetCheckKey]
) -> Iterator[dg.AssetCheckResult]:
    """Yield the verdicts on a stage's asset that are wanted; where there was nothing to judge the check passes."""
    for check, found in verdicts:
        finding = found or Finding(True, "nothing to judge")
        figures = {"measured": finding.measured, "limit": finding.limit}
        key = dg.AssetCheckKey(asset_key(run, stage), check.name)
        if key in wanted:
            yield dg.AssetCheckResult(
                asset_key=key.asset_key,
                check_name=check.name,
                passed=finding.passed,
                severity=_SEVERITIES[check.severity],
                description=finding.message,
                metadata={name: value for name, value in figures.items() if value is not None},
            )
