"""What is reached at which size: the Pareto front, and the area under it."""

from collections.abc import Sequence
from dataclasses import dataclass

from compress.evaluation.metrics import LOWER

DENSE = "dense"  # stands for the model before compression


@dataclass(frozen=True)
class Point:
    """A model.

    Attributes
    ----------
    method
        That made it.
    size, quality
        What it takes and what it reaches, as shares of the dense model's.
    """

    method: str
    size: float
    quality: float


def point(method: str, before: dict, after: dict, metric: str) -> Point:
    """Put a model beside the dense one.

    Parameters
    ----------
    method
        That made it.
    before, after
        Bytes and metric of the dense model and of this one.
    metric
        Of perplexities, which are better when lower, the share is dense / value.

    Returns
    -------
    Point
        With shares of the dense model's.
    """
    dense, value = before[metric]["value"], after[metric]["value"]
    quality = dense / value if metric in LOWER else value / dense
    return Point(method, after["bytes"] / before["bytes"], quality)


def best(points: Sequence[Point]) -> list[Point]:
    """The Pareto front.

    Parameters
    ----------
    points
        In any order.

    Returns
    -------
    list
        Points that no smaller or equal one beats, by size.
    """
    found: list[Point] = []
    for p in sorted(points, key=lambda p: (p.size, -p.quality)):
        if not found or p.quality > found[-1].quality:
            found.append(p)
    return found


def area(points: Sequence[Point]) -> float:
    """Area under the Pareto front from size 0 to that of the dense model, which is a point of it.

    Parameters
    ----------
    points
        Without the dense model.

    Returns
    -------
    float
        Over all sizes, the mean of what the best model of at most that size reaches; 1 at best.

    References
    ----------
    The hypervolume to size 1 and quality 0: Zitzler and Thiele, IEEE Transactions on Evolutionary Computation 3, 1999.
    """
    front = best([p for p in points if p.size < 1] + [Point(DENSE, 1.0, 1.0)])
    edges = [p.size for p in front[1:]] + [1.0]
    return sum(p.quality * max(edge - p.size, 0.0) for p, edge in zip(front, edges))
