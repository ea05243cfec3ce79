"""The page of a study: what its arms came to, against one another."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import polars as pl
import pyarrow as pa

from pipeline.errors import CurationError
from pipeline.evaluation.metrics import IN_DOMAIN, OUT_OF_DOMAIN
from pipeline.evaluation.report import CONFIDENCE_NAMES, SPLITS, metric_label, show_figure
from pipeline.report.blocks import Block, Cell, Estimate, Explorer, Fold, Page, Plot, Plots, Prose, Row, Section, Table
from pipeline.report.charts import SERIES, dots, intervals
from pipeline.study.config import StudyConfig, read_study
from pipeline.study.schemas import CELLS, FIGURES

_ACCURACY: Final = "avg_at_k"
_LEVELS: Final = {
    "Accuracy": (_ACCURACY, "maj_at_k", "pass_at_k"),
    **{
        f"Calibration by {confidence}": tuple(f"{name}_{kind}" for name in ("ece", "overconfidence", "brier", "auroc"))
        for kind, confidence in CONFIDENCE_NAMES.items()
    },
    "Without gold": ("agreement", "abstention"),
}
_DRAWN: Final = {
    _ACCURACY: "share right (%)",
    "ece_option": "calibration error",
    "ece_vote": "calibration error",
    "overconfidence_vote": "surer than right by",
}
_LEVEL: Final = 0.05
"""Of a test, where the study's file is not beside its results."""
_TESTS: Final = {split: pl.col("split") == split for split in (IN_DOMAIN, OUT_OF_DOMAIN)}


def study_page(folder: Path, n_rows: int) -> Page:
    """Return the page of a study's results, which ``python -m pipeline.study`` leaves in a folder.

    The study's file beside the folder, where it is there, says what the arms are. Raises CurationError where the
    results are not there, or are of other code.
    """
    figures, cells = _read(folder, "figures", FIGURES), _read(folder, "cells", CELLS)
    labels = _labels(cells)
    file = folder.with_name(f"{folder.name}.yaml")
    study = read_study(file) if file.is_file() else None
    margined = pl.col("is_equivalent").is_not_null().any()  # the first one that the study names
    order = figures.drop_nulls("against").group_by("against", maintain_order=True).agg(margined)
    against = order.sort("is_equivalent", descending=True, maintain_order=True)["against"].to_list()
    level = 1 - study.confidence_level if study else _LEVEL
    sections = [
        *(_comparison(figures, other, level, study if other == against[0] else None) for other in against),
        _levels(figures, labels),
        _runs(cells),
        *_costs(figures, labels),
        _all(figures, labels, n_rows),
        *([_arms(study)] if study else []),
    ]
    title = study.title if study else "Arms on the same questions, under the same seeds."
    summary = [_headline(figures, against[0])] if against else []
    return Page(f"Study {folder.name}", title, _verdict(figures, against, level), summary, sections)


def _read(folder: Path, name: str, schema: pa.Schema) -> pl.DataFrame:
    path, remedy = folder / f"{name}.parquet", "make the study first: python -m pipeline.study FILE"
    if not path.is_file():
        raise CurationError(f"{path} is not there: {remedy}")
    table = pl.read_parquet(path)
    if lacking := [column for column in schema.names if column not in table.columns]:
        raise CurationError(f"{path} lacks the columns {', '.join(lacking)}: {remedy}")
    return table


def _verdict(figures: pl.DataFrame, against: Sequence[str], level: float) -> str:
    sizes = figures.drop_nulls("split").group_by("split", maintain_order=True).agg(pl.col("n").max()).rows()
    counted = " and ".join(f"{n:,} questions {SPLITS[split].lower()}" for split, n in sizes)
    arms, worlds, seeds = figures.select(pl.col("arm").n_unique(), pl.col("worlds", "seeds").max()).row(0)
    sentences = [f"{arms} arms on {worlds} worlds under {seeds} seeds, {counted}."]
    for other in against:
        gaps = figures.filter(pl.col("against") == other, _TESTS[IN_DOMAIN], pl.col("metric") == _ACCURACY)
        sure = gaps.filter(pl.col("p_adjusted") < level).sort("value", descending=True)
        better, worse = sure.filter(pl.col("value") > 0), sure.filter(pl.col("value") < 0)
        best = f" (most of all {better['arm'][0]}, {_text(better.to_dicts()[0])})" if len(better) else ""
        sentences.append(
            f"Against {other}, {len(better)} of {len(gaps)} arms answer more questions of the domain right{best}, "
            f"{len(worse)} fewer, and {len(gaps) - len(sure)} cannot be told apart."
        )
    kept = figures.drop_nulls("is_equivalent")
    if kept.height:
        held = kept.filter("is_equivalent")["arm"].to_list()
        lost = kept.filter(~pl.col("is_equivalent"), pl.col("high") < 0)["arm"].to_list()
        sentences.append(
            f"Out of domain {len(held)} of {kept.height} arms are kept within the margin{_listed(held)}; {len(lost)} "
            f"certainly lost{_listed(lost)}."
        )
    return " ".join(sentences)


