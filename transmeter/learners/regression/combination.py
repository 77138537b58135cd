"""The average of all learners of a quantity, weighed as those of classes are (`learners.combination`)."""

from collections.abc import Sequence

import numpy as np
from scipy.special import logsumexp

from transmeter.learners import combination, regression
from transmeter.learners.combination import NO_WEIGHT, Part
from transmeter.learners.estimator import UserEstimator
from transmeter.learners.regression.member import Member
from transmeter.learners.regression.task import Shared, Task, shared, task_of
from transmeter.network.source import Encoded, Source

TEMPER = 0.75  # exponent of the likelihood


def counterparts() -> dict[str, str]:
    """Find the learners that use a source.

    Returns
    -------
    dict
        Name of each -> name of the same learner of the target alone.
    """
    return {name: m.COUNTERPART for name, m in combination.learners(regression).items() if m.NEEDS_SOURCE}


def target_members(task: Task) -> dict[str, list[Member]]:
    """Fit the learners of the target alone.

    Parameters
    ----------
    task : Task
        Rows of the target and splits.

    Returns
    -------
    dict
        Members by learner.
    """
    return combination.target_members(task, regression)


def source_members(task: Task, given: Shared | None) -> dict[str, list[Member]]:
    """Fit the learners that use a source.

    Parameters
    ----------
    task : Task
        Rows of the target and splits.
    given : Shared or None
        What the source gives (`task.shared`).

    Returns
    -------
    dict
        Members by learner, empty lists where nothing is common.
    """
    return combination.source_members(task, [given] if given else [], regression)


def log_weights(members: Sequence[Member]) -> np.ndarray:
    """Logarithms of the members' weights, not normalised.

    Parameters
    ----------
    members : sequence of Member
        At least one.

    Returns
    -------
    ndarray of shape (members, splits)
    """
    return np.stack([TEMPER * m.evidence + np.log(m.prior) for m in members])


def predict(members: Sequence[Member], task: Task, x: np.ndarray) -> Part:
    """Average members.

    Parameters
    ----------
    members : sequence of Member
        Perhaps none.
    task : Task
        That they are fitted on.
    x : ndarray of shape (n, d)
        Rows in the task's features.

    Returns
    -------
    Part
        Quantities in the task's unit, in one column; 0 without any weight where there are no members.
    """
    splits = len(task.weights)
    if not members:
        return Part(np.full(splits, NO_WEIGHT), np.zeros((splits, len(x), 1), np.float32))
    weights = log_weights(members)
    total = logsumexp(weights, axis=0)
    predicted = sum(share[:, None] * m.predict(x) for share, m in zip(np.exp(weights - total), members))
    return Part(total, predicted[..., None].astype(np.float32))


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
        With a quantity, whose labelled rows are trained on.
    sources : sequence of Source
        With a quantity and columns named as the target's; none is needed.
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
    alone = {name: predict(found, task, x) for name, found in target_members(task).items()}
    given = []
    for source in sources:
        members = source_members(task, shared(source, target, task))
        given.append({name: predict(found, task, x) for name, found in members.items()})
    return alone, given
