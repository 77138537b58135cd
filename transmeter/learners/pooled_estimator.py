"""An estimator of the user on the rows of target and source together, the source as heavy as the target."""

from transmeter.learners.member import Member, fit_estimator
from transmeter.learners.task import Shared, Task

NEEDS_SOURCE = True
COUNTERPART = "target_estimator"  # the same learner of the target alone


def members(task: Task, source: Shared) -> list[Member]:
    """Fit the estimators of every split.

    Parameters
    ----------
    task : Task
        Rows of the target and splits, and the estimator.
    source : Shared
        What it gives.

    Returns
    -------
    list of Member
        One per unit of the features; none without an estimator.
    """
    if task.estimator is None:
        return []
    return [
        fit_estimator(f"pooled with {source.name}, {task.estimator.name}, in {units}", task, source, x)
        for units, x in source.scales.items()
    ]
