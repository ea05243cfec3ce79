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
