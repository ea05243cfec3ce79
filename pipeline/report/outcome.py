"""The chapters of a run's page on training and evaluation, and the verdict."""

from collections.abc import Mapping
from typing import Any, Final

import polars as pl

from pipeline.adapters.plot import MARKS, PANELS
from pipeline.evaluation.metrics import CONFIDENCES, HEADLINES, IN_DOMAIN, METRIC_NAMES, OUT_OF_DOMAIN
from pipeline.evaluation.report import CONFIDENCE_NAMES, SPLITS, metric_label, show_figure
from pipeline.predictions.contenders import CONTENDERS, DISTILLED, UNTOUCHED, compared, contender_of, in_order
from pipeline.report.blocks import (
    Block,
    Cell,
    Estimate,
    Fold,
    Mood,
    Plot,
    Plots,
    Prose,
    Remark,
    Section,
    Table,
    Tile,
    Tiles,
)
from pipeline.report.charts import SERIES, intervals, lines, reliability
from pipeline.report.curves import reliability_bins, risk_curve
from pipeline.report.shown import Shown

_HEADLINES: Final = (*HEADLINES, "ece_p_true", "brier_p_true")
"""Figures that people look at first; those of P(True) are there where ``predictions.p_true`` asked for it."""
_OWN_LOSS: Final = "loss"
"""The one figure of a training that objectives measure in units of their own."""


def colors_of(models: list[str]) -> dict[str, str]:
    """Return the colour of each model, of the style sheet; of a difference, that of the model beside the distilled."""
    return {model: SERIES[CONTENDERS.index(contender_of(_beside_distilled(model))) % len(SERIES)] for model in models}


def _beside_distilled(model: str) -> str:
    one, other = compared(model) or (model, "")
    return other if one == DISTILLED and other else one


def training(shown: Shown) -> Section:
    """Return the chapter on how adapters were trained."""
    lead = "How the training went, step by step. A vertical line marks where it was stopped, warned of, or kept from."
    blocks: list[Block] = []
    logs, marks, rows = [], [], []
    for contender in CONTENDERS:
        for name in contender.adapter:
            blocks += shown.missing(name)
            if (adapter := shown.find(name)) is None:
                continue
            notes, settings, log = adapter.manifest.notes, adapter.manifest.settings, adapter.read()
            label = contender.label or notes["label"]
            logs.append(log.with_columns(series=pl.lit(label)))
            marks += [
                {"x": notes[mark], "what": f"{label}: {mark.replace('_', ' ')}"} for mark in MARKS if mark in notes
            ]
            if "stopped_because" in notes:
                why = f"{label} was stopped at step {notes['stopped_at']}: {notes['stopped_because']}"
                blocks.append(Remark(f"{why}; step {notes['kept_step']} was kept.", "warning"))
            last = log.tail(1).to_dicts()[0] if log.height else {}
            told = [last.get(name) for name in ("step", "loss", "kl_to_base")]
            rows.append([label, notes["title"], notes["training_questions"], settings.get("learning_rate"), *told])
    if not logs:
        return Section("training", "Training", lead, blocks)
    header = ["model", "objective", "questions", "learning rate", "steps", "last loss (nats)", "last KL to base (nats)"]
    blocks.append(Table("What was trained", header, rows))
    return Section("training", "Training", lead, [*blocks, *_curves(pl.concat(logs), pl.DataFrame(marks))])


def _curves(logs: pl.DataFrame, marks: pl.DataFrame) -> list[Block]:
    """Return a picture for each figure that moves, and a line on those that do not."""
    colors = colors_of(logs["series"].unique(maintain_order=True).to_list())
    plots, still = [], []
    for column, title in PANELS.items():
        name, _, unit = title.rstrip(")").partition(" (")
        drawn = logs.select("step", column, "series").drop_nulls().filter(pl.col(column).is_finite())
        if drawn[column].n_unique() <= 1:
            still += [f"{name} {drawn[column][0]:g}"] if drawn.height else []
            continue
        parts = drawn.partition_by("series", maintain_order=True) if column == _OWN_LOSS else [drawn]
        for number, part in enumerate(parts):
            own = f" of {part['series'][0]}" if column == _OWN_LOSS else ""
            spec = lines(part, "optimizer step", unit or name, colors, marks)
            plots.append(Plot(f"{column}_{number}", f"{name[0].upper()}{name[1:]}{own}", spec))
    return [Plots(plots), *([Remark(f"The same at every step: {', '.join(still)}.")] if still else [])]


