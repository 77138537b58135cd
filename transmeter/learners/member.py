"""One fitted learner of a combination: what it predicts, and how well it predicts target rows it has not seen."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from transmeter.learners import linear
from transmeter.learners.task import Shared, Task
from transmeter.learners.trees import Trees, predict_each

UNSURE = 0.01  # least probability that a label counts with: no single row decides


class Member(Protocol):
    """One learner, fitted on every split.

    Attributes
    ----------
    name : str
        What is shown.
    evidence : ndarray of shape (splits,)
        Log-likelihood of the labels that a split trains on, each predicted without its row; classes count alike.
    """

    @property
    def name(self) -> str: ...

    @property
    def evidence(self) -> np.ndarray: ...

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        """(splits, n, classes) of rows x (n, d) in the task's features."""
        ...


@dataclass(frozen=True)
class LinearMember:
    """A logistic regression, fitted on every split.

    Attributes
    ----------
    name : str
        What is shown.
    evidence : ndarray of shape (splits,)
        See `Member`.
    coefficients : ndarray of shape (splits, regressions, d + 1)
        In the task's features, see `linear.probabilities`.
    """

    name: str
    evidence: np.ndarray
    coefficients: np.ndarray

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        """(splits, n, classes) of rows x (n, d) in the task's features."""
        return linear.probabilities(self.coefficients, x)


@dataclass(frozen=True)
class ForestMember:
    """A forest, fitted on every split.

    Attributes
    ----------
    name : str
        What is shown.
    evidence : ndarray of shape (splits,)
        See `Member`.
    forests : list of Trees
        One per split, several of which may be the same.
    """

    name: str
    evidence: np.ndarray
    forests: list[Trees]

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        """(splits, n, classes) of rows x (n, d) in the task's features."""
        return predict_each(self.forests, x)


def fit_member(
    name: str, task: Task, penalty: float, source: Shared | None, x: np.ndarray, weight: float
) -> LinearMember:
    """Fit a logistic regression on the target's rows and, beside them, on those of a source.

    Parameters
    ----------
    name : str
        Of the member.
    task : Task
        Target rows and splits.
    penalty : float
        See `linear.fit`.
    source : Shared or None
        Labels of the source; None for the target alone.
    x : ndarray of shape (n, d)
        Rows of the source, in one of its units.
    weight : float
        Of all source rows together, the target's being 1.

    Returns
    -------
    LinearMember
        Its evidence is that of the target's rows.
    """
    labels = np.broadcast_to(np.eye(task.classes)[task.codes], (*task.weights.shape, task.classes))
    weights, rows = task.weights, task.x
    if source is not None:
        theirs = weight * task.weights.sum(1, keepdims=True) * source.weights
        weights = np.concatenate([weights, theirs], axis=1)
        labels = np.concatenate([labels, source.memberships], axis=1)
        rows = np.concatenate([rows, x])
    fitted = linear.fit(rows, labels, weights, penalty, task.rows)
    return LinearMember(name, evidence(task, fitted.left_out), fitted.coefficients)


def fit_source(name: str, task: Task, penalty: float, source: Shared, x: np.ndarray) -> LinearMember:
    """Fit a logistic regression on the rows of a source alone.

    Parameters
    ----------
    name : str
        Of the member.
    task : Task
        Target rows and splits.
    penalty : float
        See `linear.fit`.
    source : Shared
        Labels of the source.
    x : ndarray of shape (n, d)
        Its rows, in one of its units.

    Returns
    -------
    LinearMember
        Its evidence is that of the target's rows, none of which it has seen.
    """
    same = (source.memberships == source.memberships[:1]).all()  # then one fit serves every split
    fits = slice(1) if same else slice(None)
    weights = task.weights.sum(1).mean() * source.weights[fits]
    nothing = np.zeros((len(weights), 0), dtype=int)
    coefficients = linear.fit(x, source.memberships[fits], weights, penalty, nothing).coefficients
    coefficients = np.broadcast_to(coefficients, (len(task.weights), *coefficients.shape[1:]))
    seen = np.stack([linear.probabilities(c, task.x[rows]) for c, rows in zip(coefficients, task.rows)])
    return LinearMember(name, evidence(task, seen), coefficients)


def evidence(task: Task, probabilities: np.ndarray) -> np.ndarray:
    """Log-likelihood of the labels that splits train on.

    Parameters
    ----------
    task : Task
        Target rows and splits.
    probabilities : ndarray of shape (splits, m, classes)
        Of the rows `task.rows`.

    Returns
    -------
    ndarray of shape (splits,)
        Classes count alike.
    """
    codes = task.codes[task.rows]
    right = np.take_along_axis(probabilities, codes[..., None], axis=2)[..., 0]
    return (task.row_weights * np.log(np.maximum(right, UNSURE))).sum(1)
