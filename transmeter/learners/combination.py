"""The average of all learners, each weighed by how well it predicts target rows that it has not seen.

Bayesian model averaging with the leave-one-out likelihood in the place of the marginal one ("pseudo-BMA": Geisser &
Eddy, JASA 1979; Yao et al., "Using stacking to average Bayesian predictive distributions", 2018, arXiv 1704.02030),
tempered because few rows overstate what they know. It can fall back on the target alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

import numpy as np

import transmeter.learners
from transmeter.learners.linear import probabilities
from transmeter.learners.task import Member, Shared, Task

TEMPER = 0.5  # exponent of the likelihood
ALONE = 2.0  # prior weight of a member that has not seen the source, beside 1 of one that has


@dataclass(frozen=True)
class Combination:
    """Members and their weights.

    Attributes
    ----------
    members
        Those that are averaged.
    weights
        (splits, members), rows sum to 1.
    """

    members: Sequence[Member]
    weights: np.ndarray

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        """Average the members' probabilities.

        Parameters
        ----------
        x
            (n, d) rows in the task's features.

        Returns
        -------
        np.ndarray
            (splits, n, classes).
        """
        parts = (w[:, None, None] * probabilities(m.coefficients, x) for m, w in zip(self.members, self.weights.T))
        return sum(parts)


@cache
def learners() -> tuple[ModuleType, ...]:
    """Find the learners: the modules of this folder that have a function `members`.

    Returns
    -------
    tuple of modules
        In alphabetical order.
    """
    path = transmeter.learners.__path__
    modules = [import_module(f"transmeter.learners.{m.name}") for m in iter_modules(path)]
    return tuple(m for m in modules if hasattr(m, "members"))


def target_members(task: Task) -> list[Member]:
    """Fit the learners of the target alone.

    Parameters
    ----------
    task
        Rows of the target and splits.

    Returns
    -------
    list of Member
        Of every such learner.
    """
    return [member for module in learners() if not module.NEEDS_SOURCE for member in module.members(task, None)]


def source_members(task: Task, parts: Sequence[Shared]) -> list[Member]:
    """Fit the learners that use a source.

    Parameters
    ----------
    task
        Rows of the target and splits.
    parts
        What the source gives (`task.shared`).

    Returns
    -------
    list of Member
        Of every such learner; none where nothing is common.
    """
    return [m for module in learners() if module.NEEDS_SOURCE for part in parts for m in module.members(task, part)]


def combine(alone: Sequence[Member], transferred: Sequence[Member]) -> Combination:
    """Weigh members.

    Parameters
    ----------
    alone
        Members of the target alone.
    transferred
        Members that have seen a source, perhaps of several sources, or none.

    Returns
    -------
    Combination
        Of all of them.
    """
    prior = np.log(np.repeat([ALONE, 1.0], [len(alone), len(transferred)]))
    members = [*alone, *transferred]
    weights = TEMPER * np.stack([m.evidence for m in members], axis=1) + prior
    weights = np.exp(weights - weights.max(1, keepdims=True))
    return Combination(members, weights / weights.sum(1, keepdims=True))
