"""An estimator of the user on the target's rows alone."""

from transmeter.learners.combination import TARGET_PRIOR
from transmeter.learners.regression.member import EstimatorMember, fit_estimator
from transmeter.learners.regression.task import Shared, Task

NEEDS_SOURCE = False


def members(task: Task, source: Shared | None) -> list[EstimatorMember]:
    """Fit the estimator of every split.

    Parameters
    ----------
    task : Task
        Rows of the target and splits, and the estimator.
    source : None
        Not looked at.

    Returns
    -------
    list of EstimatorMember
        One; none without an estimator.
    """
    if task.estimator is None:
        return []
    return [fit_estimator(f"target alone, {task.estimator.name}", TARGET_PRIOR, task, None, task.x[:0])]
