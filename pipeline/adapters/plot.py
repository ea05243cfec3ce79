"""The course of a training as a picture."""

from collections.abc import Mapping
from typing import Any, Final

import polars as pl
from matplotlib.figure import Figure

from pipeline.plots import figure_png
from pipeline.store.artifact import Artifact

PANELS: Final = {
    "loss": "loss (nats per token)",
    "reward": "reward",
    "response_tokens": "response (tokens)",
    "clipped_share": "cut by the length limit (share)",
    "entropy": "entropy (nats per token)",
    "kl_to_base": "KL to base (nats per token)",
    "distinct_responses": "different responses (share)",
    "distinct_answers": "different answers (share)",
    "agreement": "agreement (share)",
}
"""What is drawn, where the objective has it."""
_N_COLUMNS: Final = 3
MARKS: Final = {"kept_step": "#009E73", "warned_at": "#CC79A7", "stopped_at": "#CC79A7"}
"""Notes that name a step, with their colours."""


def training_curve(adapter: Artifact) -> bytes | None:
    """Return the course of a training as PNG; none for an adapter that was not wanted."""
    log = adapter.read()
    return plot_training(log, adapter.name, adapter.manifest.notes) if log.height else None


def plot_training(log: pl.DataFrame, title: str, notes: Mapping[str, Any]) -> bytes:
    """Return a panel for each figure of a TRAINING_LOG over the steps as PNG, with the steps that ``notes`` name."""
    drawn = [column for column in PANELS if log[column].count()]
    marked = [name for name in MARKS if name in notes]
    n_rows = -(-len(drawn) // _N_COLUMNS)
    figure = Figure(figsize=(4 * _N_COLUMNS, 0.6 + 2 * n_rows), layout="constrained")
    panels = figure.subplots(n_rows, _N_COLUMNS, sharex=True, squeeze=False).flat
    for column, axes in zip(drawn, panels, strict=False):
        points = log.select("step", column).drop_nulls()
        dots = "." if points.height < log.height else ""  # not taken at every step
        axes.plot(points["step"], points[column], color="#0072B2", linewidth=1, marker=dots)
        axes.set_title(PANELS[column], fontsize="medium", loc="left")
        axes.tick_params(labelbottom=True)
        for name in marked:
            axes.axvline(notes[name], color=MARKS[name], linestyle="--", linewidth=1)
    for axes in list(panels):
        axes.set_visible(False)
    figure.suptitle(", ".join([title, *(f"{name.replace('_', ' ')} {notes[name]}" for name in marked)]))
    figure.supxlabel("optimizer step")
    return figure_png(figure)
