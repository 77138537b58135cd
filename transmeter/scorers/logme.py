"""LogME: the evidence that a linear model on the source's features gives the target's labels.

You et al., "LogME: Practical Assessment of Pre-trained Models for Transfer Learning", ICML 2021, arXiv 2102.11005.
Target rows reach the source's features through a feature transformation learned on one half of the labelled rows;
the evidence is that of the other half, both ways. Range: nats a row, usually -2 to 1; only the order has a meaning.
"""

from collections.abc import Sequence

import numpy as np

from transmeter.data import Table
from transmeter.estimate import Score
from transmeter.source import Source
from transmeter.transfer import views


def score(sources: Sequence[Source], target: Table, *, seed: int = 0, steps: int = 60) -> list[Score]:
    """Mean log evidence a row, over classes and both halves, of every source.

    steps: of training of the transformation. Raises ValueError for a class with fewer than 4 labelled rows.
    """
    seen = views(sources, target, seed, steps)
    return [Score(float(np.mean([log_evidence(v.features, v.codes) for v in both]))) for both in seen]


def log_evidence(features: np.ndarray, codes: np.ndarray) -> float:
    """Mean over classes of max_{alpha, beta} log p(y | F, alpha, beta) / n (equation 2 of the paper).

    features (n, d) float64, codes (n,) class numbers; each class against the rest as 0 / 1. Raises ValueError for
    values that are not finite and for fewer than two classes.
    """
    if not np.isfinite(features).all():
        raise ValueError("features hold values that are not finite: replace them first")
    classes = np.unique(codes)
    if len(classes) < 2:
        raise ValueError("one class only: LogME needs two")
    if not features.any():
        features = np.full_like(features, 1e-6)  # features that are all zero tell nothing, which is a low score
    u, s, _ = np.linalg.svd(features, full_matrices=False)
    labels = (codes[:, None] == classes).astype(np.float64)  # (n, classes)
    projected = (u.T @ labels) ** 2
    rest = (labels**2).sum(0) - projected.sum(0)  # outside the span of the features
    return float(np.mean([_maximum(s**2, p, r, *features.shape) for p, r in zip(projected.T, rest)]))


def _maximum(squares: np.ndarray, projected: np.ndarray, rest: float, n: int, d: int) -> float:
    """MacKay's fixed point in alpha and beta; squares: of the singular values, projected: of the label on them."""
    alpha = beta = 1.0
    for _ in range(200):
        old = alpha / beta
        shrink, residual, weight = _posterior(squares, projected, rest, old)
        gamma = shrink.sum()
        alpha, beta = gamma / max(weight, 1e-12), (n - gamma) / max(residual, 1e-12)
        if abs(alpha / beta - old) < 1e-7 * old:
            break
    _, residual, weight = _posterior(squares, projected, rest, alpha / beta)
    determinant = np.log(alpha + beta * squares).sum() + (d - len(squares)) * np.log(alpha)
    evidence = d * np.log(alpha) + n * np.log(beta) - beta * residual - alpha * weight - determinant
    return float(0.5 * (evidence - n * np.log(2 * np.pi)) / n)


def _posterior(
    squares: np.ndarray, projected: np.ndarray, rest: float, ratio: float
) -> tuple[np.ndarray, float, float]:
    """(shrinkage of each direction, squared residual, squared weights) of the mean posterior; ratio: alpha / beta."""
    shrink = squares / (squares + ratio)
    residual = (projected * (1 - shrink) ** 2).sum() + rest
    return shrink, residual, (projected * squares / (squares + ratio) ** 2).sum()
