"""What a study tells people: tables for each claim, and pictures."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import polars as pl
from matplotlib.figure import Figure

from pipeline.evaluation.metrics import IN_DOMAIN, OUT_OF_DOMAIN
from pipeline.markdown import markdown_table
from pipeline.plots import figure_png
from pipeline.study.config import StudyConfig

_SPLITS: Final = {IN_DOMAIN: "in-domain", OUT_OF_DOMAIN: "out of domain"}
_SHARES: Final = frozenset({"avg_at_k", "maj_at_k", "pass_at_half", "pass_at_k", "agreement", "abstention"})
_COLUMNS: Final = {
    "Accuracy": ("avg_at_k", "maj_at_k", "pass_at_k"),
    "Calibration by option probability": (
        "ece_option",
        "ece_calibrated_option",
        "overconfidence_option",
        "brier_option",
        "auroc_option",
    ),
    "Calibration by vote share": ("ece_vote", "ece_calibrated_vote", "overconfidence_vote", "brier_vote", "auroc_vote"),
    "Without gold": ("agreement", "abstention"),
}
"""Metrics of each table."""


def write_report(study: StudyConfig, figures: pl.DataFrame, failed: Mapping[str, str], command: str) -> str:
    """Return the report as Markdown; ``failed`` says of each cell that is missing what went wrong."""
    counts = figures.group_by("split", maintain_order=True).agg(pl.col("n").max())
    sizes = ", ".join(f"{count} questions {_SPLITS[split]}" for split, count in counts.iter_rows())
    intro = (
        f"{study.title}\n\n{len(study.worlds)} worlds ({', '.join(world.name for world in study.worlds)}), seeds "
        f"{', '.join(map(str, study.seeds))}; {sizes}, of all worlds. Brackets are {study.confidence_level:.0%} "
        "bootstrap intervals over seeds and questions, within worlds; differences are paired by world, seed and "
        "question. p-values are adjusted for all differences of a metric and test (Benjamini and Yekutieli). "
        f"*Kept*: two one-sided tests put the difference out of domain within {100 * study.margin:g} points.\n\n"
        f"```\n{command}\n```"
    )
    parts = [f"# {study.name}", intro]
    for other in study.against:
        parts += [f"## Against {other}", _differences(figures, other)]
    for title, metrics in _COLUMNS.items():
        parts += [f"## {title}", _levels(figures, metrics)]
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


def _differences(figures: pl.DataFrame, other: str) -> str:
    gaps = figures.filter(pl.col("against") == other)
    rows = []
    for arm in gaps["arm"].unique(maintain_order=True):
        of_arm = {(row["split"], row["metric"]): row for row in gaps.filter(pl.col("arm") == arm).to_dicts()}
        inside, outside = (of_arm.get((split, "avg_at_k")) for split in (IN_DOMAIN, OUT_OF_DOMAIN))
        confidence = next((c for c in ("option", "vote") if (IN_DOMAIN, f"ece_{c}") in of_arm), "vote")
        row = {
            "arm": arm,
            "in-domain": _shown(inside, signed=True),
            "p": "-" if inside is None else f"{inside['p_adjusted']:.3f}",
            "out of domain": _shown(outside, signed=True),
            f"ECE ({confidence})": _shown(of_arm.get((IN_DOMAIN, f"ece_{confidence}")), signed=True),
            "surer than right by": _shown(of_arm.get((IN_DOMAIN, f"overconfidence_{confidence}")), signed=True),
        }
        if outside and outside["is_equivalent"] is not None:
            row["kept"] = "yes" if outside["is_equivalent"] else "lost" if outside["high"] < 0 else "cannot tell"
        rows.append(row)
    return markdown_table(pl.DataFrame(rows)) if rows else "Nothing to compare."


def _levels(figures: pl.DataFrame, metrics: Sequence[str]) -> str:
    own = figures.filter(pl.col("against").is_null())
    rows = []
    for arm in own["arm"].unique(maintain_order=True):
        found = {(row["split"], row["metric"]): row for row in own.filter(pl.col("arm") == arm).to_dicts()}
        cells = {
            f"{_SPLITS[split]} {metric.removesuffix('_option').removesuffix('_vote')}": _shown(
                found.get((split, metric))
            )
            for split in own["split"].unique(maintain_order=True)
            for metric in metrics
        }
        rows.append({"arm": arm, **cells})
    return markdown_table(pl.DataFrame(rows))


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
