"""The chapter of a run's page on tasks of lm-evaluation-harness, where ``python -m pipeline.harness`` asked them."""

from collections.abc import Mapping
from statistics import NormalDist
from typing import Any, Final

import polars as pl

from pipeline.errors import ArtifactError
from pipeline.evaluation.report import SPLITS
from pipeline.harness.results import find_results
from pipeline.predictions.contenders import compared
from pipeline.report.blocks import Block, Cell, Estimate, Plot, Plots, Remark, Section, Table
from pipeline.report.charts import intervals
from pipeline.report.outcome import colors_of
from pipeline.report.shown import Shown

_LEAD: Final = (
    "Published tasks, asked by lm-evaluation-harness of the base model and of every adapter, and judged by the tasks' "
    "own gold. Brackets are 95 % intervals, 1.96 standard errors to either side; differences are paired by document."
)
_REACH: Final = NormalDist().inv_cdf(0.975)
"""Standard errors from an estimate to the end of its 95 % interval, where errors are normal."""
_NO_FILTER: Final = "none"
"""What the harness calls it where answers are taken as they are."""
_KEY: Final = ("split", "task", "filter", "metric")


def real_tasks(shown: Shown) -> list[Section]:
    """Return the chapter; none where no task was asked."""
    try:
        results = find_results(shown.run)
    except ArtifactError as error:
        return [_section([Remark(str(error), "warning")])]
    if results is None:
        return []
    blocks: list[Block] = []
    now = [artifact.manifest.fingerprint for artifact in shown.made().values()]
    asked = results.rows.filter(~pl.col("fingerprint").is_in(now))["model"].unique(
        maintain_order=True
    )  # null: no adapter
    if asked.len():
        told = f"The run has since got another adapter than was asked: {', '.join(asked)}. Ask the tasks again."
        blocks.append(Remark(told, "warning"))
    blocks += [Plots(_plots(results.rows)), _table(results.rows)]
    return [_section([*blocks, Remark(f"Made by: {results.command}")])]


def _section(blocks: list[Block]) -> Section:
    return Section("tasks", "Published tasks", _LEAD, blocks)


def _plots(rows: pl.DataFrame) -> list[Plot]:
    """Return two pictures a metric, as metrics have units of their own: of the models, and of their differences."""
    plots = []
    for number, metric in enumerate(rows["metric"].unique(maintain_order=True)):
        own = rows.filter(metric=metric).to_dicts()
        for title, is_gap in ((metric, False), (f"{metric}, differences", True)):
            points = [_point(row) for row in own if (compared(row["model"]) is not None) == is_gap]
            if points:
                colors = colors_of([point["series"] for point in points])
                spec = intervals(pl.DataFrame(points), metric, colors, zero=is_gap)
                plots.append(Plot(f"tasks_{number}_{'gaps' if is_gap else 'models'}", title, spec))
    return plots


def _point(row: Mapping[str, Any]) -> dict[str, Any]:
    reach = _REACH * (row["stderr"] or 0)
    ends = {"low": row["value"] - reach, "high": row["value"] + reach}
    return {"name": _label(row), "series": row["model"], "value": row["value"], **ends}


def _table(rows: pl.DataFrame) -> Table:
    """Return a row a task, reading and metric, a column a model."""
    models = rows["model"].unique(maintain_order=True).to_list()  # differences come last
    cells: list[list[Cell]] = []
    for key in rows.select(_KEY).unique(maintain_order=True).to_dicts():
        found = {row["model"]: row for row in rows.filter(**key).to_dicts()}
        documents = next(iter(found.values()))["n"]
        cells.append([f"{_label(key)}: {key['metric']}", *(_estimate(found.get(model)) for model in models), documents])
    return Table("By task; differences are paired", ["", *models, "documents"], cells)


def _estimate(row: Mapping[str, Any] | None) -> Cell:
    if row is None:
        return None
    point, sign = _point(row), "+" if compared(row["model"]) else ""
    value, low, high = (f"{point[name]:{sign}z.3f}" for name in ("value", "low", "high"))
    return Estimate(value, "" if row["stderr"] is None else f"[{low}, {high}]")


def _label(row: Mapping[str, Any]) -> str:
    reading = "" if row["filter"] == _NO_FILTER else f" ({row['filter']})"
    return f"{SPLITS[row['split']]}, {row['task']}{reading}"