def _listed(names: Sequence[str]) -> str:
    return f" ({', '.join(names)})" if names else ""


def _headline(figures: pl.DataFrame, other: str) -> Table:
    header = [
        "arm",
        "in domain, %",
        f"against {other}",
        "out of domain, %",
        f"against {other}",
        "ECE in domain",
        "kept",
    ]
    own = figures.filter(pl.col("against").is_null(), _TESTS[IN_DOMAIN], pl.col("metric") == _ACCURACY)
    rows: list[list[Cell]] = []
    for arm in own.sort("value", descending=True)["arm"]:
        of_arm = figures.filter(pl.col("arm") == arm).to_dicts()
        level = {(row["split"], row["metric"]): row for row in of_arm if row["against"] is None}
        gap = {(row["split"], row["metric"]): row for row in of_arm if row["against"] == other}
        inside, outside = (IN_DOMAIN, _ACCURACY), (OUT_OF_DOMAIN, _ACCURACY)
        error = level.get((IN_DOMAIN, "ece_option")) or level.get((IN_DOMAIN, "ece_vote"))
        cells = [_estimate(level.get(inside)), _estimate(gap.get(inside))]
        cells += [_estimate(level.get(outside)), _estimate(gap.get(outside)), _estimate(error)]
        rows.append([arm, *cells, _kept(gap.get(outside))])
    return Table(f"All arms by accuracy in domain (Avg@k); differences from {other} are paired", header, rows)


def _kept(gap: Mapping[str, Any] | None) -> str:
    if gap is None or gap["is_equivalent"] is None:
        return ""
    return "yes" if gap["is_equivalent"] else "lost" if gap["high"] < 0 else "cannot tell"


def _comparison(figures: pl.DataFrame, other: str, level: float, study: StudyConfig | None) -> Section:
    """Return one arm against all others; the study's margin is of the first one only."""
    lead = f"Paired differences from {other}, by world, seed and question. An interval off zero is a difference."
    gaps = figures.filter(pl.col("against") == other, pl.col("metric") == _ACCURACY)
    plots = []
    for split, chosen in _TESTS.items():
        rows = gaps.filter(chosen)
        if rows.height:
            band = 100 * study.margin if study and split == OUT_OF_DOMAIN else None
            spec = intervals(_points(rows), "points", {}, zero=True, band=band)
            told = "The band is the margin within which accuracy counts as kept." if band else ""
            plots.append(Plot(f"gap_{split}_{_slug(other)}", f"{SPLITS[split]} accuracy against {other}", spec, told))
    inside = gaps.filter(_TESTS[IN_DOMAIN]).sort("value", descending=True)
    judged: list[list[Cell]] = [
        [row["arm"], _estimate(row), row["p_adjusted"], _judged(row, level)] for row in inside.to_dicts()
    ]
    caption = f"In-domain accuracy against {other}, p adjusted for all comparisons"
    table = Table(caption, ["arm", "points", "p", "told apart"], judged)
    return Section(f"against-{_slug(other)}", f"Against {other}", lead, [Plots(plots), table])


def _judged(row: Mapping[str, Any], level: float) -> str:
    return "no" if row["p_adjusted"] >= level else "better" if row["value"] > 0 else "worse"


def _levels(figures: pl.DataFrame, labels: Mapping[str, str]) -> Section:
    own = figures.filter(pl.col("against").is_null()).drop_nulls("split")
    plots = [
        Plot(
            f"{metric}_{split}",
            f"{SPLITS[split]} {labels[metric].removesuffix(', %')}",
            intervals(_points(rows), unit, {}),
        )
        for metric, unit in _DRAWN.items()
        for split, chosen in _TESTS.items()
        if (rows := own.filter(chosen, pl.col("metric") == metric)).height
    ]
    folds: list[Block] = []
    for title, metrics in _LEVELS.items():
        known = [
            (split, metric) for split in _TESTS for metric in metrics if own.filter(split=split, metric=metric).height
        ]
        cells: list[list[Cell]] = []
        for arm in own["arm"].unique(maintain_order=True) if known else ():
            found = {(row["split"], row["metric"]): row for row in own.filter(pl.col("arm") == arm).to_dicts()}
            cells.append([arm, *(_estimate(found.get(key)) for key in known)])
        if cells:
            header = ["arm", *(f"{SPLITS[split]} {labels[metric]}" for split, metric in known)]
            folds.append(Fold(title, [Table(title, header, cells)]))
    lead = "Each arm by itself: mean over worlds and seeds, with intervals over seeds and questions."
    return Section("levels", "Accuracy and calibration", lead, [Plots(plots), *folds])


