"""What evaluation tells people: the table of figures, the reliability diagram and the written report."""

import json
from collections.abc import Iterable, Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.errors import CurationError
from pipeline.evaluation.calibration import N_BINS, bin_index, expected_calibration_error
from pipeline.evaluation.confidence import option_confidence, vote_confidence
from pipeline.evaluation.measures import FLOOR
from pipeline.evaluation.metrics import HEADLINES, IN_DOMAIN, METRIC_NAMES, OUT_OF_DOMAIN
from pipeline.plots import figure_png
from pipeline.predictions.contenders import compared, contender_of, in_order

CONFIDENCE_NAMES = {"option": "option probability", "vote": "vote share", "p_true": "P(True)"}
"""What people call the confidences of ``pipeline.evaluation.metrics.CONFIDENCES``."""
_LABELS = {
    "avg_at_k": "accuracy (Avg@{k}), %",
    "maj_at_k": "majority accuracy (Maj@{k}), %",
    "ece_option": "ECE, option probability, mean over samples",
    "ece_vote": "ECE, vote share",
    "brier_option": "Brier, option probability, mean over samples",
    "brier_vote": "Brier, vote share",
    "pass_at_half": "pass@{half}, %",
    "pass_at_k": "pass@{k}, %",
    "agreement": "vote share of the leading answer, mean",
    "abstention": "samples without an answer, share",
    "ece_p_true": "ECE, P(True)",
    "brier_p_true": "Brier, P(True)",
} | {
    f"{name}_{kind}": f"{label}, {confidence}"
    for kind, confidence in CONFIDENCE_NAMES.items()
    for name, label in {
        "overconfidence": "confidence - share right",
        "ece_mass": "ECE, bins of equal numbers",
        "ece_calibrated": "ECE of a perfectly calibrated model",
        "mce": "largest calibration error of a bin",
        "reliability": "Brier: reliability",
        "resolution": "Brier: resolution",
        "uncertainty": "Brier: uncertainty",
        "nll": "NLL (nats)",
        "auroc": "AUROC of right answers",
        "aurc": "area under risk and coverage",
    }.items()
}
SPLITS = {IN_DOMAIN: "In-domain", OUT_OF_DOMAIN: "Out-of-domain"}
"""What people call the tests."""
_MISSING = "-"
_METHOD = f"""\
Each figure is followed by its percentile bootstrap interval in brackets: questions are resampled with all their
samples, so that samples of one question do not count as independent. A difference is taken on the same resampled
questions; it is the figure to judge by, since both models answered the same questions.

{{models}}
- Avg@k: mean over questions of the share of right samples. Maj@k: whether the leading answer of k samples is right; a
  tie counts as the share of the tied answers that are right. Samples without an answer are wrong.
- ECE: expected calibration error, {N_BINS} equal-width bins, the last one closed. Brier: mean squared difference of
  confidence and outcome; both per question. *Option probability, mean over samples*: where a sample states its answer
  it gives each option a probability; the confidence is that of the leading option, averaged over the samples. Samples
  whose statement tells none are left out. *Vote share*: the share of the k samples that give the leading answer. In a
  tie of leaders the outcome is the share of them that are right. *P(True)*, where `predictions.p_true` asks for it: the
  probability of Yes when the model is asked whether its majority answer is right; ties are left out.
- *ECE of a perfectly calibrated model*: what remains of ECE at this number of questions where outcomes are drawn with
  the confidences as probabilities; its interval holds most of the draws. An ECE inside it is as good as can be told.
- pass@j: chance that one of j samples is right (unbiased). *Confidence - share right*: above zero the model is surer
  than it should be. Brier = reliability - resolution + uncertainty, but for what confidences of one bin differ. NLL:
  probabilities below {FLOOR:g} count as that. AUROC: chance that a right answer is the surer one of a right and a wrong
  one. Risk and coverage: share wrong among the surest questions, averaged over how many of them are taken.
- *Vote share of the leading answer* and *samples without an answer* need no gold."""
_CAVEATS = """\
- The intervals cover the choice of questions and the sampling of answers, not the randomness of training: another
  training seed gives other models.
- ECE is positive even for a perfectly calibrated model and grows as questions become fewer; resamples repeat
  questions, which shifts its interval upwards. Compare it between models on the same questions only.
- No correction is made for looking at several figures."""