def evaluation(shown: Shown) -> Section:
    """Return the chapter on held-out questions."""
    lead = "All models on the same held-out questions, with 95 % bootstrap intervals. Only here are gold answers read."
    artifact = shown.find("evaluation")
    if artifact is None:
        missing = [block for contender in CONTENDERS for block in shown.missing(contender.predictions)]
        return Section("evaluation", "Evaluation", lead, [*shown.missing("evaluation"), *missing])
    level = shown.settings("evaluation").get("confidence_level", 0.95)
    lead = lead.replace("95 %", f"{100 * level:g} %")
    metrics, words = artifact.read("metrics"), report_sections((artifact.folder / "report.md").read_text("utf-8"))
    blocks: list[Block] = [Plots(_accuracies(metrics))]
    blocks.append(Plots(_calibration(artifact.read("predictions"))))
    further = tuple(name for name in METRIC_NAMES if name not in _HEADLINES)
    blocks.append(Fold("Further figures", [metrics_table(metrics, further, "Further figures")]))
    folded = {"How to read them": "How to read the figures", "Answers found": "Answers found", "Caveats": "Caveats"}
    blocks += [Fold(title, [Prose(words[key])]) for key, title in folded.items() if key in words]
    return Section("evaluation", "Evaluation", lead, blocks)


def report_sections(markdown: str) -> dict[str, str]:
    """Return the sections of an evaluation's report (``write_report``) by their titles."""
    parts = [part.partition("\n") for part in f"\n{markdown}".split("\n## ")[1:]]
    return {title.strip(): text.strip() for title, _, text in parts}


def _accuracies(metrics: pl.DataFrame) -> list[Plot]:
    models = [model for model in metrics["model"].unique(maintain_order=True) if not compared(model)]
    gaps = [model for model in metrics["model"].unique(maintain_order=True) if compared(model)]
    plots = [Plot("accuracy", "Accuracy", intervals(_points(metrics, models), "share right (%)", colors_of(models)))]
    if gaps:
        spec = intervals(_points(metrics, gaps), "points", colors_of(gaps), zero=True)
        plots.append(
            Plot("gaps", "Differences", spec, "Paired: the same questions. An interval off zero is a difference.")
        )
    return plots


def _points(metrics: pl.DataFrame, models: list[str]) -> pl.DataFrame:
    rows = metrics.filter(pl.col("model").is_in(models) & pl.col("metric").is_in(["avg_at_k", "maj_at_k"]))
    names = {"avg_at_k": "Avg", "maj_at_k": "Maj"}
    return pl.DataFrame(
        [
            {
                "name": f"{SPLITS.get(row['split'], row['split'])}, {names[row['metric']]}@{row['k']}",
                "series": row["model"],
            }
            | {key: 100 * row[key] for key in ("value", "low", "high")}
            for row in rows.sort("split", "metric", maintain_order=True).to_dicts()
        ]
    )


def _calibration(predictions: pl.DataFrame) -> list[Plot]:
    plots = []
    for split in (name for name in (IN_DOMAIN, OUT_OF_DOMAIN) if name in set(predictions["split"])):
        test = predictions.filter(pl.col("split") == split)
        for kind, label in CONFIDENCE_NAMES.items():
            table = CONFIDENCES[kind](test)
            if table.is_empty():
                continue
            models = in_order(table["model"])
            told = f"{table['id'].n_unique():,} questions. The larger a point, the more questions in its bin."
            bins = pl.concat([reliability_bins(table.filter(pl.col("model") == model), model) for model in models])
            plots.append(
                Plot(
                    f"reliability_{split}_{kind}",
                    f"{SPLITS[split]} reliability, {label}",
                    reliability(bins, colors_of(models)),
                    told,
                )
            )
            if split == IN_DOMAIN:
                curves = pl.concat([risk_curve(table.filter(pl.col("model") == model), model) for model in models])
                spec = lines(curves, "coverage", "share wrong", colors_of(models), is_share=True)
                told = "Coverage: the share of the questions that is answered, the surest first."
                plots.append(Plot(f"risk_{kind}", f"{SPLITS[split]} risk and coverage, {label}", spec, told))
    return plots


