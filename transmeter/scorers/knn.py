"""k-NN: how well a target row's nearest neighbours in the source's features predict its label, leave one out.

Plain nearest neighbours agree with transfer better than many scores made for it: see arXiv 2503.18528. Balanced
accuracy. Range: 0 to 1, chance is 1 / classes.
"""

from collections.abc import Sequence

import numpy as np
from sklearn.neighbors import NearestNeighbors

from transmeter.gain.score import Needs, Score
from transmeter.network.source import Source
from transmeter.network.views import mean_over_views
from transmeter.tables.data import Table
from transmeter.tables.labels import one_hot

NEEDS = Needs(labelled_rows=4, classifier=True)


def score(sources: Sequence[Source], target: Table, *, seed: int = 0, steps: int = 60, k: int = 5) -> list[Score]:
    """Balanced accuracy of every source, the mean over both halves of the target.

    Parameters
    ----------
    sources, target : sequence of Source, Table
        What is compared.
    seed : int
        Seed of the halves and of the transformation.
    steps : int
        Training steps of the transformation.
    k : int
        Neighbours that vote.

    Returns
    -------
    list of Score
        From 0 to 1.

    Raises
    ------
    ValueError
        For a class with fewer than 4 labelled rows.

    References
    ----------
    arXiv 2503.18528.
    """
    values = mean_over_views(lambda view: knn(view.features, view.codes, k), sources, target, seed, steps)
    return [Score(v) for v in values]


def knn(features: np.ndarray, codes: np.ndarray, k: int = 5) -> float:
    """Balanced accuracy of the vote of the k nearest other rows, Euclidean; of tied classes that of the nearest wins.

    Parameters
    ----------
    features : ndarray of shape (n, d), float64
        Rows in the source's features.
    codes : ndarray of shape (n,)
        Class numbers.
    k : int
        Neighbours that vote; all others where there are fewer.

    Returns
    -------
    float
        From 0 to 1.

    Raises
    ------
    ValueError
        For values that are not finite, for fewer than two classes, and for k < 1.
    """
    labels = one_hot(features, codes)
    if k < 1:
        raise ValueError(f"k {k} is too few neighbours: give at least 1")
    k = min(k, len(codes) - 1)
    near = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(features).kneighbors(return_distance=False)
    weights = 1 + 0.5 ** np.arange(2, k + 2)  # parts below one vote in all, so that they only break ties
    votes = np.einsum("r,irc->ic", weights, labels[near])
    right = votes.argmax(1) == labels.argmax(1)
    return float((right @ labels / labels.sum(0)).mean())