def render_table(metrics: pl.DataFrame, names: Sequence[str] = HEADLINES) -> str:
    """Return the METRICS rows of these names as an aligned Markdown table: rows are tests and metrics, columns models.

    Accuracies are in percent with one decimal, ECE and Brier with three. Figures that were not computed show "-".
    """
    models = metrics["model"].unique(maintain_order=True).to_list()
    models.sort(key=lambda model: compared(model) is not None)  # stable: differences last
    rows = [["", *models, "n"]]
    for split in metrics["split"].unique(maintain_order=True):
        for name in names:
            found = metrics.filter((pl.col("split") == split) & (pl.col("metric") == name))
            if len(found):
                cells = {row["model"]: show_figure(row) for row in found.to_dicts()}
                label = f"{SPLITS.get(split, split)} {metric_label(name, found['k'][0])}"
                rows.append([label, *(cells.get(model, _MISSING) for model in models), str(found["n"].max())])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    )


def reliability_diagram(predictions: pl.DataFrame) -> bytes:
    """Return, as PNG, accuracy against confidence on the in-domain test, one line per model.

    Points are the bins of the calibration error, their area the share of questions. The confidence is the option
    probability if all models have it, else the vote share. Raises CurationError without in-domain predictions.
    """
    test = predictions.filter(pl.col("split") == IN_DOMAIN)
    models = in_order(test["model"])
    if not models:
        raise CurationError(f"reliability diagram: no '{IN_DOMAIN}' predictions: grade a model first")
    table, confidence = option_confidence(test), "option probability, mean over samples"
    if not set(models) <= set(table["model"]):
        table, confidence = vote_confidence(test), "vote share"
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1, label="perfect calibration")
    for model in models:
        _draw_bins(axes, table.filter(pl.col("model") == model), model)
    axes.set(
        xlabel=f"confidence: {confidence}",
        ylabel="share right",
        title=f"In-domain reliability, {test['id'].n_unique()} questions",
        xlim=(-0.03, 1.03),
        ylim=(-0.03, 1.03),
    )
    axes.legend(loc="upper left")
    return figure_png(figure)


def write_report(
    metrics: pl.DataFrame, predictions: pl.DataFrame, provenance: Mapping[str, Any], methods: Mapping[str, str]
) -> str:
    """Return the report as Markdown that stands on its own.

    Args:
        metrics: rows of schema METRICS.
        predictions: the rows of schema PREDICTIONS that they summarise.
        provenance: what determined the figures, printed as it is (config section, model and data digests);
            ``command`` is the command that makes them again, ``lift`` what was said before the training.
        methods: how each model that has an adapter was trained, by what it is called.
    """
    command = provenance.get("command")
    facts = [f"- {key}: {_plain(value)}" for key, value in provenance.items() if key not in ("command", "lift")]
    sizes = [
        f"- {SPLITS.get(split, split)}: n = {n} questions, k = {k} samples each, seed {seed}"
        for split, n, k, seed in metrics.group_by("split", maintain_order=True)
        .agg(pl.col("n").max(), pl.col("k").first(), pl.col("seed").first())
        .iter_rows()
    ]
    verdicts = _verdicts(metrics)
    if "lift" in provenance:
        verdicts.append(f"- Worked examples, tried without gold before the training: {provenance['lift']}")
    sections = {
        "Result": "\n".join(verdicts),
        "Figures": render_table(metrics),
        "How to read them": _METHOD.format(models=_describe(in_order(predictions["model"]), methods)),
        "Further figures": render_table(metrics, METRIC_NAMES[len(HEADLINES) :]),
        "Answers found": _answers_table(predictions),
        "Caveats": _CAVEATS,
        "How to reproduce": "\n".join([*sizes, *facts]) + (f"\n\n```\n{command}\n```" if command else ""),
    }
    return "# Evaluation report\n\n" + "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items()) + "\n"


