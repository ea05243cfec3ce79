"""Small figures as PNG bytes for reports and asset metadata; the same data give the same bytes."""

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

_N_BINS = 30


def figure_png(figure: Figure) -> bytes:
    """Return the figure as PNG, without the version stamp that would change its bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    return buffer.getvalue()


def scatter(x: npt.ArrayLike, y: npt.ArrayLike, title: str, xlabel: str, ylabel: str) -> bytes:
    """Return points over the line y = x as PNG; the title says how many there are."""
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.axline((0, 0), slope=1, color="#999999", linewidth=1, label="y = x")
    axes.scatter(x, y, s=12, color="#0072B2", alpha=0.6, linewidths=0)
    axes.legend(frameon=False)
    axes.set(title=f"{title} (n = {np.size(x)})", xlabel=xlabel, ylabel=ylabel)
    return figure_png(figure)


def histogram(values: Sequence[float] | npt.ArrayLike, title: str, xlabel: str) -> bytes:
    """Return a histogram of the finite values as PNG; the count axis says how many there are."""
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.hist(finite, bins=_N_BINS, color="#0072B2", edgecolor="white", linewidth=0.5)
    axes.set(title=title, xlabel=xlabel, ylabel=f"count (of {finite.size})")
    return figure_png(figure)


def bars(names: Sequence[str], counts: Sequence[float] | npt.ArrayLike, title: str, xlabel: str) -> bytes:
    """Return horizontal bars, the last one on top, as PNG; nothing but the axes when there are none."""
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.bar_label(axes.barh(list(names), np.asarray(counts), color="#0072B2"))
    axes.set(title=title, xlabel=xlabel)
    return figure_png(figure)


def support_profile(n_neurons: npt.ArrayLike, layer_shares: npt.ArrayLike) -> bytes:
    """Return as PNG the sizes of neuron sets and the mean share of the score of each layer ``[L]``, first layer 0."""
    figure = Figure(figsize=(10, 3.5), layout="constrained")
    sizes, layers = figure.subplots(1, 2)
    sizes.hist(n_neurons, bins=_N_BINS, color="#0072B2", edgecolor="white", linewidth=0.5)
    sizes.set(title="neuron sets", xlabel="neurons per rollout, |N|", ylabel=f"count (of {np.size(n_neurons)})")
    layers.bar(np.arange(np.size(layer_shares)), layer_shares, color="#0072B2")
    layers.xaxis.get_major_locator().set_params(integer=True)
    layers.set(title="layer profile", xlabel="layer", ylabel="mean share of positive contributions")
    return figure_png(figure)
