"""What a study tells people: tables for each claim, and pictures."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import polars as pl
from matplotlib.figure import Figure

from pipeline.evaluation.metrics import IN_DOMAIN, OUT_OF_DOMAIN
from pipeline.evaluation.report import CONFIDENCE_NAMES
from pipeline.markdown import markdown_table
from pipeline.plots import figure_png
from pipeline.study.config import StudyConfig
from pipeline.study.costs import AMOUNTS, TRAINING

_SPLITS: Final = {IN_DOMAIN: "in-domain", OUT_OF_DOMAIN: "out of domain"}
_SHARES: Final = frozenset({"avg_at_k", "maj_at_k", "pass_at_half", "pass_at_k", "agreement", "abstention"})
_METRICS: Final = {
    "avg_at_k": "Avg@k",
    "maj_at_k": "Maj@k",
    "pass_at_k": "pass@k",
    "ece": "ECE",
    "ece_calibrated": "ECE if calibrated",
    "overconfidence": "confidence - share right",
    "brier": "Brier",
    "auroc": "AUROC",
}
_COLUMNS: Final = {
    "Accuracy": ("avg_at_k", "maj_at_k", "pass_at_k"),
    **{
        f"Calibration by {confidence}": tuple(
            f"{name}_{kind}" for name in ("ece", "ece_calibrated", "overconfidence", "brier", "auroc")
        )
        for kind, confidence in CONFIDENCE_NAMES.items()
    },
    "Without gold": ("agreement", "abstention"),
}
"""Metrics of each table of levels."""
_AMOUNTS: Final = {
    "processor_seconds": "processor s",
    "seconds": "seconds",
    "read_tokens": "tokens read",
    "generated_tokens": "generated",
    "trained_tokens": "trained on",
}
_SURENESS: Final = (
    "Confidence minus share right, in domain: above zero a model is surer than it is right. Its expected calibration "
    "error, beside that of a perfectly calibrated model, its Brier score and its AUROC stand below, of both tests."
)
_COSTS: Final = (
    "What it took to make each model, mean over worlds and seeds; in parentheses the training alone. A stage that arms "
    "share counts for each of them, as it was first made, and so do the stages of the chain whose result an arm does "
    "not use. Asking the tests is left out. Seconds are those of cells side by side on one machine."
)
_Rows = dict[tuple[str | None, str], dict[str, Any]]


def write_report(study: StudyConfig, figures: pl.DataFrame, failed: Mapping[str, str], command: str) -> str:
    """Return the report as Markdown; ``failed`` says of each cell that is missing what went wrong."""
    counts = figures.drop_nulls("split").group_by("split", maintain_order=True).agg(pl.col("n").max())
    sizes = ", ".join(f"{count} questions {_SPLITS[split]}" for split, count in counts.iter_rows())
    intro = (
        f"{study.title}\n\n{len(study.worlds)} worlds ({', '.join(world.name for world in study.worlds)}), seeds "
        f"{', '.join(map(str, study.seeds))}; {sizes}, of all worlds. Brackets are {study.confidence_level:.0%} "
        "bootstrap intervals over seeds and questions, within worlds; differences are paired by world, seed and "
        "question. p-values are adjusted for all differences of a metric and test (Benjamini and Yekutieli). "
        f"*Better*: an adjusted p-value below {1 - study.confidence_level:.2g}. *Kept*: two one-sided tests put the "
        f"difference out of domain within {100 * study.margin:g} points. All figures stand in `figures.parquet`, those "
        "of each run in `cells.parquet`.\n\n"
        f"```\n{command}\n```"
    )
    first, cheap = study.against[0], study.against[1:]
    level = 1 - study.confidence_level
    parts = [f"# {study.name}", intro]
    parts += [f"## Better in its domain than {first}?", _gains(figures, first, level, is_cheap=False)]
    parts += ["## The rest kept?", _kept(figures, first)]
    parts += ["## Surer than it should be?", _SURENESS, _sureness(figures, first)]
    for other in cheap:
        parts += [f"## Better than {other}?", _gains(figures, other, level, is_cheap=True)]
    measured = set(figures.drop_nulls("value").filter(pl.col("value").is_finite())["metric"])
    for title, metrics in ((title, metrics) for title, metrics in _COLUMNS.items() if measured & set(metrics)):
        parts += [f"## {title}", _levels(figures, metrics)]
    if figures["split"].null_count():
        parts += ["## Cost", _COSTS, _costs(figures)]
    parts += ["## Arms", _arms(study)]
    if failed:
        parts += ["## Missing", "\n".join(f"- {cell}: {reason}" for cell, reason in failed.items())]
    return "\n\n".join(parts) + "\n"


def forest(study: StudyConfig, figures: pl.DataFrame) -> bytes:
    """Return the differences of accuracy from the first arm compared with, in and out of domain, as PNG."""
    other = study.against[0]
    gaps = figures.filter((pl.col("against") == other) & (pl.col("metric") == "avg_at_k"))
    splits = gaps["split"].unique(maintain_order=True).to_list()
    arms = gaps["arm"].unique(maintain_order=True).to_list()[::-1]
    figure = Figure(figsize=(4.5 * max(1, len(splits)), 1.2 + 0.3 * len(arms)), layout="constrained")
    for axes, split in zip(
        figure.subplots(1, max(1, len(splits)), sharey=True, squeeze=False)[0], splits, strict=False
    ):
        rows = {row["arm"]: row for row in gaps.filter(pl.col("split") == split).to_dicts()}
        axes.axvline(0, color="0.6", linewidth=1)
        if split == OUT_OF_DOMAIN:
            axes.axvspan(-100 * study.margin, 100 * study.margin, color="0.92")
        for place, arm in enumerate(arms):
            value, low, high = (100 * rows[arm][name] for name in ("value", "low", "high"))
            axes.errorbar(value, place, xerr=[[value - low], [high - value]], fmt="o", color="#0072B2", capsize=2)
        axes.set(title=_SPLITS[split], xlabel=f"Avg@k against {other} (points)")
        axes.set_yticks(range(len(arms)), arms)
    return figure_png(figure)


def _gains(figures: pl.DataFrame, other: str, level: float, is_cheap: bool) -> str:
    """Return whether each arm is better in domain than another, and of a cheap one what it differs in besides."""
    rows = []
    for arm, own, gap in _by_arm(figures, other):
        inside = gap.get((IN_DOMAIN, "avg_at_k"))
        row = {
            "arm": arm,
            "Avg@k": _shown(own.get((IN_DOMAIN, "avg_at_k"))),
            "difference": _shown(inside, signed=True),
            "p": _shown_p(inside),
            "better": _judged(inside, level),
        }
        if is_cheap:
            kind = next((kind for kind in CONFIDENCE_NAMES if (IN_DOMAIN, f"ece_{kind}") in gap), "vote")
            row |= {
                "out of domain": _shown(gap.get((OUT_OF_DOMAIN, "avg_at_k")), signed=True),
                f"ECE ({kind})": _shown(gap.get((IN_DOMAIN, f"ece_{kind}")), signed=True),
                "surer than right by": _shown(gap.get((IN_DOMAIN, f"overconfidence_{kind}")), signed=True),
            }
        rows.append(row)
    return _table(rows)


def _kept(figures: pl.DataFrame, first: str) -> str:
    rows = []
    for arm, own, gap in _by_arm(figures, first):
        outside = gap.get((OUT_OF_DOMAIN, "avg_at_k"))
        row = {"arm": arm, "out of domain": _shown(own.get((OUT_OF_DOMAIN, "avg_at_k")))}
        row |= {"difference": _shown(outside, signed=True), "p": _shown_p(outside)}
        if outside and outside["is_equivalent"] is not None:
            row["kept"] = "yes" if outside["is_equivalent"] else "lost" if outside["high"] < 0 else "cannot tell"
        rows.append(row)
    return _table(rows)


def _sureness(figures: pl.DataFrame, first: str) -> str:
    rows = []
    arms = figures["arm"].unique(maintain_order=True)
    gaps = {arm: gap for arm, _, gap in _by_arm(figures, first)}
    for arm in arms:
        row = {"arm": arm}
        own = _keyed(figures.filter(pl.col("arm") == arm, pl.col("against").is_null()))
        for kind, name in CONFIDENCE_NAMES.items():
            key = (IN_DOMAIN, f"overconfidence_{kind}")
            if found := own.get(key):
                row[name] = _shown(found, signed=True)
                row[f"{name}, against {first}"] = _shown(gaps.get(arm, {}).get(key), signed=True)
                row[f"{name}: surer"] = "yes" if found["low"] > 0 else "no" if found["high"] < 0 else "cannot tell"
        rows.append(row)
    return _table(rows)


def _costs(figures: pl.DataFrame) -> str:
    rows = []
    for arm in figures["arm"].unique(maintain_order=True):
        own = _keyed(figures.filter(pl.col("arm") == arm, pl.col("against").is_null()))
        found = {name: [own.get((None, f"{prefix}{name}")) for prefix in ("", TRAINING)] for name in AMOUNTS}
        if all(row for pair in found.values() for row in pair):
            cells = {
                _AMOUNTS[name]: "{:,.0f} ({:,.0f})".format(*(row["value"] for row in pair if row))
                for name, pair in found.items()
            }
            rows.append({"arm": arm, **cells})
    return _table(rows)


def _by_arm(figures: pl.DataFrame, other: str) -> Iterator[tuple[str, _Rows, _Rows]]:
    """Yield each arm that is compared with another, its own figures and the differences, by split and metric."""
    gaps = figures.filter(pl.col("against") == other)
    own = figures.filter(pl.col("against").is_null())
    for arm in gaps["arm"].unique(maintain_order=True):
        is_arm = pl.col("arm") == arm
        yield arm, _keyed(own.filter(is_arm)), _keyed(gaps.filter(is_arm))


def _keyed(rows: pl.DataFrame) -> _Rows:
    return {(row["split"], row["metric"]): row for row in rows.to_dicts()}


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    return markdown_table(pl.DataFrame(rows).fill_null("-")) if rows else "Nothing to compare."


def _judged(row: Mapping[str, Any] | None, level: float) -> str:
    """Return in a word what a difference is, by its adjusted p-value."""
    if row is None:
        return "-"
    return "cannot tell" if row["p_adjusted"] >= level else "yes" if row["value"] > 0 else "worse"


def _shown_p(row: Mapping[str, Any] | None) -> str:
    return "-" if row is None else f"{row['p_adjusted']:.3f}"


def _levels(figures: pl.DataFrame, metrics: Sequence[str]) -> str:
    own = figures.filter(pl.col("against").is_null()).drop_nulls("split")
    rows = []
    for arm in own["arm"].unique(maintain_order=True):
        found = {(row["split"], row["metric"]): row for row in own.filter(pl.col("arm") == arm).to_dicts()}
        cells = {
            f"{_SPLITS[split]} {_named(metric)}": _shown(found.get((split, metric)))
            for split in own["split"].unique(maintain_order=True)
            for metric in metrics
        }
        rows.append({"arm": arm, **cells})
    return markdown_table(pl.DataFrame(rows))


def _named(metric: str) -> str:
    kind = next((kind for kind in CONFIDENCE_NAMES if metric.endswith(f"_{kind}")), "")
    name = metric.removesuffix(f"_{kind}")
    return _METRICS.get(name, name)


def _arms(study: StudyConfig) -> str:
    common = f"Preset `{study.preset}`, and in all arms `{' '.join(study.set) or 'nothing else'}`."
    lines = [f"- {arm.name} ({arm.of}): `{' '.join(arm.set) or 'nothing else'}`" for arm in study.arms]
    return "\n".join([common, "", *lines])


def _shown(row: Mapping[str, Any] | None, signed: bool = False) -> str:
    if row is None:
        return "-"
    scale, decimals = (100, 1) if row["metric"] in _SHARES else (1, 3)
    sign = "+" if signed else ""
    value, low, high = (f"{scale * row[name]:{sign}.{decimals}f}" for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"
