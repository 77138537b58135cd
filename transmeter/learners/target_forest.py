"""Random forest on the target's rows alone: for targets whose classes no plane tells apart.

Breiman, "Random forests", Machine Learning 2001; its out-of-bag predictions stand for leave-one-out ones.
"""

import numpy as np
from sklearn.ensemble import RandomForestClassifier

from transmeter.learners.member import ForestMember, Member, evidence
from transmeter.learners.task import Shared, Task
from transmeter.learners.trees import Trees, out_of_bag, trees_of

NEEDS_SOURCE = False
TREES, LEAF = 50, 2  # trees of a forest, and rows of a leaf at least


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
    forests, out_of_bag = zip(*(_fit(task, i) for i in range(len(task.weights))))
    return [ForestMember("target alone, forest", evidence(task, np.stack(out_of_bag)), list(forests))]


def _fit(task: Task, split: int) -> tuple[Trees, np.ndarray]:
    """The forest of a split, and (m, classes) out-of-bag probabilities of the rows that it trains on."""
    real = task.row_weights[split] > 0  # the others are there twice
    rows, weights = task.rows[split][real], task.row_weights[split][real]
    model = RandomForestClassifier(TREES, min_samples_leaf=LEAF, random_state=task.seeds[split])
    model.fit(task.x[rows], task.codes[rows], sample_weight=weights)
    forest = trees_of(model, task.classes)
    left_out = np.full((len(real), task.classes), 1 / task.classes)
    left_out[real] = out_of_bag(model, forest, task.x[rows], 1 / task.classes)
    return forest, left_out
