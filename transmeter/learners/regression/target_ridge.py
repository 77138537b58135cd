"""Ridge regression on the target's rows alone, under several penalties.

Hoerl & Kennard, "Ridge regression: biased estimation for nonorthogonal problems", Technometrics 1970.
"""

from transmeter.learners.combination import TARGET_PRIOR
from transmeter.learners.regression.member import Member, fit_ridge
from transmeter.learners.regression.task import Shared, Task

NEEDS_SOURCE = False
PENALTIES = (1.0, 5.0, 25.0, 125.0, 625.0)


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
    return [fit_ridge(f"target alone, ridge, penalty {p:g}", TARGET_PRIOR, task, p) for p in PENALTIES]
