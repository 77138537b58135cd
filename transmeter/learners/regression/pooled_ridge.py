"""Ridge regression on the rows of target and source together, the source as heavy as the target, less or more.

The source's quantity counts as it is, where both units seem to be the same, and in units of its own spread: then it
has an intercept of its own, and only what the features change of it is taken over.
"""

import numpy as np

from transmeter.learners.linear import with_intercept
from transmeter.learners.regression.member import Member, fit_ridge
from transmeter.learners.regression.ridge import Normal, normal
from transmeter.learners.regression.task import Shared, Task

NEEDS_SOURCE = True
COUNTERPART = "target_ridge"  # the same learner of the target alone
WEIGHTS = (0.3, 1.0, 3.0, 10.0, 30.0)  # of all source rows together, the target's being 1
PENALTY = 10.0


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
        One per unit of the features, unit of the quantity, and weight.
    """
    return [
        fit_ridge(
            name=f"pooled with {source.name}, weight {weight:g}, in {units}, {words}",
            prior=prior,
            task=task,
            penalty=PENALTY,
            source=_times(_equations(task, source, x, unit), weight),
        )
        for units, x in source.scales.items()
        for words, prior, unit in source.labels
        for weight in WEIGHTS
    ]


def _equations(task: Task, source: Shared, x: np.ndarray, unit: tuple[float, float] | None) -> Normal:
    """Those of the source's rows x (n, d), which count as much as those that a split trains on."""
    wide, weights = with_intercept(x), np.full((1, len(source.y)), 1 / len(source.y))
    heavy, spread = task.weights.sum(1), np.ones(len(task.weights))
    if unit:
        found = normal(wide, unit[0] + unit[1] * source.y, weights)
    else:
        found = normal(wide - wide.mean(0), source.y, weights)
        spread = np.stack([task.y[w > 0].std() for w in task.weights])
    return Normal(heavy[:, None, None] * found.gram, (heavy * spread)[:, None] * found.moment)


def _times(equations: Normal, weight: float) -> Normal:
    return Normal(weight * equations.gram, weight * equations.moment)
