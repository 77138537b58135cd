"""What is reached at which size or speed: the front, the area under it, and its picture."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from compress.report.charts import RULE, styles
from transmeter.util.charts import INK, short

if TYPE_CHECKING:
    from altair import LayerChart

DENSE = "dense"  # what stands for the model before
COSTS = {"megabytes": "weights on disk, MB", "milliseconds": "latency of one forward, ms"}


@dataclass(frozen=True)
class Point:
    """A model: the method that made it, its size and what it reaches, both as shares of the dense model's."""

    method: str
    size: float
    quality: float


@dataclass(frozen=True)
class Measured:
    """A model in a picture: the method that made it, its metric with the 95 % interval, and what it costs."""

    method: str
    value: float
    low: float
    high: float
    megabytes: float | None
    milliseconds: float | None = None


def measured(method: str, found: Mapping[str, Any], metric: str) -> Measured:
    """A model as a card, a sweep or an evaluation has it."""
    estimate, speed = found[metric], found.get("latency_seconds")
    return Measured(
        *(method, estimate["value"], estimate["ci_low"], estimate["ci_high"]),
        megabytes=found["bytes"] / 1e6 if found.get("bytes") else None,
        milliseconds=1e3 * speed["median"] if speed else None,
    )


def point(method: str, before: dict, after: dict, metric: str) -> Point:
    """A model beside the dense one. Of perplexity, which is better when lower, the share is dense / value."""
    dense, value = before[metric]["value"], after[metric]["value"]
    quality = dense / value if metric == "perplexity" else value / dense
    return Point(method, after["bytes"] / before["bytes"], quality)


def best(points: Sequence[Point]) -> list[Point]:
    """The front: points that no smaller or equal one beats, by size."""
    found: list[Point] = []
    for p in sorted(points, key=lambda p: (p.size, -p.quality)):
        if not found or p.quality > found[-1].quality:
            found.append(p)
    return found


def area(points: Sequence[Point]) -> float:
    """Area under the front between no size and that of the dense model, which is a point of it; at best 1.

    At every size what the best model of at most that size reaches: the hypervolume to size 1 and quality 0 (Zitzler,
    Thiele, 1999).
    """
    front = best([p for p in points if p.size < 1] + [Point(DENSE, 1.0, 1.0)])
    edges = [p.size for p in front[1:]] + [1.0]
    return sum(p.quality * max(edge - p.size, 0.0) for p, edge in zip(front, edges))


def chart(
    models: Sequence[Measured], metric: str, cost: Literal["megabytes", "milliseconds"] = "megabytes"
) -> "LayerChart":
    """Every model by what it costs, those of one method alike, and the line that none is beyond; up is better."""
    import altair as alt

    shown = [m for m in models if getattr(m, cost) is not None and math.isfinite(m.value)]
    lower = metric == "perplexity"
    methods = [m for m in dict.fromkeys(m.method for m in shown) if m != DENSE]
    colours, shapes = styles(methods)
    if any(m.method == DENSE for m in shown):
        methods, colours, shapes = [DENSE, *methods], [INK, *colours], ["cross", *shapes]
    front = best([Point(m.method, getattr(m, cost), -m.value if lower else m.value) for m in shown])
    line = [{cost: p.size, "value": abs(p.quality) if lower else p.quality} for p in front]
    values = [m.value for m in shown] or [1.0]
    log = lower and max(values) > 4 * min(values)
    scale = alt.Scale(type="log" if log else "linear", reverse=lower, zero=False, padding=8)
    title = f"{metric}, axis turned: up is better" if lower else metric.replace("_", " ")
    x = alt.X(f"{cost}:Q", title=COSTS[cost], scale=alt.Scale(zero=True), axis=alt.Axis(tickCount=6))
    y = alt.Y("value:Q", title=title, scale=scale, axis=alt.Axis(grid=True, tickCount=5, format="~g"))
    legend = alt.Legend(title=None, orient="bottom", labelExpr=short(methods))
    colour = alt.Color("method:N", scale=alt.Scale(domain=methods, range=colours), legend=legend)
    shape = alt.Shape("method:N", scale=alt.Scale(domain=methods, range=shapes), legend=legend)
    base = alt.Chart(alt.Data(values=[asdict(m) for m in shown])).encode(x=x)
    steps = alt.Chart(alt.Data(values=line)).mark_line(interpolate="step-after", color=RULE, strokeDash=[3, 3])
    return alt.layer(
        steps.encode(x=x, y=y),
        base.mark_rule().encode(y=alt.Y("low:Q"), y2="high:Q", color=colour),
        base.mark_point(filled=True, size=90, opacity=1).encode(y=y, color=colour, shape=shape),
    ).properties(width=310, height=210)
