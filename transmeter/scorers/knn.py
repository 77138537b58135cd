"""k-NN: how well a target row's nearest neighbours in the source's features foretell its label, leave one out.

Plain nearest neighbours agree with transfer better than many scores made for it: see arXiv 2503.18528. Balanced
accuracy. Range: 0 to 1, chance is 1 / classes.
"""

from collections.abc import Sequence

import numpy as np
from sklearn.neighbors import NearestNeighbors

from transmeter.gain.estimate import Score
from transmeter.network.source import Source
from transmeter.network.views import over_views
from transmeter.tables.data import Table
from transmeter.tables.labels import one_hot


def score(sources: Sequence[Source], target: Table, *, seed: int = 0, steps: int = 60, k: int = 5) -> list[Score]:
    """Mean balanced accuracy over both halves, of every source.

    steps: of training of the transformation; k: neighbours that vote. Raises ValueError for a class with fewer than 4
    labelled rows.
    """
    return over_views(lambda view: knn(view.features, view.codes, k), sources, target, seed, steps)


def knn(features: np.ndarray, codes: np.ndarray, k: int = 5) -> float:
    """Balanced accuracy of the vote of the k nearest other rows, Euclidean; of tied classes that of the nearest wins.

    features (n, d) float64, codes (n,) class numbers. Raises ValueError for values that are not finite, for fewer than
    two classes and for k < 1.
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
