"""Logistic regression on the source's rows alone: the target's labels only tell how much it counts."""

from transmeter.learners.member import Member, fit_source
from transmeter.learners.task import PENALTY, Shared, Task

NEEDS_SOURCE = True
COUNTERPART = "target_linear"  # the same learner of the target alone


def members(task: Task, source: Shared) -> list[Member]:
    """Fit the regressions of every split, which differ where the classes are matched otherwise.

    Parameters
    ----------
    task : Task
        Rows of the target and splits.
    source : Shared
        What it gives.

    Returns
    -------
    list of Member
        One per unit of the features.
    """
    return [
        fit_source(f"{source.name} alone, in {units}", task, PENALTY, source, x) for units, x in source.scales.items()
    ]
