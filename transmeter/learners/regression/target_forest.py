"""Random forest on the target's rows alone: for quantities that no plane follows.

Breiman, "Random forests", Machine Learning 2001; its out-of-bag predictions stand for leave-one-out ones.
"""

import numpy as np
from sklearn.ensemble import RandomForestRegressor

from transmeter.learners.combination import TARGET_PRIOR
from transmeter.learners.regression.member import Member, evidence
from transmeter.learners.regression.task import Shared, Task
from transmeter.learners.trees import Trees, out_of_bag, regression_trees
from transmeter.tables.labels import in_unit, unit_of

NEEDS_SOURCE = False
DIGITS = 9  # of a quantity that trees see
TREES, LEAF, FEATURES = 50, 2, 0.5  # trees of a forest, rows of a leaf at least, share of features that a node looks at


def members(task: Task, source: Shared | None) -> list[Member]:
    """Fit the forest of every split.

    Parameters
    ----------
    task : Task
        Rows of the target and splits.
    source : None
        Not looked at.

    Returns
    -------
    list of Member
        One.
    """
    units = [unit_of(task.y[w > 0]) for w in task.weights]
    forests, predicted = zip(*(_fit(task, i, unit) for i, unit in enumerate(units)))
    coefficients = np.zeros((len(forests), task.x.shape[1] + 1))
    coefficients[:, -1] = [mean for mean, _ in units]
    return [
        Member(
            name="target alone, forest",
            prior=TARGET_PRIOR,
            evidence=evidence(task, np.stack(predicted)),
            coefficients=coefficients,
            slopes=np.array([deviation for _, deviation in units]),
            forests=list(forests),
        )
    ]


def _fit(task: Task, split: int, unit: tuple[float, float]) -> tuple[Trees, np.ndarray]:
    """The forest of a split in the unit of its rows, and (m,) out-of-bag predictions of these in that of the task."""
    real = task.counted[split]  # the others are there twice
    rows = task.rows[split][real]
    model = RandomForestRegressor(TREES, min_samples_leaf=LEAF, max_features=FEATURES, random_state=task.seeds[split])
    # rounded, so that ties between features are broken alike whatever the unit
    model.fit(task.x[rows], np.round(in_unit(task.y[rows], unit), DIGITS))
    forest = regression_trees(model)
    predicted = np.zeros(len(real))
    predicted[real] = unit[0] + unit[1] * out_of_bag(model, forest, task.x[rows], 0.0)[:, 0]
    return forest, predicted
