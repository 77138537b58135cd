"""GBC: minus the overlap of the target's classes in the source's features, each class a Gaussian.

Pandy et al., "Transferability Estimation using Bhattacharyya Class Separability", CVPR 2022, arXiv 2111.12780, with
spherical covariances (one variance a class). Range: minus classes * (classes - 1) to 0.
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
    """GBC of every source, the mean over both halves of the target.

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
        From minus classes * (classes - 1) to 0.

    Raises
    ------
    ValueError
        For a class with fewer than 4 labelled rows.

    References
    ----------
    Pandy et al., "Transferability Estimation using Bhattacharyya Class Separability", CVPR 2022, arXiv 2111.12780.
    """
    values = mean_over_views(lambda view: gbc(view.features, view.codes), sources, target, seed, steps)
    return [Score(v) for v in values]


def gbc(features: np.ndarray, codes: np.ndarray) -> float:
    """-sum_{a != b} exp(-D_ab), D_ab = |m_a - m_b|^2 / (8 v) + d/2 log(v / sqrt(v_a v_b)), v = (v_a + v_b) / 2.

    m, v: mean and variance, averaged over features, of a class, the variance at least 1e-9 of the largest.

    Parameters
    ----------
    features : ndarray of shape (n, d), float64
        Rows in the source's features.
    codes : ndarray of shape (n,)
        Class numbers.

    Returns
    -------
    float
        From minus classes * (classes - 1) to 0.

    Raises
    ------
    ValueError
        For values that are not finite, and for fewer than two classes.
    """
    labels = one_hot(features, codes)
    counts = labels.sum(0)
    centred = features - features.mean(0)
    means = labels.T @ centred / counts[:, None]  # (classes, d)
    squares = np.einsum("ij,ij->i", means, means)
    variances = (np.einsum("ij,ij->i", centred, centred) @ labels / counts - squares) / features.shape[1]
    variances = np.maximum(variances, max(1e-9 * variances.max(), 1e-300))
    between = (variances[:, None] + variances) / 2
    apart = np.maximum(squares[:, None] + squares - 2 * means @ means.T, 0) / (8 * between)
    logs = np.log(variances) / 2
    apart += features.shape[1] / 2 * (np.log(between) - logs[:, None] - logs)
    return float(len(counts) - np.exp(-apart).sum())  # the diagonal is 1 a class
