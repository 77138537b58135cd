"""Random forest on the source's rows alone, fitted once: the target's labels only tell how much it counts.

Breiman, "Random forests", Machine Learning 2001.
"""

from functools import lru_cache

import numpy as np
from sklearn.ensemble import RandomForestClassifier

from transmeter.learners.member import ForestMember, Member, evidence
from transmeter.learners.task import Shared, Task
from transmeter.learners.trees import Trees, predict_each, trees_of

NEEDS_SOURCE = True
COUNTERPART = "target_forest"  # the same learner of the target alone
TREES, LEAF = 100, 3  # trees of a forest, and rows of a leaf at least


def members(task: Task, source: Shared) -> list[Member]:
    """Fit the forests, one for all splits but where these match the classes otherwise.

    Parameters
    ----------
    task : Task
        Rows of the target and splits.
    source : Shared
        What it gives.

    Returns
    -------
    list of Member
        One per unit of the features.
    """
    return [_member(f"{source.name} alone, forest, in {units}", task, source, x) for units, x in source.scales.items()]


def _member(name: str, task: Task, source: Shared, x: np.ndarray) -> Member:
    forests = []
    first = next(iter(source.scales.values()))
    for memberships, weights in zip(source.memberships, source.weights):
        rows, codes = np.nonzero(memberships)  # a row of several classes is there with each
        counted = weights[rows] * memberships[rows, codes]
        others = codes.tobytes(), counted.tobytes(), task.classes, task.seed
        forests.append(_forest_in(x[rows].tobytes(), first[rows].tobytes(), *others))
    left_out = np.stack([predicted[rows] for predicted, rows in zip(predict_each(forests, task.x), task.rows)])
    return ForestMember(name, evidence(task, left_out), forests)


@lru_cache(maxsize=40)  # one object for all splits
def _forest_in(x: bytes, first: bytes, codes: bytes, weights: bytes, classes: int, seed: int) -> Trees:
    """The forest of rows x, fitted in the first unit of the rows where that is all the difference."""
    fitted = _forest(first, codes, weights, classes, seed)
    if x == first:
        return fitted
    theirs, other = (np.frombuffer(rows).reshape(len(codes) // 8, -1) for rows in (first, x))
    return fitted.in_unit_of(theirs, other) or _forest(x, codes, weights, classes, seed)


@lru_cache(maxsize=40)  # so that no round of splits fits them anew
def _forest(x: bytes, codes: bytes, weights: bytes, classes: int, seed: int) -> Trees:
    """The forest of rows x (n, d) float64, codes (n,) int64, weights (n,) float64."""
    labels = np.frombuffer(codes, np.int64)
    model = RandomForestClassifier(TREES, min_samples_leaf=LEAF, random_state=seed)
    model.fit(np.frombuffer(x).reshape(len(labels), -1), labels, sample_weight=np.frombuffer(weights))
    return trees_of(model, classes)
