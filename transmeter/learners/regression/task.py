"""What learners of a quantity see: the rows that splits train on, and a source in the features of the target."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from transmeter.learners.estimator import UserEstimator
from transmeter.learners.linear import with_intercept
from transmeter.learners.regression.ridge import Normal, normal
from transmeter.learners.task import WIDE, basis_of, in_units, labelled_rows, rows_of
from transmeter.network.source import Encoded, Source
from transmeter.tables.labels import in_unit, unit_of
from transmeter.tables.splits import seed_of

SAME_UNIT, OWN_UNIT = 3.0, 0.3  # priors of members by the unit of a label that may count as it is, beside 1
ALIKE = 3.0  # standard deviations that means of a label in one unit are apart, and times that its spreads differ


@dataclass(frozen=True)
class Task:
    """The target's rows that any split trains on.

    Attributes
    ----------
    x
        (n, d) features, or their principal components.
    y
        (n,) quantity, less its mean and over its standard deviation.
    weights
        (splits, n) 1 where a split trains on a row, else 0.
    rows
        (splits, m) numbers of the rows that a split trains on; the first of them again where it has fewer than others.
    counted
        (splits, m) whether a row is not there again.
    basis
        (features, d) that leads from the encoded features to `x`.
    unit
        Mean and standard deviation of the quantity over all labelled rows, in its unit.
    equations
        Normal equations of every split, with an intercept.
    seed
        Of learners that choose at random on a source.
    seeds
        (splits,) of learners that choose at random on the rows of a split.
    estimator
        That the user adds to the learners; None: none.
    """

    x: np.ndarray
    y: np.ndarray
    weights: np.ndarray
    rows: np.ndarray
    counted: np.ndarray
    basis: np.ndarray
    unit: tuple[float, float]
    equations: Normal
    seed: int
    seeds: tuple[int, ...]
    estimator: UserEstimator | None = None


@dataclass(frozen=True)
class Shared:
    """Labelled rows of a source in the features of the target.

    Attributes
    ----------
    name
        Of the source.
    scales
        Unit of the features -> (n, d).
    y
        (n,) its quantity, less its mean and over its standard deviation.
    unit
        Mean and standard deviation of its quantity in the unit of `Task.y`, with which it counts as it is; None where
        the units of both seem to differ.
    """

    name: str
    scales: dict[str, np.ndarray]
    y: np.ndarray
    unit: tuple[float, float] | None

    @property
    def labels(self) -> list[tuple[str, float, tuple[float, float] | None]]:
        """Words for the units that its quantity is looked at in, their prior and the unit; None for its own."""
        own = "label in its own unit"
        if self.unit is None:
            return [(own, 1.0, None)]
        return [(own, OWN_UNIT, None), ("label as it is", SAME_UNIT, self.unit)]


def task_of(target: Encoded, training: Sequence[np.ndarray], seed: int, estimator: UserEstimator | None = None) -> Task:
    """The task of a target with a quantity.

    Parameters
    ----------
    target
        Table whose labelled rows are trained on.
    training
        Row numbers of every split.
    seed
        Of learners that choose at random.
    estimator
        That the user adds to the learners.

    Returns
    -------
    Task
        Rows in the order of the table.
    """
    rows, inside, seen, counted = rows_of(training)
    unit = unit_of(target.table.quantity)
    basis = basis_of(target, WIDE)
    x, y = target.x.numpy()[rows] @ basis, in_unit(target.table.quantity[rows], unit)
    weights = inside.astype(np.float64)
    return Task(
        x=x,
        y=y,
        weights=weights,
        rows=seen,
        counted=counted,
        basis=basis,
        unit=unit,
        equations=normal(with_intercept(x), y, weights),
        seed=seed,
        seeds=tuple(seed_of(seed, part) for part in training),
        estimator=estimator,
    )


def shared(source: Source, target: Encoded, task: Task) -> Shared | None:
    """The source as the learners of a task take it.

    Parameters
    ----------
    source
        Source with a quantity whose columns are named as the target's.
    target, task
        The target and its splits.

    Returns
    -------
    Shared or None
        None without a column of the target, and for a quantity that is constant.
    """
    rows = labelled_rows(source)
    scales = in_units(source, target, rows, task.basis)
    quantity = source.table.quantity[rows]
    if not scales or np.ptp(quantity) == 0:
        return None
    mean, deviation = unit_of(quantity)
    apart = abs(mean - task.unit[0]) / max(deviation, task.unit[1])
    times = max(deviation / task.unit[1], task.unit[1] / deviation)
    unit = ((mean - task.unit[0]) / task.unit[1], deviation / task.unit[1]) if max(apart, times) < ALIKE else None
    return Shared(source.table.name, scales, in_unit(quantity, (mean, deviation)), unit)
