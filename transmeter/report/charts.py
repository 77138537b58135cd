"""Rankings as pictures."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import altair as alt

if TYPE_CHECKING:
    from transmeter.ranking import Ranking

# colour and marker: apart for every kind of colour vision (Okabe & Ito 2008), and in grey
VERDICTS = {
    "helps": ("#0072B2", "triangle-up"),
    "no evidence": ("#767676", "circle"),
    "hurts": ("#D55E00", "triangle-down"),
}
INK, BAND = "#1a1a1a", "#f0f0f0"
MIDDLE = "#f7f7f7"  # of a scale of colours
LABELLED = 400  # cells of a heat map beyond which figures in them could not be read


def short(names: Iterable[str]) -> str:
    """The expression for the labels of `names` that leaves out the middle of long ones.

    A limit in pixels is measured again and again, and like Vega's own functions it may cut a character in two, which
    ends the conversion.
    """
    cut = {name: f"{name[:11]}…{name[-12:]}" for name in names if len(name) > 24}
    place = f"indexof({json.dumps(list(cut))}, datum.label)"
    return f"{place} < 0 ? datum.label : {json.dumps(list(cut.values()))}[{place}]"


def dots(ranking: "Ranking", most: int | None = None) -> alt.LayerChart:
    """The sources (the first `most`) from top to bottom: gains in percentage points with 95 % intervals, or scores.

    Every other tie group has a shade behind it.
    """
    scored = [row for row in ranking.rows if row.error is None][:most]
    gains = any(row.gain for row in scored)
    values: list[dict[str, Any]] = []
    for row in scored:
        first = not values or values[-1]["group"] != row.tie_group
        gain = row.gain
        values.append({"source": row.source, "group": row.tie_group, "verdict": row.verdict or ""})
        values[-1] |= {"tie": f"tie {row.tie_group}" if first else "", "value": gain.mean if gain else row.score}
        values[-1] |= {"low": gain.low, "high": gain.high} if gain else {}
    title = f"gain in {ranking.metric}, percentage points (95 %)" if gains else f"score by {ranking.scorer}"
    names = [v["source"] for v in values]
    axis = alt.Axis(ticks=False, labelExpr=short(names), labelLimit=0, labelPadding=6)
    y = alt.Y("source:N", sort=names, title=None, axis=axis)
    x = alt.X("value:Q", title=title.replace("_", " "), scale=alt.Scale(zero=gains), axis=alt.Axis(tickCount=5))
    known = [v for v in VERDICTS if any(row.verdict == v for row in scored)]
    colours, shapes = ([VERDICTS[v][i] for v in known] for i in (0, 1))
    legend = alt.Legend(title=None, orient="top") if gains else None
    style: dict[str, Any] = {
        "color": alt.Color("verdict:N", scale=alt.Scale(domain=known, range=colours), legend=legend),
        "shape": alt.Shape("verdict:N", scale=alt.Scale(domain=known, range=shapes), legend=legend),
    }
    if not gains:
        style = {"color": alt.value(VERDICTS["helps"][0]), "shape": alt.value("circle")}
    base = alt.Chart().encode(y=y)
    layers = [base.transform_filter("datum.group % 2 == 0").mark_rect(color=BAND)]
    if gains:
        layers.append(alt.Chart().mark_rule(color=INK).encode(x=alt.datum(0)))
        layers.append(base.mark_rule(strokeWidth=2).encode(x="low:Q", x2="high:Q", color=style["color"]))
    layers.append(base.mark_point(filled=True, size=95, opacity=1).encode(x=x, **style))
    layers.append(base.mark_text(align="left", dx=5, color=INK).encode(x=alt.value("width"), text="tie:N"))
    return alt.LayerChart(layer=layers, data=alt.Data(values=values), width=200, height=alt.Step(19))


def heat(
    cells: Sequence[Mapping[str, Any]], rows: Sequence[str], columns: Sequence[str], title: str, signed: bool
) -> alt.LayerChart:
    """A map of `cells` (row, column, value, label): signed values from orange over grey to blue, others from grey."""
    largest = max((abs(c["value"]) for c in cells), default=0.0) or 1.0
    low, colours = (-largest, [VERDICTS["hurts"][0], MIDDLE]) if signed else (0.0, [MIDDLE])
    scale = alt.Scale(domain=[low, *([0.0] if signed else []), largest], range=[*colours, VERDICTS["helps"][0]])
    legend = alt.Legend(title=title, orient="bottom", direction="horizontal", gradientLength=140, titleLimit=320)
    above = alt.Axis(orient="top", labelAngle=-45, labelExpr=short(columns), labelLimit=0)
    x = alt.X("column:N", sort=list(columns), title=None, axis=above)
    y = alt.Y("row:N", sort=list(rows), title=None, axis=alt.Axis(labelExpr=short(rows), labelLimit=0))
    base = alt.Chart(alt.Data(values=list(cells))).encode(x=x, y=y)
    found = [base.mark_rect().encode(color=alt.Color("value:Q", scale=scale, legend=legend))]
    if len(cells) <= LABELLED:
        on = alt.condition(alt.datum.value > 0.8 * largest, alt.value("#ffffff"), alt.value("#000000"))
        found.append(base.mark_text(fontSize=9).encode(text="label:N", color=on))
    step = 34 if len(cells) <= LABELLED else 14
    return alt.LayerChart(layer=found, width=alt.Step(step), height=alt.Step(19 if step > 20 else 14))
