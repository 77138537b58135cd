"""LogME: the evidence that a linear model on the source's features gives the target's labels.

You et al., "LogME: Practical Assessment of Pre-trained Models for Transfer Learning", ICML 2021, arXiv 2102.11005.
Target rows reach the source's features through a feature transformation learned on one half of the labelled rows;
the evidence is that of the other half, both ways. Range: nats a row, usually -2 to 1; only the order has a meaning.
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
    """Log evidence of every source, the mean over both halves of the target.

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
        Nats per row, the mean over classes.

    Raises
    ------
    ValueError
        For a class with fewer than 4 labelled rows.

    References
    ----------
    You et al., "LogME: Practical Assessment of Pre-trained Models for Transfer Learning", ICML 2021, arXiv 2102.11005.
    """
    values = mean_over_views(lambda view: log_evidence(view.features, view.codes), sources, target, seed, steps)
    return [Score(v) for v in values]


def log_evidence(features: np.ndarray, codes: np.ndarray) -> float:
    """Mean over classes of max_{alpha, beta} log p(y | F, alpha, beta) / n (equation 2 of the paper).

    Each class against the rest as 0 / 1.

    Parameters
    ----------
    features : ndarray of shape (n, d), float64
        Rows in the source's features.
    codes : ndarray of shape (n,)
        Class numbers.

    Returns
    -------
    float
        Nats per row.

    Raises
    ------
    ValueError
        For values that are not finite, and for fewer than two classes.
    """
    labels = one_hot(features, codes)  # (n, classes)
    if not features.any():
        features = np.full_like(features, 1e-6)  # features that are all zero tell nothing, which is a low score
    n, d = features.shape
    wide = d > n  # the smaller of F F' and F' F has the same spectrum
    squares, vectors = np.linalg.eigh(features @ features.T if wide else features.T @ features)
    kept = squares > squares[-1] * d * np.finfo(float).eps
    squares, vectors = squares[kept], vectors[:, kept]
    if wide:
        projected = (vectors.T @ labels) ** 2  # (directions, classes)
    else:
        projected = (vectors.T @ (features.T @ labels)) ** 2 / squares[:, None]
    return float(_maxima(squares, projected.T, labels.sum(0), n, d).mean())


def _maxima(squares: np.ndarray, projected: np.ndarray, counts: np.ndarray, n: int, d: int) -> np.ndarray:
    """(classes,) evidence a row, by MacKay's fixed point in alpha and beta, all classes at once.

    squares (r,): of the singular values; projected (classes, r): of the labels on them; counts (classes,): of the
    labels themselves.
    """
    rest = np.maximum(counts - projected.sum(1), 0)  # outside the span of the features
    ratio = np.ones(len(counts))  # alpha / beta
    powers = np.stack([squares, np.ones_like(squares)], 1)  # (r, 2)
    for _ in range(200):
        keep = 1 / (squares + ratio[:, None])  # (classes, r)
        gamma = keep @ squares
        weight, residual = (projected * keep * keep @ powers).T
        weight, residual = np.maximum(weight, 1e-12), np.maximum(residual * ratio**2 + rest, 1e-12)
        alpha, beta = gamma / weight, (n - gamma) / residual
        old, ratio = ratio, alpha / beta
        if (abs(ratio - old) < 1e-5 * old).all():  # the evidence is flat there
            break
    determinant = np.log(alpha[:, None] + beta[:, None] * squares).sum(1) + (d - len(squares)) * np.log(alpha)
    evidence = d * np.log(alpha) + n * np.log(beta) - beta * residual - alpha * weight - determinant
    return 0.5 * (evidence - n * np.log(2 * np.pi)) / n
