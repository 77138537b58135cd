"""H-score with shrunk covariance: how far the classes lie apart in the source's features, in units of their spread.

Bao et al., "An Information-Theoretic Approach to Transferability in Task Transfer Learning", ICIP 2019 (arXiv
2212.10082), with the covariance of Ledoit and Wolf as in Ibrahim et al., "Newer is not always better", 2021 (arXiv
2110.06893): tr(S_a^-1 (1 - a) B) with S_a = (1 - a) S + a tr(S) / d I. Range: 0 to the number of classes - 1.
"""

from collections.abc import Sequence

import numpy as np

from transmeter.gain.score import Needs, Score
from transmeter.network.source import Source
from transmeter.network.views import mean_over_views
from transmeter.tables.data import Table
from transmeter.tables.labels import one_hot

NEEDS = Needs(labelled_rows=4, classifier=True)


def score(sources: Sequence[Source], target: Table, *, seed: int = 0, steps: int = 60) -> list[Score]:
    """H-score of every source, the mean over both halves of the target.

    Parameters
    ----------
    sources, target : sequence of Source, Table
        What is compared.
    seed : int
        Seed of the halves and of the transformation.
    steps : int
        Training steps of the transformation.

    Returns
    -------
    list of Score
        From 0 to the number of classes - 1.

    Raises
    ------
    ValueError
        For a class with fewer than 4 labelled rows.

    References
    ----------
    Bao et al., "An Information-Theoretic Approach to Transferability in Task Transfer Learning", ICIP 2019, arXiv
    2212.10082.
    Ibrahim et al., "Newer is not always better", 2021, arXiv 2110.06893.
    """
    values = mean_over_views(lambda view: h_score(view.features, view.codes), sources, target, seed, steps)
    return [Score(v) for v in values]


def h_score(features: np.ndarray, codes: np.ndarray) -> float:
    """tr(S_a^-1 (1 - a) B): S (d, d) the covariance of the features, B that of their class means, a the shrinkage.

    Parameters
    ----------
    features : ndarray of shape (n, d), float64
        Rows in the source's features.
    codes : ndarray of shape (n,)
        Class numbers.

    Returns
    -------
    float
        From 0 to the number of classes - 1.

    Raises
    ------
    ValueError
        For values that are not finite, and for fewer than two classes.
    """
    labels = one_hot(features, codes)
    n, d = features.shape
    centred = features - features.mean(0)
    covariance = centred.T @ centred / n
    variance = covariance.trace() / d
    if variance == 0:  # features that are all constant tell nothing
        return 0.0
    norms = np.einsum("ij,ij->i", centred, centred)
    square = np.vdot(covariance, covariance)
    noise = (norms @ norms / n - square) / n  # d times the expected squared error of the covariance
    shrinkage = float(np.clip(noise / max(square - d * variance**2, 1e-300), 1e-10, 1))
    covariance *= 1 - shrinkage
    covariance.flat[:: d + 1] += shrinkage * variance
    sums = labels.T @ centred / np.sqrt(labels.sum(0))[:, None]  # (classes, d); its Gram matrix is (n - 1) B
    half = np.linalg.solve(np.linalg.cholesky(covariance), sums.T)
    return float((1 - shrinkage) * np.vdot(half, half) / (n - 1))
