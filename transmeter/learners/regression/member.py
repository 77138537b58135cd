"""One fitted learner of a quantity: what it predicts, and how well it predicts target rows it has not seen."""

from dataclasses import dataclass, field

import numpy as np
from sklearn.base import BaseEstimator

from transmeter.learners.estimator import FAILED
from transmeter.learners.linear import with_intercept
from transmeter.learners.regression.ridge import FREE, Normal, left_out, normal, solve
from transmeter.learners.regression.task import Shared, Task
from transmeter.learners.trees import Trees, predict_each
from transmeter.tables.labels import unit_of

AS_IT_IS, IN_ITS_UNIT = (5.0, 2.0), (1.0, FREE)  # penalties of the slope and the intercept of what a source predicts
DOUBT = 1.0  # rows with a standard deviation for an error that every evidence contains: few small errors prove little
TINY = 1e-12  # least variance, of a label that is constant


@dataclass(frozen=True)
class Member:
    """A linear model of features and, perhaps, of what a forest predicts, fitted on every split.

    Attributes
    ----------
    name : str
        What is shown.
    prior : float
        Weight without evidence.
    evidence : ndarray of shape (splits,)
        Log-likelihood of the quantities that a split trains on, each predicted without its row.
    coefficients : ndarray of shape (splits, d + 1)
        Of the task's features, the intercept last.
    slopes : ndarray of shape (splits,)
        Of what the forests predict.
    forests : list of Trees
        One per split, several of which may be the same; empty where there are none.
    """

    name: str
    prior: float
    evidence: np.ndarray
    coefficients: np.ndarray
    slopes: np.ndarray = field(default_factory=lambda: np.zeros(0))
    forests: list[Trees] = field(default_factory=list)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """(splits, n) quantities of rows x (n, d), in the task's features and unit."""
        linear = self.coefficients @ with_intercept(x).T
        return linear + self.slopes[:, None] * predict_each(self.forests, x)[..., 0] if self.forests else linear


@dataclass(frozen=True)
class EstimatorMember:
    """An estimator of the user, fitted on every split.

    Attributes
    ----------
    name, prior, evidence
        As of `Member`; the evidence is FAILED where a fit failed.
    models : list of BaseEstimator or None
        One per split, None where its fit failed.
    """

    name: str
    prior: float
    evidence: np.ndarray
    models: list[BaseEstimator | None]

    def predict(self, x: np.ndarray) -> np.ndarray:
        """(splits, n) quantities of rows x (n, d), in the task's features and unit; 0 where a fit failed."""
        return np.stack([np.zeros(len(x)) if m is None else _quantities(m, x) for m in self.models])


def evidence(task: Task, predicted: np.ndarray) -> np.ndarray:
    """Log-likelihood of the quantities that splits train on, by a normal distribution of the errors' own variance.

    Parameters
    ----------
    task : Task
        Target rows and splits.
    predicted : ndarray of shape (splits, m)
        Of the rows `task.rows`.

    Returns
    -------
    ndarray of shape (splits,)
        Up to a constant of the split.
    """
    y, rows = task.y[task.rows], task.counted.sum(1)
    mean = (task.counted * y).sum(1, keepdims=True) / rows[:, None]
    variance, squares = ((task.counted * (y - other) ** 2).sum(1) for other in (mean, predicted))
    doubt = DOUBT * np.maximum(variance / rows, TINY)
    return -rows / 2 * np.log((squares + doubt) / (rows + DOUBT))


def fit_ridge(name: str, prior: float, task: Task, penalty: float, source: Normal | None = None) -> Member:
    """Fit a ridge regression on the target's rows and, beside them, on those of a source.

    Parameters
    ----------
    name : str
        Of the member.
    prior : float
        Of the member.
    task : Task
        Target rows and splits.
    penalty : float
        Of squared coefficients, but the intercept's.
    source : Normal or None
        Equations of the source's rows, of every split or of all; None for the target alone.

    Returns
    -------
    Member
        Its evidence is that of the target's rows.
    """
    equations = task.equations
    if source is not None:
        equations = Normal(equations.gram + source.gram, equations.moment + source.moment)
    penalties = np.full(equations.moment.shape[-1], float(penalty))
    penalties[-1] = FREE
    coefficients, inverse = solve(equations, penalties)
    seen = left_out(with_intercept(task.x), task.y, coefficients, inverse, task.rows)
    return Member(name, prior, evidence(task, seen), coefficients)


