"""H-score with shrunk covariance: how far the classes lie apart in the source's features, in units of their spread.

Bao et al., "An Information-Theoretic Approach to Transferability in Task Transfer Learning", ICIP 2019 (arXiv
2212.10082), with the covariance of Ledoit and Wolf as in Ibrahim et al., "Newer is not always better", 2021 (arXiv
2110.06893): tr(S_a^-1 (1 - a) B) with S_a = (1 - a) S + a tr(S) / d I. Range: 0 to the number of classes - 1.
"""

from collections.abc import Sequence

import numpy as np

from transmeter.gain.estimate import Score
from transmeter.network.source import Source
from transmeter.network.views import over_views
from transmeter.tables.data import Table
from transmeter.tables.labels import one_hot


def score(sources: Sequence[Source], target: Table, *, seed: int = 0, steps: int = 60) -> list[Score]:
    """Mean H-score over both halves, of every source.

    steps: of training of the transformation. Raises ValueError for a class with fewer than 4 labelled rows.
    """
    return over_views(lambda view: h_score(view.features, view.codes), sources, target, seed, steps)


def h_score(features: np.ndarray, codes: np.ndarray) -> float:
    """tr(S_a^-1 (1 - a) B): S (d, d) the covariance of the features, B that of their class means, a the shrinkage.

    features (n, d) float64, codes (n,) class numbers. Raises ValueError for values that are not finite and for fewer
    than two classes.
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
