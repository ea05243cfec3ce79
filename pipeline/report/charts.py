"""The pictures of pages, as Vega-Lite. Colours are names of the style sheet, so that they follow the colour scheme.

Values are binned here: a pool of any size makes a picture of the same size.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import altair as alt
import numpy as np
import numpy.typing as npt
import polars as pl

HEIGHT: Final = 220
_BAR: Final = 24
"""Pixels of a horizontal bar with its gap."""
_ROOM: Final = 0.4
"""Of the longest bar, for its number beside it."""
_N_BINS: Final = 30
_INK, _LINE, _ACCENT = "var(--muted)", "var(--line)", "var(--series-0)"
SERIES: Final = tuple(f"var(--series-{number})" for number in range(8))
"""Colours that can be told apart (Okabe and Ito), lighter on a dark page."""
_SHAPES: Final = ("circle", "triangle-up", "square", "diamond", "cross", "triangle-down", "triangle-left", "stroke")
_DASHES: Final = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [12, 3], [4, 1], [1, 3], [10, 2, 2, 2])
"""So that lines are told apart without colours, too."""


def bars(counts: Mapping[str, float], unit: str) -> dict[str, Any]:
    """Return horizontal bars in the order given, with their numbers."""
    rows = pl.DataFrame({"name": list(counts), "count": [float(count) for count in counts.values()]})
    top, form = max(counts.values(), default=0), ",.0f" if all(v == int(v) for v in counts.values()) else ",.3~r"
    scale = alt.Scale(domain=[0, (1 + _ROOM) * top or 1])
    base = alt.Chart(rows).encode(
        y=_names(counts),
        x=alt.X("count:Q", title=unit, scale=scale, axis=alt.Axis(tickCount=4)),
        tooltip=[alt.Tooltip("name:N", title=" "), alt.Tooltip("count:Q", title=unit, format=form)],
    )
    marks = base.mark_bar(cornerRadiusEnd=2, size=15, color=_ACCENT)
    text = base.mark_text(align="left", dx=5, color=_INK).encode(text=alt.Text("count:Q", format=form))
    return _spec(marks + text, height=max(_BAR, _BAR * len(counts)))


def profile(rows: pl.DataFrame, x: str, y: str) -> dict[str, Any]:
    """Return upright bars of the second column over the first, which are whole numbers."""
    place, height = rows.columns
    chart = (
        alt.Chart(rows.with_columns((pl.col(place) - 0.45).alias("left"), (pl.col(place) + 0.45).alias("right")))
        .mark_bar(color=_ACCENT)
        .encode(
            x=alt.X("left:Q", bin="binned", title=x, axis=alt.Axis(format="d", tickMinStep=1)),
            x2="right:Q",
            y=alt.Y(f"{height}:Q", title=y, axis=alt.Axis(tickCount=5)),
            tooltip=[alt.Tooltip(f"{place}:Q", title=x), alt.Tooltip(f"{height}:Q", title=y, format=".3~r")],
        )
    )
    return _spec(chart)


def correlations(values: Mapping[str, float]) -> dict[str, Any]:
    """Return rank correlations as bars from zero."""
    rows = pl.DataFrame({"name": list(values), "rho": list(values.values())})
    base = alt.Chart(rows).encode(
        y=_names(values),
        x=alt.X("rho:Q", title="rank correlation", scale=alt.Scale(domain=[-1, 1]), axis=alt.Axis(tickCount=5)),
        tooltip=[alt.Tooltip("name:N", title=" "), alt.Tooltip("rho:Q", format="+.3f")],
    )
    zero = alt.Chart(pl.DataFrame({"at": [0]})).mark_rule(color=_INK).encode(x="at:Q")
    marks = base.mark_bar(color=_ACCENT, size=15)
    text = base.mark_text(color=_INK, align="left", dx=4).encode(
        text=alt.Text("rho:Q", format="+.2f"), x=alt.X("end:Q").scale(domain=[-1, 1])
    )
    text = text.transform_calculate(end="max(datum.rho, 0)")
    return _spec(marks + zero + text, height=max(_BAR, _BAR * len(values)))


def histogram(parts: Mapping[str, pl.Series], title: str, height: int = HEIGHT) -> dict[str, Any]:
    """Return a histogram of the finite values of one or more parts, stacked; the bins are those of all."""
    values = {name: _finite(part) for name, part in parts.items()}
    edges = np.histogram_bin_edges(np.concatenate(list(values.values())), bins=_N_BINS)
    rows = [
        {"part": name, "low": low, "high": high, "count": int(count)}
        for name, part in values.items()
        for low, high, count in zip(edges[:-1], edges[1:], np.histogram(part, edges)[0], strict=True)
        if count
    ]
    names = list(values)
    chart = (
        alt.Chart(pl.DataFrame(rows or [{"part": "", "low": 0.0, "high": 0.0, "count": 0}]))
        .mark_bar(stroke="var(--surface)", strokeWidth=0.5)
        .encode(
            x=alt.X("low:Q", bin="binned", title=title, axis=alt.Axis(tickCount=6)),
            x2="high:Q",
            y=alt.Y("count:Q", title="count"),
            color=alt.Color(
                "part:N",
                scale=alt.Scale(domain=names, range=SERIES[: len(names)]),
                legend=alt.Legend(title=None, orient="top") if len(names) > 1 else None,
            ),
            tooltip=[
                *([alt.Tooltip("part:N", title=" ")] if len(names) > 1 else []),
                alt.Tooltip("low:Q", title="from", format=".4~g"),
                alt.Tooltip("high:Q", title="up to", format=".4~g"),
                alt.Tooltip("count:Q", title="count", format=","),
            ],
        )
    )
    return _spec(chart, height)


def lines(
    rows: pl.DataFrame,
    x: str,
    y: str,
    colors: Mapping[str, str],
    marks: pl.DataFrame | None = None,
    is_share: bool = False,
) -> dict[str, Any]:
    """Return lines over the first column, one per ``series``, the third; the second is their height.

    ``marks`` are columns ``x`` and ``what`` of places to point out; ``is_share``: both axes begin at 0, x ends at 1.
    """
    drawn = [name for name in colors if name in set(rows["series"])]
    place, height = rows.columns[:2]
    across = alt.Scale(domain=[0, 1]) if is_share else alt.Scale(nice=False)
    chart = (
        alt.Chart(rows)
        .mark_line(point=alt.OverlayMarkDef(size=14))
        .encode(
            x=alt.X(f"{place}:Q", title=x, axis=alt.Axis(tickCount=6), scale=across),
            y=alt.Y(f"{height}:Q", title=y, scale=alt.Scale(zero=is_share)),
            color=_series(drawn, colors, "stroke"),
            strokeDash=_dashes(drawn),
            tooltip=[
                alt.Tooltip("series:N", title=" "),
                alt.Tooltip(f"{place}:Q", title=x),
                alt.Tooltip(f"{height}:Q", title=y, format=".4~g"),
            ],
        )
        .add_params(_zoom())
    )
    if marks is not None and marks.height:
        rule = alt.Chart(marks).mark_rule(strokeDash=[3, 3], color="var(--bad)")
        return _spec(chart + rule.encode(x="x:Q", tooltip=alt.Tooltip("what:N", title=" ")))
    return _spec(chart)


def intervals(
    rows: pl.DataFrame, title: str, colors: Mapping[str, str], zero: bool = False, band: float | None = None
) -> dict[str, Any]:
    """Return points with intervals, one line per ``name``: columns name, series, value, low, high.

    ``zero`` draws a line at zero, ``band`` shades what lies that near to it.
    """
    names, series = (rows[column].unique(maintain_order=True).to_list() for column in ("name", "series"))
    shift = alt.YOffset("series:N", sort=series) if len(series) > 1 else alt.Undefined
    tips = [alt.Tooltip("name:N", title=" "), alt.Tooltip("series:N", title="model")] + [
        alt.Tooltip(f"{column}:Q", format=".4~g") for column in ("value", "low", "high")
    ]
    base = alt.Chart(rows).encode(
        y=_names(names),
        yOffset=shift,
        color=_series(series, colors),
        tooltip=tips,
    )
    scale, axis = alt.Scale(zero=False, nice=True), alt.Axis(tickCount=6)
    layers: list[alt.Chart] = []
    if band is not None:
        span = pl.DataFrame({"from": [-band], "to": [band]})
        layers.append(alt.Chart(span).mark_rect(color="var(--band)", opacity=1).encode(x="from:Q", x2="to:Q"))
    if zero:
        layers.append(alt.Chart(pl.DataFrame({"at": [0]})).mark_rule(color=_INK).encode(x="at:Q"))
    layers.append(
        base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=title, scale=scale, axis=axis), x2="high:Q")
    )
    layers.append(base.mark_point(filled=True, size=55, opacity=1).encode(x=alt.X("value:Q", title=title, scale=scale)))
    return _spec(alt.layer(*layers), height=max(70, (14 + 12 * len(series)) * len(names)))


def dots(rows: pl.DataFrame, title: str, colors: Mapping[str, str]) -> dict[str, Any]:
    """Return a row of points for each ``name``: columns name, series, value, and ``told``, for the pointer."""
    names, series = (rows[column].unique(maintain_order=True).to_list() for column in ("name", "series"))
    shapes = alt.Scale(domain=series, range=list(_SHAPES[: len(series)]))
    chart = (
        alt.Chart(rows)
        .mark_point(filled=True, size=50, opacity=0.75)
        .encode(
            y=_names(names),
            x=alt.X("value:Q", title=title, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=6)),
            color=_series(series, colors),
            shape=alt.Shape("series:N", scale=shapes, legend=_legend(series)),
            tooltip=[
                alt.Tooltip("name:N", title=" "),
                alt.Tooltip("series:N", title="on"),
                alt.Tooltip("told:N", title="of"),
                alt.Tooltip("value:Q", title=title, format=".4~g"),
            ],
        )
    )
    return _spec(chart, height=_BAR * len(names))


def reliability(rows: pl.DataFrame, colors: Mapping[str, str]) -> dict[str, Any]:
    """Return accuracy against confidence: columns series, confidence, right, n; the diagonal is perfect."""
    drawn = rows["series"].unique(maintain_order=True).to_list()
    perfect = pl.DataFrame({"x": [0.0, 1.0], "y": [0.0, 1.0]})
    diagonal = alt.Chart(perfect).mark_line(color=_INK, strokeDash=[4, 4], strokeWidth=1).encode(x="x:Q", y="y:Q")
    unit = alt.Scale(domain=[0, 1])
    base = alt.Chart(rows).encode(
        x=alt.X("confidence:Q", title="confidence, mean of a bin", scale=unit),
        y=alt.Y("right:Q", title="share right", scale=unit),
        color=_series(drawn, colors),
    )
    line = base.mark_line(strokeWidth=1)
    shapes = alt.Scale(domain=drawn, range=list(_SHAPES[: len(drawn)]))
    points = base.mark_point(filled=True, opacity=0.85).encode(
        shape=alt.Shape("series:N", scale=shapes, legend=_legend(drawn)),
        size=alt.Size("n:Q", legend=None, scale=alt.Scale(range=[20, 320])),
        tooltip=[
            alt.Tooltip("series:N", title=" "),
            alt.Tooltip("confidence:Q", format=".3f"),
            alt.Tooltip("right:Q", title="share right", format=".3f"),
            alt.Tooltip("n:Q", title="questions"),
        ],
    )
    return _spec(diagonal + line + points, height=300)


def scatter(rows: pl.DataFrame, x: str, y: str) -> dict[str, Any]:
    """Return points of the first two columns over the line y = x; the third is what the pointer tells."""
    across, up, told = rows.columns
    top = float(max(rows[across].max() or 0, rows[up].max() or 0))  # type: ignore[arg-type]
    least = float(min(rows[across].min() or 0, rows[up].min() or 0, 0))  # type: ignore[arg-type]
    ends = pl.DataFrame({"x": [least, top], "y": [least, top]})
    diagonal = alt.Chart(ends).mark_line(color=_INK, strokeDash=[4, 4], strokeWidth=1).encode(x="x:Q", y="y:Q")
    edge = 0.04 * (top - least)  # so that points at the ends stand whole
    room = alt.Scale(domain=[least - edge, top + edge], nice=False)
    points = (
        alt.Chart(rows)
        .mark_circle(size=45, opacity=0.55, color=_ACCENT)
        .encode(
            x=alt.X(f"{across}:Q", title=x, scale=room, axis=alt.Axis(tickCount=6)),
            y=alt.Y(f"{up}:Q", title=y, scale=room, axis=alt.Axis(tickCount=6)),
            tooltip=[
                alt.Tooltip(f"{told}:N", title=" "),
                alt.Tooltip(f"{across}:Q", title=x, format=".3~g"),
                alt.Tooltip(f"{up}:Q", title=y, format=".3~g"),
            ],
        )
        .add_params(_zoom())
    )
    return _spec(diagonal + points, height=300)


def _names(names: Iterable[str]) -> alt.Y:
    return alt.Y(
        "name:N", sort=list(names), title=None, axis=alt.Axis(ticks=False, domain=False, grid=False, labelPadding=6)
    )


def _legend(names: Sequence[str], symbol: str = "") -> alt.Legend | None:
    """Return the same legend for all channels that tell series apart: Vega-Lite makes one of them."""
    if len(names) <= 1:
        return None
    looks = {"symbolType": symbol, "symbolSize": 400} if symbol else {}
    return alt.Legend.from_dict({"title": None, "orient": "top", **looks})


def _series(names: Sequence[str], colors: Mapping[str, str], symbol: str = "") -> alt.Color:
    scale = alt.Scale(domain=list(names), range=[colors.get(name, _ACCENT) for name in names])
    return alt.Color("series:N", scale=scale, legend=_legend(names, symbol))


def _dashes(names: Sequence[str]) -> alt.StrokeDash:
    scale = alt.Scale(domain=list(names), range=list(_DASHES[: len(names)]))
    return alt.StrokeDash("series:N", scale=scale, legend=_legend(names, "stroke"))


def _zoom() -> alt.Parameter:
    """Zoom with control and the wheel, pan by dragging: the wheel alone scrolls the page."""
    return alt.selection_interval(
        name="zoom",
        bind="scales",
        zoom="wheel![event.ctrlKey || event.metaKey]",
        translate="[mousedown, window:mouseup] > window:mousemove!",
        clear="dblclick",
    )


def _finite(values: pl.Series) -> npt.NDArray[np.float64]:
    array = values.drop_nulls().to_numpy().astype(np.float64)
    return array[np.isfinite(array)]


def _spec(chart: alt.Chart | alt.LayerChart | alt.FacetChart, height: float = HEIGHT) -> dict[str, Any]:
    fitted = chart.properties(
        width="container", height=height, autosize=alt.AutoSizeParams(type="fit-x", contains="padding")
    )
    spec: dict[str, Any] = fitted.to_dict(validate=False)  # the parts were, when they were made
    return {name: value for name, value in spec.items() if name not in ("$schema", "config")}