def metrics_table(metrics: pl.DataFrame, names: tuple[str, ...], caption: str) -> Table:
    """Return figures as ``pipeline.evaluation.report.render_table`` does: a row a figure, a column a model."""
    models = metrics["model"].unique(maintain_order=True).to_list()
    models.sort(key=lambda model: compared(model) is not None)
    rows: list[list[Cell]] = []
    for split in metrics["split"].unique(maintain_order=True):
        for name in names:
            found = {row["model"]: row for row in metrics.filter(split=split, metric=name).to_dicts()}
            if found:
                first = next(iter(found.values()))
                cells = [_estimate(found.get(model)) for model in models]
                questions = max(row["n"] for row in found.values())
                rows.append([f"{SPLITS.get(split, split)} {metric_label(name, first['k'])}", *cells, questions])
    return Table(caption, ["", *models, "n"], rows)


def _estimate(row: Mapping[str, Any] | None) -> Cell:
    if row is None:
        return None
    value, _, interval = show_figure(row).partition(" ")
    return Estimate(value, interval)


def verdict(metrics: pl.DataFrame | None, lift: str) -> str:
    """Return in a paragraph what the run came to; ``lift`` is what was said before the training."""
    if metrics is None:
        return "This run has no evaluation yet: what is here is how far it has come. " + (
            f"Lift: {lift}" if lift else ""
        )
    own = {row["split"]: row for row in metrics.filter(model=DISTILLED, metric="avg_at_k").to_dicts()}
    sentences = []
    for split, row in own.items():
        told = f"{SPLITS[split]}, the distilled model answers {100 * row['value']:.1f} % of {row['n']} questions right"
        gaps = [_gap(metrics, split, "avg_at_k", other) for other in _others(metrics)]
        sentences.append(f"{told}: {' and '.join(gap for gap in gaps if gap)}." if any(gaps) else f"{told}.")
    for split in own:
        ece = "ece_option" if metrics.filter(split=split, metric="ece_option").height else "ece_vote"
        if gap := _gap(metrics, split, ece, UNTOUCHED):
            kind = "option probability" if ece == "ece_option" else "vote share"
            sentences.append(f"Its calibration error {SPLITS[split].lower()} (ECE by {kind}) is {gap}.")
    return " ".join(sentences) or "The untouched model alone was evaluated: there is nothing to compare."


def _others(metrics: pl.DataFrame) -> list[str]:
    pairs = [compared(model) for model in metrics["model"].unique(maintain_order=True)]
    return [pair[1] for pair in pairs if pair and pair[0] == DISTILLED]


def _gap(metrics: pl.DataFrame, split: str, metric: str, other: str) -> str:
    found = metrics.filter(model=f"{DISTILLED} - {other}", split=split, metric=metric).to_dicts()
    if not found:
        return ""
    row = found[0]
    is_share = metric == "avg_at_k"
    amount = f"{100 * abs(row['value']):.1f} points" if is_share else f"{abs(row['value']):.3f}"
    interval = show_figure(row).partition(" ")[2]
    if row["low"] <= 0 <= row["high"]:
        return f"no different from {other} as far as these questions can tell {interval}"
    more, less = ("more", "fewer") if is_share else ("above", "below")
    word = more if row["value"] > 0 else less
    return f"{amount} {word} than {other} {interval}" if is_share else f"{amount} {word} {other} {interval}"


def headline(metrics: pl.DataFrame) -> list[Block]:
    """Return the figures that people look at first."""
    tiles = []
    for split in metrics["split"].unique(maintain_order=True):
        for name, good in (("avg_at_k", 1), ("ece_option", -1)):
            rows = {row["model"]: row for row in metrics.filter(split=split, metric=name).to_dicts()}
            gap = rows.get(f"{DISTILLED} - {UNTOUCHED}")
            if DISTILLED in rows and gap:
                value, before = (show_figure(rows[model]).partition(" ")[0] for model in (DISTILLED, UNTOUCHED))
                clear = gap["low"] > 0 or gap["high"] < 0
                mood: Mood = ("good" if gap["value"] * good > 0 else "bad") if clear else ""
                unit, what = (
                    (" %", f"accuracy, Avg@{gap['k']}") if name == "avg_at_k" else ("", "calibration error (ECE)")
                )
                label = f"{SPLITS.get(split, split)} {what}"
                tiles.append(Tile(label, f"{value}{unit}", f"untouched {before}{unit}; {show_figure(gap)}", mood))
    return [
        *([Tiles(tiles)] if tiles else []),
        metrics_table(metrics, _HEADLINES, "Held-out questions; differences are paired"),
    ]
