"""Names of the metrics of classes, and what gains in them are counted in."""

from math import inf
from typing import Literal, get_args

Metric = Literal["balanced_accuracy", "accuracy", "roc_auc", "average_precision", "macro_f1", "log_loss"]
METRICS: tuple[str, ...] = get_args(Metric)
BALANCED = "balanced_accuracy"
LOG_LOSS = "log_loss"
ACCURACIES = (BALANCED, "accuracy")  # for whose gains a prior is fitted
ONE_VS_REST = ("roc_auc", "average_precision")


def unit(metric: str | None) -> str:
    """The unit of gains.

    Parameters
    ----------
    metric : str or None
        One of `METRICS`, or "r2".

    Returns
    -------
    str
        In words; a gain in log loss is by how much it falls.
    """
    return "hundredths of a nat" if metric == LOG_LOSS else "percentage points"


def points(metric: str | None) -> str:
    """The unit of gains, short.

    Parameters
    ----------
    metric : str or None
        As of `unit`.

    Returns
    -------
    str
        To stand behind a number.
    """
    return unit(metric) if metric == LOG_LOSS else "points"


def level(metric: str) -> str:
    """A metric with the unit of what it reaches.

    Parameters
    ----------
    metric : str
        One of `METRICS`, or "r2".

    Returns
    -------
    str
        Log loss is negative, so that more is better.
    """
    return f"negative {metric} in 1/100 nat" if metric == LOG_LOSS else f"{metric} in %"


def bounds(metric: str) -> tuple[float, float]:
    """What a metric cannot leave.

    Parameters
    ----------
    metric : str
        One of `METRICS`, or "r2".

    Returns
    -------
    tuple of float
        The least and the largest value, in the unit of `level`.
    """
    if metric == LOG_LOSS:
        return -inf, 0.0
    return (0.0 if metric in METRICS else -inf), 100.0


def decisions(metric: str, rarer: str | None) -> list[str]:
    """What is decided of gains in a metric.

    Parameters
    ----------
    metric : str
        One of `METRICS`, or "r2".
    rarer : str or None
        Of two classes the one with fewer rows; None of more.

    Returns
    -------
    list of str
        Lines that begin with the metric; none of accuracies and of R2.
    """
    if metric in ACCURACIES or metric not in METRICS:
        return []
    falls = " by which it falls" if metric == LOG_LOSS else ""
    lines = [f"{metric}: gains are in {unit(metric)}{falls}, as measured: no prior is fitted for them"]
    if metric in ONE_VS_REST and not (metric == "roc_auc" and rarer):  # which is the same of both classes
        of = f"class '{rarer}', the rarer one," if rarer else "every class, then averaged,"
        lines.append(f"{metric}: of {of} against the rest")
    return lines