def _draw_bins(axes: Axes, table: pl.DataFrame, model: str) -> None:
    confidence, correct = table["confidence"].to_numpy(), table["correct"].to_numpy()
    bins = bin_index(confidence)
    counts = np.bincount(bins, minlength=N_BINS)
    filled = counts > 0
    x, y = (np.bincount(bins, weights=of, minlength=N_BINS)[filled] / counts[filled] for of in (confidence, correct))
    color, marker = contender_of(model).color, contender_of(model).marker
    label = f"{model}, ECE {expected_calibration_error(confidence, correct):.3f}"
    axes.plot(x, y, color=color, linewidth=1)
    axes.scatter(x, y, s=10 + 300 * counts[filled] / counts.sum(), color=color, marker=marker, alpha=0.7, label=label)


def metric_label(name: str, k: int) -> str:
    """Return what people call a metric of k samples per question."""
    return _LABELS[name].format(k=k, half=-(-k // 2))


def show_figure(row: Mapping[str, Any]) -> str:
    """Return value and interval of a row of schema METRICS, accuracies in percent."""
    scale, decimals = (100, 1) if row["metric"].endswith(("_at_k", "_at_half")) else (1, 3)
    sign = "+" if compared(row["model"]) else ""
    value, low, high = (f"{scale * row[key]:{sign}z.{decimals}f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _verdicts(metrics: pl.DataFrame) -> list[str]:
    """Return one sentence per comparison and test for accuracy and for calibration (by options if they have it)."""
    lines = []
    pairs = {name: pair for name in metrics["model"].unique(maintain_order=True) if (pair := compared(name))}
    for difference, (one, other) in pairs.items():
        figures = metrics.filter(pl.col("model") == difference)
        for split in figures["split"].unique(maintain_order=True):
            rows = {row["metric"]: row for row in figures.filter(pl.col("split") == split).to_dicts()}
            for name in ("avg_at_k", "ece_option" if "ece_option" in rows else "ece_vote"):
                row = rows[name]
                label = f"{SPLITS.get(split, split)} {metric_label(name, row['k'])}"
                lines.append(f"- {label}: {_verdict(row, one, other)}")
    return lines or ["No comparison: the table does not hold two models on the same questions."]


def _verdict(row: Mapping[str, Any], one: str, other: str) -> str:
    if row["low"] <= 0 <= row["high"]:
        outcome, sure = f"{one} and {other} show no difference that these questions could tell from chance", "includes"
    else:
        outcome, sure = f"{one} is {'above' if row['value'] > 0 else 'below'} {other}", "excludes"
    return f"{outcome}; difference {show_figure(row)}, which {sure} zero."


def _describe(models: Iterable[str], methods: Mapping[str, str]) -> str:
    """Return an item of a list for each model: what it is, and how it was trained."""
    items = []
    for model in models:
        trained = f": {methods[model]}" if model in methods else "."
        item = f"- *{model}*, {contender_of(model).described}{trained}"
        items.append(fill(item, 120, subsequent_indent="  ", break_on_hyphens=False))
    return "\n".join(items)


def _answers_table(predictions: pl.DataFrame) -> str:
    shares = predictions.group_by("split", "model", maintain_order=True).agg(
        pl.col("answer").is_not_null().mean(), pl.col("option_probs").is_not_null().mean().alias("judged")
    )
    lines = ["| test | model | samples with an answer, % | samples with option probabilities, % |", "|---|---|---|---|"]
    for split, model, answered, judged in shares.iter_rows():
        lines.append(f"| {SPLITS.get(split, split)} | {model} | {100 * answered:.1f} | {100 * judged:.1f} |")
    return "\n".join(lines)


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