def _runs(cells: pl.DataFrame) -> Section:
    lead = "A point is one run: an arm on a world under a seed. How far seeds lie apart says what one run is worth."
    plots = []
    for split, chosen in _TESTS.items():
        rows = cells.filter(chosen, pl.col("metric") == _ACCURACY)
        rows = rows.sort(
            pl.col("value").mean().over("arm"), "arm", "world", "seed", descending=[True, False, False, False]
        )
        if rows.height:
            points = rows.select(
                name="arm",
                series=pl.format("world {}", "world"),
                value=100 * pl.col("value"),
                told=pl.format("seed {}", "seed"),
            )
            worlds = points["series"].unique(maintain_order=True).to_list()
            colors = dict(zip(worlds, SERIES * (1 + len(worlds) // len(SERIES)), strict=False))
            plots.append(
                Plot(f"runs_{split}", f"{SPLITS[split]} accuracy of each run", dots(points, "share right (%)", colors))
            )
    return Section("runs", "Seeds and worlds", lead, [Plots(plots)])


def _costs(figures: pl.DataFrame, labels: Mapping[str, str]) -> list[Section]:
    """Return what arms cost, which stands in the figures without a test."""
    own = figures.filter(pl.col("against").is_null(), pl.col("split").is_null())
    if own.is_empty():
        return []
    metrics = own["metric"].unique(maintain_order=True).to_list()
    rows: list[list[Cell]] = []
    for arm in own["arm"].unique(maintain_order=True):
        found = {row["metric"]: row["value"] for row in own.filter(pl.col("arm") == arm).to_dicts()}
        rows.append([arm, *(found.get(metric) for metric in metrics)])
    lead = "What it took to make each arm's model, mean over worlds and seeds."
    return [Section("costs", "Costs", lead, [Table("Costs", ["arm", *(labels[metric] for metric in metrics)], rows)])]


def _all(figures: pl.DataFrame, labels: Mapping[str, str], n_rows: int) -> Section:
    rows = []
    for row in figures.head(n_rows).to_dicts():
        against, split = row["against"], SPLITS.get(row["split"] or "", "")
        title = f"{row['arm']}{f' - {against}' if against else ''}: {split} {labels[row['metric']]}".replace(
            ":  ", ": "
        )
        details = [("interval", f"{row['low']:.4g} to {row['high']:.4g}")]
        details += [("p", f"{row['p']:.4g}, adjusted {row['p_adjusted']:.4g}")] if row["p"] is not None else []
        kind = f"against {against}" if against else "of the arm"
        rows.append(Row(title, kind, [float(f"{row['value']:.5g}"), row["p_adjusted"]], details))
    left = figures.height - len(rows)
    told = f"{left:,} of {figures.height:,} figures are left out; figures.parquet holds all." if left else ""
    table = Explorer("figures", "Figures", "Figure", ["value", "adjusted p"], rows, figures.height, told)
    return Section("figures", "Every figure", "All that the study measured, to search and sort.", [table])


def _arms(study: StudyConfig) -> Section:
    blocks: list[Block] = [Prose(f"Preset `{study.preset}`; in all arms `{' '.join(study.set) or 'nothing else'}`.")]
    rows: list[list[Cell]] = [[arm.name, arm.of, " ".join(arm.set) or "nothing else"] for arm in study.arms]
    worlds: list[list[Cell]] = [[world.name, str(world.reference_seed), " ".join(world.set)] for world in study.worlds]
    blocks += [
        Table("What each arm sets", ["arm", "contender", "settings"], rows),
        Table("Worlds", ["world", "seed of the reference world", "settings"], worlds),
    ]
    seeds = ", ".join(map(str, study.seeds))
    lead = f"Seeds {seeds}; margin {100 * study.margin:g} points; {study.n_resamples:,} resamples."
    return Section("arms", "Arms and worlds", lead, blocks)


def _points(rows: pl.DataFrame) -> pl.DataFrame:
    scale = 100 if rows["metric"][0] == _ACCURACY else 1
    scaled = (pl.col(name) * scale for name in ("value", "low", "high"))
    return rows.sort("value", descending=True).select(pl.col("arm").alias("name"), pl.lit("").alias("series"), *scaled)


def _labels(cells: pl.DataFrame) -> dict[str, str]:
    """Return what people call each metric: of costs, which no samples are of, their name."""
    metrics = cells.unique("metric", keep="first", maintain_order=True).select("metric", "k").rows()
    return {name: name.replace("_", " ") if k is None else metric_label(name, k) for name, k in metrics}


def _estimate(row: Mapping[str, Any] | None) -> Cell:
    if row is None:
        return None
    value, _, interval = _text(row).partition(" ")
    return Estimate(value, interval)


def _text(row: Mapping[str, Any]) -> str:
    return show_figure({**row, "model": " - ".join(filter(None, [row["arm"], row["against"]]))})


def _slug(name: str) -> str:
    return "-".join("".join(character if character.isalnum() else " " for character in name).split()).lower()
