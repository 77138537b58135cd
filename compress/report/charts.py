"""Charts of models, and SVG of one look, in light colours that a page may swap for dark ones."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

import altair as alt
import vl_convert

from compress.evaluation import pareto
from compress.evaluation.metrics import LOWER
from compress.evaluation.pareto import DENSE, Point
from transmeter.util.charts import BAND, COLOURS, INK, short

GRID, RULE = "#d8d8d8", "#8c8c8c"
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "triangle-right")  # not as many as colours
DARK = {
    **{INK: "#e8e8e8", GRID: "#3c3f44", RULE: "#85898f", BAND: "#26292e"},
    **{"#0072B2": "#4aa8e0", "#D55E00": "#f08a45", "#009E73": "#2fc197", "#CC79A7": "#dc97bd", "#767676": "#a2a2a2"},
}
PAGE, NIGHT = "#ffffff", "#16181b"  # background of a picture, and at night
MARGIN, SCALE = 10, 1.3  # around a chart in a picture, and by how much it is enlarged
PHONE = 410  # width of a chart that fits a phone at a scale of 0.8
FONT = "Helvetica, Arial, sans-serif"
_AXIS = {"labelColor": INK, "titleColor": INK, "titleFontWeight": "normal", "labelFontSize": 10, "titleFontSize": 11}
CONFIG = {
    "aria": False,  # the page describes the whole chart
    "background": None,
    "font": FONT,
    "view": {"stroke": None},
    "axis": _AXIS | {"gridColor": GRID, "domainColor": RULE, "tickColor": RULE, "titlePadding": 6},
    "axisY": {"grid": False},
    "legend": _AXIS | {"symbolStrokeWidth": 1, "symbolLimit": 0, "columns": 3, "labelLimit": 0},
    "header": _AXIS,
    "title": {"color": INK, "fontSize": 12, "fontWeight": "normal"},
    "text": {"color": INK, "fontSize": 9.5},
}
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
# what may stand on the x axis: title, key of a result, and how its value is read
COSTS = {
    "megabytes": ("weights on disk, MB", "bytes", lambda size: size / 1e6),
    "milliseconds": ("latency of one forward, ms", "latency_seconds", lambda speed: 1e3 * speed["median"]),
}
_SVG = "http://www.w3.org/2000/svg"
# attributes of Vega's, of no use here
_DROPPED = "class pointer-events font-family stroke-miterlimit aria-hidden role aria-roledescription aria-label".split()


def styles(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Give every name a colour and a marker.

    Parameters
    ----------
    names
        In any number; beyond those of `COLOURS` they begin anew.

    Returns
    -------
    tuple
        Colours and markers.
    """
    each = range(len(names))
    return [COLOURS[i % len(COLOURS)] for i in each], [SHAPES[i % len(SHAPES)] for i in each]


def legend(
    field: str, names: Sequence[str], colours: Sequence[str], shapes: Sequence[str]
) -> dict[str, alt.Color | alt.Shape]:
    """Encode a field by colour and marker, with a legend below the chart.

    Parameters
    ----------
    field
        Of the data.
    names
        Its values.
    colours, shapes
        Of the values.

    Returns
    -------
    dict
        Keywords of `encode`.
    """
    below = alt.Legend(title=None, orient="bottom", labelExpr=short(names))
    return {
        "color": alt.Color(f"{field}:N", scale=alt.Scale(domain=names, range=colours), legend=below),
        "shape": alt.Shape(f"{field}:N", scale=alt.Scale(domain=names, range=shapes), legend=below),
    }


def with_intervals(base: alt.Chart, y: alt.Y, style: Mapping[str, alt.Color | alt.Shape]) -> list[alt.Chart]:
    """Points with vertical 95 % intervals.

    Parameters
    ----------
    base
        Data with low and high, and the x axis.
    y
        Axis of the points.
    style
        Of `legend`.

    Returns
    -------
    list
        Layers, intervals below points.
    """
    rules = base.mark_rule().encode(y=alt.Y("low:Q"), y2="high:Q", color=style["color"])
    return [rules, base.mark_point(filled=True, size=90, opacity=1).encode(y=y, **style)]


def shares(base: alt.Chart, title: str | None = None) -> alt.LayerChart:
    """Bars of a share of the whole.

    Parameters
    ----------
    base
        Data with share, 0 to 1, and label, which stands behind the bar; and the y axis.
    title
        Of the x axis; None: there is none.

    Returns
    -------
    LayerChart
        A bar per row, on grey.
    """
    axis = alt.Axis(format="%", values=[0, 1]) if title else None
    share = alt.X("share:Q", title=title, axis=axis, scale=alt.Scale(domain=[0, 1]))
    whole = base.mark_bar(color=BAND).encode(x=alt.value(0), x2=alt.value("width"))
    text = base.mark_text(align="left", dx=4, color=INK).encode(x=alt.value("width"), text="label:N")
    return alt.layer(whole, base.mark_bar(color=COLOURS[0]).encode(x=share), text)


def cost_of(result: Mapping[str, Any], cost: str) -> float | None:
    """What a model costs.

    Parameters
    ----------
    result
        Of the model, as a card, a sweep or an evaluation has it.
    cost
        One of `COSTS`, whose name is the unit.

    Returns
    -------
    float or None
        None where that is not known.
    """
    _, key, read = COSTS[cost]
    return read(result[key]) if result.get(key) else None


