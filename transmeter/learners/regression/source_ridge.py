"""What a ridge regression on the source's rows predicts, as a feature of the target: alone, or beside all others.

The target's rows give its slope, and so its unit and sign.
"""

import numpy as np

from transmeter.learners.linear import with_intercept
from transmeter.learners.regression.member import Member, fit_on_prediction
from transmeter.learners.regression.ridge import FREE, normal, solve
from transmeter.learners.regression.task import Shared, Task

NEEDS_SOURCE = True
COUNTERPART = "target_ridge"  # the same learner of the target alone
PENALTY = 10.0  # of the source's regression
BESIDE = {"alone": None, "and features": 5.0, "and few features": 50.0}  # penalty of the features beside the prediction


def members(task: Task, source: Shared) -> list[Member]:
    """Fit the regressions of every split.

    Parameters
    ----------
    task : Task
        Rows of the target and splits.
    source : Shared
        What it gives.

    Returns
    -------
    list of Member
        One per unit of the features, unit of the quantity, and way to stand beside the features.
    """
    return [
        _member(f"ridge of {source.name} {how}, in {units}, {words}", prior, task, plane, unit, penalty)
        for units, x in source.scales.items()
        for plane in [coefficients_of(x, source.y)]
        for words, prior, unit in source.labels
        for how, penalty in BESIDE.items()
    ]


def coefficients_of(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The ridge regression of a source.

    Parameters
    ----------
    x
        (n, d) its rows.
    y
        (n,) its quantity.

    Returns
    -------
    np.ndarray
        (d + 1,), the intercept last.
    """
    wide = with_intercept(x)
    penalties = np.full(wide.shape[1], PENALTY)
    penalties[-1] = FREE
    return solve(normal(wide, y, np.ones((1, len(y)))), penalties)[0][0]


def _member(
    name: str,
    prior: float,
    task: Task,
    plane: np.ndarray,
    unit: tuple[float, float] | None,
    penalty: float | None,
) -> Member:
    found = fit_on_prediction(name, prior, task, with_intercept(task.x) @ plane, unit, penalty)
    return Member(name, prior, found.evidence, found.coefficients + found.slopes[:, None] * plane)
