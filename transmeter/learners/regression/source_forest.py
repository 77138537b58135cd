"""What a random forest on the source's rows predicts, as a feature of the target: alone, or beside all others.

The forest is fitted once; the target's rows give its slope, and so its unit and sign.
"""

from dataclasses import replace
from functools import lru_cache

import numpy as np
from sklearn.ensemble import RandomForestRegressor

from transmeter.learners.regression.member import Member, fit_on_prediction
from transmeter.learners.regression.source_ridge import BESIDE
from transmeter.learners.regression.task import Shared, Task
from transmeter.learners.trees import Trees, regression_trees

NEEDS_SOURCE = True
COUNTERPART = "target_forest"  # the same learner of the target alone
TREES, LEAF, FEATURES = 100, 3, 0.5  # as of the target's forest


def members(task: Task, source: Shared) -> list[Member]:
    """Fit the forests, and the regressions of every split on what they predict.

    Parameters
    ----------
    task : Task
        Rows of the target and splits.
    source : Shared
        What it gives.

    Returns
    -------
    list of Member
        One per unit of the features and way to stand beside them.
    """
    first = next(iter(source.scales.values()))
    return [
        _member(f"forest of {source.name} {how}, in {units}, {words}", prior, task, forest, unit, penalty)
        for units, x in source.scales.items()
        for forest in [_forest_in(x, first, source.y, task.seed)]
        for words, prior, unit in source.labels
        for how, penalty in BESIDE.items()
    ]


def _member(
    name: str,
    prior: float,
    task: Task,
    forest: Trees,
    unit: tuple[float, float] | None,
    penalty: float | None,
) -> Member:
    found = fit_on_prediction(name, prior, task, forest.probabilities(task.x)[:, 0], unit, penalty)
    return replace(found, forests=[forest] * len(found.slopes))


def _forest_in(x: np.ndarray, first: np.ndarray, y: np.ndarray, seed: int) -> Trees:
    """The forest of rows x (n, d), fitted in the first unit where nothing else differs."""
    fitted = _forest(first.tobytes(), y.tobytes(), seed)
    return fitted.in_unit_of(first, x) or _forest(x.tobytes(), y.tobytes(), seed)


@lru_cache(maxsize=40)  # so that no round of splits fits them anew
def _forest(x: bytes, y: bytes, seed: int) -> Trees:
    """The forest of rows x (n, d) float64, y (n,) float64."""
    label = np.frombuffer(y)
    model = RandomForestRegressor(TREES, min_samples_leaf=LEAF, max_features=FEATURES, random_state=seed)
    return regression_trees(model.fit(np.frombuffer(x).reshape(len(label), -1), label))
