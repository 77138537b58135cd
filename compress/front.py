"""What is reached at which size: the accuracy-size front, the area under it, and its picture."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402  the backend comes first

# Okabe & Ito 2008, with markers that say the same
STYLES = list(zip(("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"), "os^Dv<>")) * 3


@dataclass(frozen=True)
class Point:
    """A model: the method that made it, its size and what it reaches, both as shares of the dense model's."""

    method: str
    size: float
    quality: float


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
    front = best([p for p in points if p.size < 1] + [Point("dense", 1.0, 1.0)])
    edges = [p.size for p in front[1:]] + [1.0]
    return sum(p.quality * max(edge - p.size, 0.0) for p, edge in zip(front, edges))


def draw(points: Sequence[Point], metric: str, out: Path) -> None:
    """Write the points of every method, and the front over all, as an SVG."""
    figure, axes = plt.subplots(figsize=(8, 4.5))
    front = best([*points, Point("dense", 1.0, 1.0)])
    axes.step([p.size for p in front], [p.quality for p in front], where="post", color="#999999", label="front")
    methods = list(dict.fromkeys(p.method for p in points))
    for method, (colour, marker) in zip(methods, STYLES):
        own = sorted((p for p in points if p.method == method), key=lambda p: p.size)
        axes.plot([p.size for p in own], [p.quality for p in own], marker, color=colour, label=method, markersize=7)
    axes.plot(1, 1, "*", color="#333333", markersize=11, label="dense")
    axes.set_xlabel("bytes, share of the dense model's")
    axes.set_ylabel("dense perplexity / perplexity" if metric == "perplexity" else f"share of the dense {metric}")
    axes.set_xlim(0, 1.05)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))
    text = io.StringIO()
    figure.savefig(text, format="svg", bbox_inches="tight")
    plt.close(figure)
    out.write_text(text.getvalue(), encoding="utf-8")
