"""One fitted learner of a combination: what it predicts, and how well it predicts target rows it has not seen."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from sklearn.base import BaseEstimator

from transmeter.learners import linear
from transmeter.learners.estimator import FAILED
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


@dataclass(frozen=True)
class EstimatorMember:
    """An estimator of the user, fitted on every split.

    Attributes
    ----------
    name : str
        What is shown.
    evidence : ndarray of shape (splits,)
        See `Member`; FAILED where a fit failed.
    models : list of BaseEstimator or None
        One per split, None where its fit failed.
    classes : int
        Number of classes.
    """

    name: str
    evidence: np.ndarray
    models: list[BaseEstimator | None]
    classes: int

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        """(splits, n, classes) of rows x (n, d) in the task's features; even odds where a fit failed."""
        return np.stack([_probabilities(model, x, self.classes) for model in self.models])


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


def fit_estimator(name: str, task: Task, source: Shared | None, x: np.ndarray) -> EstimatorMember:
    """Fit the user's estimator on the target's rows and, beside them, on those of a source, as heavy in all.

    Parameters
    ----------
    name : str
        Of the member.
    task : Task
        Target rows and splits, and the estimator.
    source : Shared or None
        Labels of the source; None for the target alone.
    x : ndarray of shape (n, d)
        Rows of the source, in one of its units.

    Returns
    -------
    EstimatorMember
        Its evidence is that of the target's rows, in folds.
    """
    models, seen = [], np.full((*task.rows.shape, task.classes), 1 / task.classes)
    for split in range(len(task.rows)):
        model, real, left_out = _in_folds(task, split, source, x)
        models.append(model)
        if model is not None:
            seen[split, real] = left_out
    there = np.array([model is not None for model in models])
    return EstimatorMember(name, np.where(there, evidence(task, seen), FAILED), models, task.classes)


def _in_folds(
    task: Task, split: int, source: Shared | None, x: np.ndarray
) -> tuple[BaseEstimator | None, np.ndarray, np.ndarray | None]:
    """The estimator of a split, which of `task.rows` it trains on, and what it predicts of these without their fold."""
    estimator, real = task.estimator, task.row_weights[split] > 0  # the others are there twice
    rows, weights = task.rows[split][real], task.row_weights[split][real]
    more, codes, counted = x[:0], task.codes[:0], weights[:0]
    if source is not None:
        theirs, codes = np.nonzero(source.memberships[split])  # a row of several classes is there with each
        more, counted = (
            x[theirs],
            weights.sum() * source.weights[split][theirs] * source.memberships[split][theirs, codes],
        )

    def fit(part: np.ndarray) -> BaseEstimator:
        both = np.concatenate([task.x[rows[part]], more]), np.concatenate([task.codes[rows[part]], codes])
        return estimator.fit(*both, np.concatenate([weights[part], counted]), task.seeds[split])

    def predict(model: BaseEstimator, part: np.ndarray) -> np.ndarray:
        return _probabilities(model, task.x[rows[part]], task.classes)

    model, left_out = estimator.in_folds(task.codes[rows], fit, predict)
    return model, real, left_out


def _probabilities(model: BaseEstimator | None, x: np.ndarray, classes: int) -> np.ndarray:
    """(n, classes) by a model that may not know all of them. Raises ValueError for what are no probabilities."""
    if model is None:
        return np.full((len(x), classes), 1 / classes)
    found = np.zeros((len(x), classes))
    found[:, model.classes_] = model.predict_proba(x)
    if not np.isfinite(found).all():
        raise ValueError("its probabilities are not finite")
    return found


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
