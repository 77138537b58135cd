"""Plain learners of a quantity: boosting on the target alone, and a ridge or boosting on pooled rows."""

from collections.abc import Sequence

import numpy as np
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.linear_model import Ridge

from transmeter.learners.regression.task import shared, task_of
from transmeter.network.source import Encoded, Source
from transmeter.tables.labels import in_unit, unit_of
from transmeter.tables.splits import Split, seed_of

SOURCE_ROW = 0.3  # weight of a source row beside a target row
PENALTY = 10.0  # of the ridge


def boosting(target: Encoded, splits: Sequence[Split], rows: np.ndarray, seed: int) -> np.ndarray:
    """Quantities of target rows, learned from each split.

    Parameters
    ----------
    target : Encoded
        Target with a quantity.
    splits : sequence of Split
        Whose `train` rows are learned from.
    rows : ndarray of int
        Rows to predict.
    seed : int
        Of the samples of rows and features.

    Returns
    -------
    ndarray of shape (splits, len(rows), 1)
        Less the mean of the labelled rows, and over their standard deviation.
    """
    x, y = target.x.numpy(), in_unit(target.table.quantity, unit_of(target.table.quantity))
    predicted = [booster(seed_of(seed, s.train)).fit(x[s.train], y[s.train]).predict(x[rows]) for s in splits]
    return np.stack(predicted)[..., None].astype(np.float32)


def pooled_quantity(source: Source, target: Encoded, splits: Sequence[Split], seed: int | None = None) -> np.ndarray:
    """Quantities of all target rows by one model of all rows of target and source, the plainest way to use a source.

    Parameters
    ----------
    source : Source
        With a quantity and columns named as the target's. Its quantity counts as it is where the units seem to be the
        same, else with the mean and spread of the target's.
    target : Encoded
        Target with a quantity.
    splits : sequence of Split
        Whose `train` rows are learned from.
    seed : int or None
        Of gradient boosting; None for a ridge regression.

    Returns
    -------
    ndarray of shape (splits, n, 1)
        Less the mean of the labelled rows, and over their standard deviation. A row of the source counts as SOURCE_ROW
        of a target row.
    """
    task = task_of(target, [split.train for split in splits], 0)
    x, part = target.x.numpy() @ task.basis, shared(source, target, task)
    theirs = next(iter(part.scales.values())) if part else task.x[:0]
    found = []
    for mine in task.weights > 0:
        y = task.y[mine]
        mean, deviation = (part and part.unit) or (y.mean(), y.std())
        given = mean + deviation * part.y if part else y[:0]
        weights = np.repeat([1.0, SOURCE_ROW], [len(y), len(theirs)])
        model = Ridge(PENALTY) if seed is None else booster(seed)
        model.fit(np.concatenate([task.x[mine], theirs]), np.concatenate([y, given]), sample_weight=weights)
        found.append(model.predict(x))
    return np.stack(found)[..., None].astype(np.float32)


def booster(seed: int) -> GradientBoostingRegressor:
    """Gradient boosting before its fit.

    Parameters
    ----------
    seed : int
        Of the samples of rows and features.

    Returns
    -------
    GradientBoostingRegressor
    """
    return GradientBoostingRegressor(
        n_estimators=60, learning_rate=0.1, max_depth=3, subsample=0.8, max_features="sqrt", random_state=seed
    )
