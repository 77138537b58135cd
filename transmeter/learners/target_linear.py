"""Logistic regression on the target's rows alone, under several penalties."""

from transmeter.learners.task import Member, Shared, Task, fit_member

NEEDS_SOURCE = False
PENALTIES = (1 / 0.03, 1 / 0.1, 1 / 0.3)


def members(task: Task, source: Shared | None) -> list[Member]:
    """Fit the regressions of every split.

    Parameters
    ----------
    task
        Rows of the target and splits.
    source
        Not looked at.

    Returns
    -------
    list of Member
        One per penalty.
    """
    return [fit_member(f"target alone, C={1 / p:.2g}", task, p, None, task.x[:0], 0.0) for p in PENALTIES]