def pareto_chart(
    models: Sequence[tuple[str, Mapping[str, Any]]], metric: str, cost: str = "megabytes"
) -> alt.LayerChart:
    """Every model by what it costs, those of one method alike, with the Pareto front; up is better.

    Parameters
    ----------
    models
        Method and result of every model; those without the cost or a finite metric are left out.
    metric
        That was measured.
    cost
        On the x axis, one of `COSTS`.

    Returns
    -------
    LayerChart
        With 95 % intervals, and quartiles of times; the Pareto front is dashed.
    """
    lower, timed, rows = metric in LOWER, cost == "milliseconds", []
    for method, result in models:
        found, size = result[metric], cost_of(result, cost)
        if size is not None and math.isfinite(found["value"]):
            ends = {"low": found["ci_low"], "high": found["ci_high"]}
            quartiles = {f"time_{k}": 1e3 * result["latency_seconds"][k] for k in ("q1", "q3")} if timed else {}
            rows.append({"method": method, cost: size, "value": found["value"], **ends, **quartiles})
    methods = [m for m in dict.fromkeys(row["method"] for row in rows) if m != DENSE]
    colours, shapes = styles(methods)
    if any(row["method"] == DENSE for row in rows):
        methods, colours, shapes = [DENSE, *methods], [INK, *colours], ["cross", *shapes]
    sign = -1 if lower else 1
    front = pareto.best([Point(row["method"], row[cost], sign * row["value"]) for row in rows])
    line = [{cost: p.size, "value": sign * p.quality} for p in front]
    values = [row["value"] for row in rows] or [1.0]
    log = lower and max(values) > 4 * min(values)
    scale = alt.Scale(type="log" if log else "linear", reverse=lower, zero=False, padding=8)
    title = f"{metric}, axis turned: up is better" if lower else metric.replace("_", " ")
    x = alt.X(f"{cost}:Q", title=COSTS[cost][0], scale=alt.Scale(zero=True), axis=alt.Axis(tickCount=6))
    y = alt.Y("value:Q", title=title, scale=scale, axis=alt.Axis(grid=True, tickCount=5, format="~r"))
    base = alt.Chart(alt.Data(values=rows)).encode(x=x)
    steps = alt.Chart(alt.Data(values=line)).mark_line(interpolate="step-after", color=RULE, strokeDash=[3, 3])
    style = legend("method", methods, colours, shapes)
    spread = [base.mark_rule().encode(x="time_q1:Q", x2="time_q3:Q", y=y, color=style["color"])] if timed else []
    return alt.layer(steps.encode(x=x, y=y), *spread, *with_intervals(base, y, style)).properties(width=310, height=210)


def svg(chart: alt.TopLevelMixin, name: str = "chart", description: str = "") -> str:
    """Render a chart; nothing is fetched.

    Parameters
    ----------
    chart
        Of Altair.
    name
        With which all ids in it begin.
    description
        For those who do not see it.

    Returns
    -------
    str
        An <svg> element.
    """
    root, width, _ = _drawn(chart, name, description)
    least = 0.8 * width if width <= PHONE else width  # what does not fit a phone scrolls, at a size that can be read
    root.set("style", f"width:100%;min-width:{least:.0f}px;max-width:{1.3 * width:.0f}px")
    return ElementTree.tostring(root, encoding="unicode")


def picture(chart: alt.TopLevelMixin, description: str = "") -> str:
    """Render a chart for a file of its own, which is dark where the reader's screen is.

    Parameters
    ----------
    chart
        Of Altair.
    description
        For those who do not see it.

    Returns
    -------
    str
        An <svg> element on a background, `SCALE` times as large as the chart.
    """
    root, width, height = _drawn(chart, "chart", description)
    width, height = width + 2 * MARGIN, height + 2 * MARGIN
    size = {"width": f"{width:g}", "height": f"{height:g}"}
    root.attrib.update({"width": f"{SCALE * width:.0f}", "height": f"{SCALE * height:.0f}"})
    root.set("viewBox", f"{-MARGIN} {-MARGIN} {width:g} {height:g}")
    page = {"x": str(-MARGIN), "y": str(-MARGIN), **size, "rx": "6", "fill": PAGE}
    root.insert(0, ElementTree.Element(f"{{{_SVG}}}rect", page))
    style = ElementTree.Element(f"{{{_SVG}}}style")
    swapped = "".join(
        f'[fill="{k}"]{{fill:{v}}}[stroke="{k}"]{{stroke:{v}}}' for k, v in (DARK | {PAGE: NIGHT}).items()
    )
    style.text = f"@media (prefers-color-scheme: dark){{{swapped}}}"
    root.insert(0, style)
    return ElementTree.tostring(root, encoding="unicode")


def _drawn(chart: alt.TopLevelMixin, name: str, description: str) -> tuple[ElementTree.Element, float, float]:
    """An <svg> element without its size, and the size: width and height."""
    specification = _plain({**chart.to_dict(validate=False), "config": CONFIG})
    root = ElementTree.fromstring(vl_convert.vegalite_to_svg(specification, allowed_base_urls=[]))
    for element in root.iter():
        for key in _DROPPED:
            element.attrib.pop(key, None)
        if element.get("opacity") == "1":
            del element.attrib["opacity"]
        if "id" in element.attrib:
            element.set("id", f"{name}-{element.get('id')}")
        for key, value in element.attrib.items():
            if value.startswith("url(#"):
                element.set(key, value.replace("url(#", f"url(#{name}-", 1))
    width, height = (float(root.attrib.pop(k)) for k in ("width", "height"))
    root.attrib.update({"role": "img", "aria-label": description, "font-family": FONT})
    ElementTree.register_namespace("", _SVG)
    return root, width, height


def _plain(value: object) -> object:
    """A specification without NaN and infinity, and without the characters on which vl-convert ends the process."""
    if isinstance(value, str):
        return _NO_XML.sub("\ufffd", value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value
