"""Logistic regression on the rows of target and source together, the source as heavy as the target, less or more.

Wu & Dietterich, "Improving SVM accuracy by training on auxiliary data sources", ICML 2004.
"""

from transmeter.learners.member import Member, fit_member
from transmeter.learners.task import PENALTY, Shared, Task

NEEDS_SOURCE = True
COUNTERPART = "target_linear"  # the same learner of the target alone
WEIGHTS = (0.3, 1.0, 3.0, 10.0)  # of all source rows together, the target's being 1


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
        One per unit of the features and weight.
    """
    return [
        fit_member(f"pooled with {source.name}, weight {weight:g}, in {units}", task, PENALTY, source, x, weight)
        for units, x in source.scales.items()
        for weight in WEIGHTS
    ]
