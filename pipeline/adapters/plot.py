"""The training curve as a picture."""

import polars as pl
from matplotlib.figure import Figure

from pipeline.plots import figure_png
from pipeline.store.artifact import Artifact


def training_curve(adapter: Artifact) -> bytes | None:
    """Return loss and response length over the steps as PNG; none for an adapter that was not wanted."""
    log = adapter.read()
    return plot_training(log, adapter.name) if log.height else None


def plot_training(log: pl.DataFrame, title: str) -> bytes:
    """Return loss and response length over the steps of a TRAINING_LOG as PNG."""
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    upper.plot(log["step"], log["loss"], color="#0072B2", linewidth=1)
    upper.set(title=title, ylabel="loss (nats per token)")
    lower.plot(log["step"], log["response_tokens"], color="#D55E00", linewidth=1)
    lower.set(xlabel="optimizer step", ylabel="response (tokens)")
    return figure_png(figure)
