"""The average of all learners, each weighed by how well it predicts target rows that it has not seen.

Bayesian model averaging with the leave-one-out likelihood in the place of the marginal one ("pseudo-BMA": Geisser &
Eddy, JASA 1979; Yao et al., "Using stacking to average Bayesian predictive distributions", 2018, arXiv 1704.02030),
tempered because few rows overstate what they know. It can fall back on the target alone.

What the target alone gives and what every source gives are averages by themselves, with the weight of all their
members; so the combination with one source, with several, or with none is an average of these, without another fit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

import numpy as np
from scipy.special import logsumexp

import transmeter.learners
from transmeter.learners.estimator import UserEstimator
from transmeter.learners.member import Member
from transmeter.learners.task import Shared, Task, shared, task_of
from transmeter.network.source import Encoded, Source

COMBINATION = "combination"  # its name among learners
TEMPER = 0.5  # exponent of the likelihood of FEW labelled rows; of more it falls by the root, so that the likelihood of
FEW = 40  # many rows, which differ in the same way, does not leave one member alone
TARGET_PRIOR = 1.4  # prior weight of a member that has not seen a source, beside 1 of one that has

NO_WEIGHT = -1e9  # logarithm of a weight that counts only where there is no other


@dataclass(frozen=True)
class Part:
    """What some members predict together.

    Attributes
    ----------
    log_weight : ndarray of shape (splits,)
        Logarithm of the weight of all of them; NO_WEIGHT of none.
    probabilities : ndarray of shape (splits, n, classes)
        Their weighted average; of a quantity (splits, n, 1) that, less its mean and over its standard deviation.
    """

    log_weight: np.ndarray
    probabilities: np.ndarray

    def first(self, splits: int) -> "Part":
        """The same of the first splits."""
        return Part(self.log_weight[:splits], self.probabilities[:splits])


@cache
def learners(folder: ModuleType = transmeter.learners) -> dict[str, ModuleType]:
    """Find the learners: the modules of a folder that have a function `members`.

    Parameters
    ----------
    folder : module
        Package of the learners.

    Returns
    -------
    dict
        Module by name, in alphabetical order.
    """
    names = sorted(m.name for m in iter_modules(folder.__path__))
    modules = {name: import_module(f"{folder.__name__}.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "members")}


def target_members(task: Task, folder: ModuleType = transmeter.learners) -> dict[str, list[Member]]:
    """Fit the learners of the target alone.

    Parameters
    ----------
    task : Task
        Rows of the target and splits.
    folder : module
        Package of the learners, whose tasks and members these are.

    Returns
    -------
    dict
        Members by learner.
    """
    return {name: m.members(task, None) for name, m in learners(folder).items() if not m.NEEDS_SOURCE}


def source_members(
    task: Task, given: Sequence[Shared], folder: ModuleType = transmeter.learners
) -> dict[str, list[Member]]:
    """Fit the learners that use a source.

    Parameters
    ----------
    task : Task
        Rows of the target and splits.
    given : sequence of Shared
        What the source gives (`task.shared`).
    folder : module
        As of `target_members`.

    Returns
    -------
    dict
        Members by learner, empty lists where nothing is common.
    """
    return {
        name: [member for part in given for member in module.members(task, part)]
        for name, module in learners(folder).items()
        if module.NEEDS_SOURCE
    }


def log_weights(members: Sequence[Member], prior: float | np.ndarray, task: Task) -> np.ndarray:
    """Logarithms of the members' weights, not normalised.

    Parameters
    ----------
    members : sequence of Member
        At least one.
    prior : float, or ndarray of shape (members, 1)
        Weight of each without evidence.
    task : Task
        That they are fitted on.

    Returns
    -------
    ndarray of shape (members, splits)
    """
    rows = task.weights.sum(1)
    return TEMPER * np.sqrt(np.minimum(1, FEW / rows)) * np.stack([m.evidence for m in members]) + np.log(prior)


def predict(members: Sequence[Member], prior: float, task: Task, x: np.ndarray) -> Part:
    """Average members.

    Parameters
    ----------
    members : sequence of Member
        Perhaps none.
    prior : float
        Weight of each without evidence.
    task : Task
        That they are fitted on.
    x : ndarray of shape (n, d)
        Rows in the task's features.

    Returns
    -------
    Part
        Even odds without any weight where there are no members.
    """
    splits = len(task.weights)
    if not members:
        return Part(np.full(splits, NO_WEIGHT), np.full((splits, len(x), task.classes), 1 / task.classes))
    weights = log_weights(members, prior, task)
    total = logsumexp(weights, axis=0)
    shares = np.exp(weights - total)
    return Part(total, sum(s[:, None, None] * m.probabilities(x) for s, m in zip(shares, members)).astype(np.float32))


def average(parts: Sequence[Part]) -> Part:
    """Average parts by their weights.

    Parameters
    ----------
    parts : sequence of Part
        Of the same splits and rows, at least one with members.

    Returns
    -------
    Part
    """
    weights = np.stack([p.log_weight for p in parts])
    total = logsumexp(weights, axis=0)
    shares = np.exp(weights - total)
    return Part(total, sum(s[:, None, None] * p.probabilities for s, p in zip(shares.astype(np.float32), parts)))


def chain(first: Part, then: Part) -> Part:
    """One part of the splits of two.

    Parameters
    ----------
    first, then : Part
        Of the same rows.

    Returns
    -------
    Part
    """
    weights = np.concatenate([first.log_weight, then.log_weight])
    return Part(weights, np.concatenate([first.probabilities, then.probabilities]))


def learn(
    target: Encoded,
    sources: Sequence[Source],
    training: Sequence[np.ndarray],
    rows: np.ndarray,
    seed: int,
    estimator: UserEstimator | None = None,
) -> tuple[dict[str, Part], list[dict[str, Part]]]:
    """Fit all learners on every split and predict rows of the target.

    Parameters
    ----------
    target : Encoded
        Whose labelled rows are trained on.
    sources : sequence of Source
        With columns named as the target's; none is needed.
    training : sequence of ndarray of int
        Row numbers of every split.
    rows : ndarray of int
        To predict.
    seed : int
        Of the forests.
    estimator : UserEstimator or None
        That joins them.

    Returns
    -------
    dict
        What the target alone gives, by learner.
    list of dict
        What every source gives, by learner.
    """
    task = task_of(target, training, seed, estimator)
    x = target.x.numpy()[rows] @ task.basis
    alone = {name: predict(found, TARGET_PRIOR, task, x) for name, found in target_members(task).items()}
    given = []
    for source in sources:
        members = source_members(task, shared(source, target, task))
        given.append({name: predict(found, 1.0, task, x) for name, found in members.items()})
    return alone, given