def fit_on_prediction(
    name: str, prior: float, task: Task, predicted: np.ndarray, unit: tuple[float, float] | None, penalty: float | None
) -> Member:
    """Fit the target's quantity on what a source's model predicts, and on features.

    Parameters
    ----------
    name : str
        Of the member.
    prior : float
        Of the member.
    task : Task
        Target rows and splits.
    predicted : ndarray of shape (n,)
        Of the rows `task.x`, in the source's unit.
    unit : tuple of float or None
        Of `Shared`: the intercept and slope that these are drawn to; None: the slope to 0, and the intercept is free.
    penalty : float or None
        Of squared coefficients of the features; None leaves them out.

    Returns
    -------
    Member
        Whose slopes are of that prediction; without the forests that give it.
    """
    features = task.x[:, :0] if penalty is None else task.x
    columns = with_intercept(np.column_stack([features, predicted]))
    penalties = np.full(columns.shape[1], 1.0 if penalty is None else float(penalty))
    penalties[-2:] = AS_IT_IS if unit else IN_ITS_UNIT
    mean, deviation = unit or (0.0, 0.0)
    offset = mean + deviation * predicted
    coefficients, inverse = solve(normal(columns, task.y - offset, task.weights), penalties)
    seen = left_out(columns, task.y - offset, coefficients, inverse, task.rows) + offset[task.rows]
    features_of = np.zeros((len(coefficients), task.x.shape[1]))
    features_of[:, : features.shape[1]] = coefficients[:, :-2]
    return Member(
        name=name,
        prior=prior,
        evidence=evidence(task, seen),
        coefficients=np.column_stack([features_of, coefficients[:, -1] + mean]),
        slopes=coefficients[:, -2] + deviation,
    )


def fit_estimator(name: str, prior: float, task: Task, source: Shared | None, x: np.ndarray) -> EstimatorMember:
    """Fit the user's estimator on the target's rows and, beside them, on those of a source, as heavy in all.

    Parameters
    ----------
    name : str
        Of the member.
    prior : float
        Of the member.
    task : Task
        Target rows and splits, and the estimator.
    source : Shared or None
        Its quantity, which counts as it is where its unit seems to be the target's; None for the target alone.
    x : ndarray of shape (n, d)
        Rows of the source, in one of its units.

    Returns
    -------
    EstimatorMember
        Its evidence is that of the target's rows, in folds.
    """
    models, seen = [], np.zeros(task.rows.shape)
    for split in range(len(task.rows)):
        model, left_out = _in_folds(task, split, source, x)
        models.append(model)
        if model is not None:
            seen[split, task.counted[split]] = left_out
    there = np.array([model is not None for model in models])
    return EstimatorMember(name, prior, np.where(there, evidence(task, seen), FAILED), models)


def _in_folds(
    task: Task, split: int, source: Shared | None, x: np.ndarray
) -> tuple[BaseEstimator | None, np.ndarray | None]:
    """The estimator of a split, and what it predicts of each row that it trains on without the row's fold."""
    estimator, rows = task.estimator, task.rows[split][task.counted[split]]
    theirs = np.zeros(0) if source is None else _in_unit_of(task.y[rows], source)
    counted = np.full(len(theirs), len(rows) / max(len(theirs), 1))

    def fit(part: np.ndarray) -> BaseEstimator:
        both = np.concatenate([task.x[rows[part]], x]), np.concatenate([task.y[rows[part]], theirs])
        return estimator.fit(*both, np.concatenate([np.ones(part.sum()), counted]), task.seeds[split])

    def predict(model: BaseEstimator, part: np.ndarray) -> np.ndarray:
        return _quantities(model, task.x[rows[part]])

    return estimator.in_folds(task.y[rows], fit, predict)


def _in_unit_of(y: np.ndarray, source: Shared) -> np.ndarray:
    """(n,) quantity of a source in the unit of some of the target's y: as it is, or with their mean and deviation."""
    mean, deviation = source.unit or unit_of(y)
    return mean + deviation * source.y


def _quantities(model: BaseEstimator, x: np.ndarray) -> np.ndarray:
    """(n,) predictions. Raises ValueError for what are no numbers."""
    found = np.asarray(model.predict(x), dtype=np.float64).reshape(len(x))
    if not np.isfinite(found).all():
        raise ValueError("its predictions are not finite")
    return found
