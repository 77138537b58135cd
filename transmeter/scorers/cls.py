"""CLS, the cross-learning score: how well source and target predict each other's labels.

Sun, Zhang & Watkins, "Quantifying Data Similarity Using Cross Learning", arXiv 2510.10866. Reconstructed from its
abstract: the mean of the balanced accuracies of a classifier learned on the source and measured on the target, and
the other way round; here a logistic regression, not the paper's ensemble. In the shared columns where there are some,
else in the representation that a transfer learns, as the paper's encoder. Range: 0 to 1, chance is 1 / classes.
"""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score

from transmeter.gain.score import Needs, Score
from transmeter.network.source import Source
from transmeter.network.views import Pair, pairs
from transmeter.tables.data import Table

NEEDS = Needs(classifier=True)
ROWS = 2000  # of either side that are looked at


def score(sources: Sequence[Source], target: Table, *, seed: int = 0, steps: int = 60) -> list[Score]:
    """Cross-learning score of every source, over the classes that match.

    Parameters
    ----------
    sources, target : sequence of Source, Table
        What is compared. Classes of one name match where there are two, else those whose means are closest.
    seed : int
        Seed of the rows and of the representation.
    steps : int
        Training steps of the representation, where there are no shared columns.

    Returns
    -------
    list of Score
        From 0 to 1, chance is 1 / classes.

    Raises
    ------
    ValueError
        As by `views.pairs`.

    References
    ----------
    Sun, Zhang & Watkins, "Quantifying Data Similarity Using Cross Learning", arXiv 2510.10866.
    """
    found = []
    for source, both in zip(sources, pairs(sources, target, seed, steps, ROWS)):
        names = source.table.classes, target.classes
        found.append(Score(float(np.mean([_of(pair, *names) for pair in both]))))
    return found


def cross_learning(x_s: np.ndarray, codes_s: np.ndarray, x_t: np.ndarray, codes_t: np.ndarray) -> float:
    """Mean of the balanced accuracies of both directions.

    Parameters
    ----------
    x_s, x_t : ndarray of shape (n, d) and (m, d), float64
        Rows of both sides.
    codes_s, codes_t : ndarray of shape (n,) and (m,)
        Numbers of the same classes.

    Returns
    -------
    float
        From 0 to 1.

    Raises
    ------
    ValueError
        For values that are not finite and where a side has one class only.
    """
    found = []
    for x, y, unseen, true in ((x_s, codes_s, x_t, codes_t), (x_t, codes_t, x_s, codes_s)):
        model = LogisticRegression(class_weight="balanced", max_iter=1000).fit(x, y)
        found.append(balanced_accuracy_score(true, model.predict(unseen)))
    return float(np.mean(found))


def _of(pair: Pair, names_s: tuple[str, ...], names_t: tuple[str, ...]) -> float:
    """Cross-learning score over the matched classes."""
    there_s, there_t = np.unique(pair.codes_s), np.unique(pair.codes_t)
    matched = [(s, t) for s in there_s for t in there_t if names_s[s] == names_t[t]]
    if len(matched) < 2:
        means_s = [pair.x_s[pair.codes_s == c].mean(0) for c in there_s]
        means_t = [pair.x_t[pair.codes_t == c].mean(0) for c in there_t]
        rows, columns = linear_sum_assignment(cdist(means_s, means_t))
        matched = list(zip(there_s[rows], there_t[columns]))
    number_s, number_t = ({c: i for i, c in enumerate(side)} for side in zip(*matched))
    s, t = np.isin(pair.codes_s, list(number_s)), np.isin(pair.codes_t, list(number_t))
    codes_s = np.array([number_s[c] for c in pair.codes_s[s]])
    codes_t = np.array([number_t[c] for c in pair.codes_t[t]])
    return cross_learning(pair.x_s[s], codes_s, pair.x_t[t], codes_t)
