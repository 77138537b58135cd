"""Logistic regression on the target's rows alone, under several penalties."""

from transmeter.learners.member import Member, fit_member
from transmeter.learners.task import Shared, Task

NEEDS_SOURCE = False
PENALTIES = (1 / 0.03, 1 / 0.1, 1 / 0.3, 1.0)


def members(task: Task, source: Shared | None) -> list[Member]:
    """Fit the regressions of every split.

    Parameters
    ----------
    task : Task
        Rows of the target and splits.
    source : None
        Not looked at.

    Returns
    -------
    list of Member
        One per penalty.
    """
    return [fit_member(f"target alone, C={1 / p:.2g}", task, p, None, task.x[:0], 0.0) for p in PENALTIES]
