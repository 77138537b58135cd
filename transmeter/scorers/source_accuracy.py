"""Source accuracy: how well the source's own classes can be told apart. Looks at no target; a rank to beat.

Static rankings like this one reach high agreement on public benchmarks (arXiv 2510.06448). Balanced accuracy of a
logistic regression under 5-fold cross-validation, chance-normalised. Range: about 0 (chance) to 1.
"""

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from transmeter.gain.score import Needs, Score
from transmeter.network.source import Source
from transmeter.tables.data import Table
from transmeter.tables.splits import FOLDS

NEEDS = Needs(target_labels=False)
ROWS = 2000  # of a source that are looked at


def score(sources: Sequence[Source], target: Table, *, seed: int = 0) -> list[Score]:
    """(balanced accuracy - chance) / (1 - chance) of every source; classes with a single labelled row are left out.

    Parameters
    ----------
    sources, target : sequence of Source, Table
        What is compared; the target changes nothing.
    seed : int
        Seed of the rows and folds.

    Returns
    -------
    list of Score
        From about 0 (chance) to 1.

    Raises
    ------
    ValueError
        Where fewer than two classes are left.

    References
    ----------
    arXiv 2510.06448.
    """
    return [Score(_accuracy(source, seed)) for source in sources]


def _accuracy(source: Source, seed: int) -> float:
    codes = source.table.codes
    rows = np.random.default_rng(seed).permutation(np.flatnonzero(codes >= 0))[:ROWS]
    counts = np.bincount(codes[rows])
    rows = rows[counts[codes[rows]] > 1]
    classes = int((counts > 1).sum())
    if classes < 2:
        raise ValueError(f"{source.table.name} has fewer than two classes with two labelled rows: no accuracy to take")
    folds = StratifiedKFold(min(FOLDS, int(counts[counts > 1].min())), shuffle=True, random_state=seed)
    model = LogisticRegression(class_weight="balanced", max_iter=1000)
    x, y = source.x.numpy().astype(np.float64)[rows], codes[rows]
    right = balanced_accuracy_score(y, cross_val_predict(model, x, y, cv=folds))
    return float((right - 1 / classes) / (1 - 1 / classes))
