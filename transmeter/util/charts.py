"""Colours and shapes that all charts share, and the charts of gains. Altair is imported when a chart is made."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from altair import LayerChart

# Okabe & Ito 2008: told apart by colour-blind readers; every use has markers that say the same
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#767676")
# colour and marker
VERDICTS = {
    "helps": (COLOURS[0], "triangle-up"),
    "likely helps": (COLOURS[5], "diamond"),
    "no evidence": (COLOURS[-1], "circle"),
    "hurts": (COLOURS[1], "triangle-down"),
}
INK, BAND = "#1a1a1a", "#f0f0f0"  # of lines and text; of a shaded background
MIDDLE = "#f7f7f7"  # of a scale of colours
LABELLED = 400  # cells of a heat map beyond which numbers in them could not be read


def short(names: Iterable[str]) -> str:
    """Axis labels that leave out the middle of long names.

    A limit in pixels is measured again and again, and like Vega's own functions it may cut a character in two, which
    ends the conversion.

    Parameters
    ----------
    names : iterable of str
        What the axis shows.

    Returns
    -------
    str
        The expression for `labelExpr` of an Altair axis.
    """
    cut = {name: f"{name[:11]}…{name[-12:]}" for name in names if len(name) > 24}
    place = f"indexof({json.dumps(list(cut))}, datum.label)"
    return f"{place} < 0 ? datum.label : {json.dumps(list(cut.values()))}[{place}]"


def dots(sources: Sequence[Mapping[str, Any]], title: str, gains: bool) -> "LayerChart":
    """Sources from top to bottom, each a dot; every other tie group has a shade behind it.

    Parameters
    ----------
    sources : sequence of mappings
        Best first: source (name), group (number of the tie group), verdict ("" for a score), tie (text beside it),
        value, and of a gain low and high, the ends of its interval.
    title : str
        Of the horizontal axis.
    gains : bool
        Whether the values are gains, which have intervals, verdicts and a zero.

    Returns
    -------
    altair.LayerChart
    """
    import altair as alt

    names = [s["source"] for s in sources]
    axis = alt.Axis(ticks=False, labelExpr=short(names), labelLimit=0, labelPadding=6)
    y = alt.Y("source:N", sort=names, title=None, axis=axis)
    x = alt.X("value:Q", title=title.replace("_", " "), scale=alt.Scale(zero=gains), axis=alt.Axis(tickCount=5))
    base = alt.Chart().encode(y=y)
    layers = [base.transform_filter("datum.group % 2 == 0").mark_rect(color=BAND)]
    style: dict[str, Any] = {"color": alt.value(VERDICTS["helps"][0]), "shape": alt.value("circle")}
    if gains:
        verdicts = [v for v in VERDICTS if any(s["verdict"] == v for s in sources)]
        colours, shapes = ([VERDICTS[v][i] for v in verdicts] for i in (0, 1))
        legend = alt.Legend(title=None, orient="top")
        style = {
            "color": alt.Color("verdict:N", scale=alt.Scale(domain=verdicts, range=colours), legend=legend),
            "shape": alt.Shape("verdict:N", scale=alt.Scale(domain=verdicts, range=shapes), legend=legend),
        }
        layers.append(alt.Chart().mark_rule(color=INK).encode(x=alt.datum(0)))
        layers.append(base.mark_rule(strokeWidth=2).encode(x="low:Q", x2="high:Q", color=style["color"]))
    layers.append(base.mark_point(filled=True, size=95, opacity=1).encode(x=x, **style))
    layers.append(base.mark_text(align="left", dx=5, color=INK).encode(x=alt.value("width"), text="tie:N"))
    return alt.LayerChart(layer=layers, data=alt.Data(values=list(sources)), width=200, height=alt.Step(19))


def heat(
    cells: Sequence[Mapping[str, Any]], rows: Sequence[str], columns: Sequence[str], title: str, signed: bool
) -> "LayerChart":
    """A heat map.

    Parameters
    ----------
    cells : sequence of mappings
        row, column, value, and label, the text in the cell.
    rows, columns : sequence of str
        Their order.
    title : str
        Of the legend.
    signed : bool
        Whether colours go from orange over grey at zero to blue, rather than from grey to blue.

    Returns
    -------
    altair.LayerChart
    """
    import altair as alt

    largest = max((abs(c["value"]) for c in cells), default=0.0) or 1.0
    low, colours = (-largest, [VERDICTS["hurts"][0], MIDDLE]) if signed else (0.0, [MIDDLE])
    scale = alt.Scale(domain=[low, *([0.0] if signed else []), largest], range=[*colours, VERDICTS["helps"][0]])
    legend = alt.Legend(title=title, orient="bottom", direction="horizontal", gradientLength=140, titleLimit=320)
    above = alt.Axis(orient="top", labelAngle=-45, labelExpr=short(columns), labelLimit=0)
    x = alt.X("column:N", sort=list(columns), title=None, axis=above)
    y = alt.Y("row:N", sort=list(rows), title=None, axis=alt.Axis(labelExpr=short(rows), labelLimit=0))
    base = alt.Chart(alt.Data(values=list(cells))).encode(x=x, y=y)
    layers = [base.mark_rect().encode(color=alt.Color("value:Q", scale=scale, legend=legend))]
    if len(cells) <= LABELLED:
        on = alt.condition(alt.datum.value > 0.8 * largest, alt.value("#ffffff"), alt.value("#000000"))
        layers.append(base.mark_text(fontSize=9).encode(text="label:N", color=on))
    step = 34 if len(cells) <= LABELLED else 14
    return alt.LayerChart(layer=layers, width=alt.Step(step), height=alt.Step(19 if step > 20 else 14))
