"""Logistic regressions with a ridge penalty, many at once: Newton's method, leave-one-out probabilities in closed form.

Every class is told from all others, of two classes the second from the first. What would be predicted for a row, had
the fit not seen it, follows from the Hessian at the solution (Rad & Maleki, "A scalable estimate of the out-of-sample
prediction error via approximate leave-one-out cross-validation", 2020, arXiv 1801.10243): no fit is repeated.
"""

from dataclasses import dataclass

import numpy as np

HESSIANS, STEPS = 12, 6  # of Newton's method at most, and steps with each; three Hessians are usual
LONGEST = 4.0  # change of a coefficient in one step, so that separable classes do not throw it far off
ENOUGH = 1e-4  # change of all coefficients from which the solution counts as reached
FREE = 1e-3  # penalty of the intercept: hardly any, but a class without weight must not send it to infinity
CELLS = 4_000_000  # weighted features that are held at once


@dataclass(frozen=True)
class Fit:
    """Regressions after the fit.

    Attributes
    ----------
    coefficients
        (fits, regressions, d + 1), the intercept last.
    left_out
        (fits, rows, classes) probabilities of the rows that were asked for, each as if it had not been fitted.
    """

    coefficients: np.ndarray
    left_out: np.ndarray


def fit(x: np.ndarray, memberships: np.ndarray, weights: np.ndarray, penalty: float, rows: np.ndarray) -> Fit:
    """Fit several weighted regressions on the same rows.

    Parameters
    ----------
    x
        (n, d) features, standardised.
    memberships
        (fits, n, classes) probability that a row belongs to a class.
    weights
        (fits, n) weight of every row, 0 for those that a fit does not see.
    penalty
        Half of it times the squared coefficients is added to the weighted loss: 1 / C of scikit-learn.
    rows
        (fits, m) numbers of the rows whose leave-one-out probabilities are returned.

    Returns
    -------
    Fit
        Coefficients of every fit, and probabilities (fits, m, classes).
    """
    wide = with_intercept(x)
    ridge = np.full(wide.shape[1], float(penalty))
    ridge[-1] = FREE
    wanted = memberships[..., 1:] if memberships.shape[2] == 2 else memberships
    chunk = max(1, CELLS // wide.size)
    solved, scores = [], []
    for k in range(wanted.shape[2]):
        parts = [
            _newton(wide, wanted[i : i + chunk, :, k], weights[i : i + chunk], ridge, rows[i : i + chunk])
            for i in range(0, len(weights), chunk)
        ]
        solved.append(np.concatenate([coefficients for coefficients, _ in parts]))
        scores.append(np.concatenate([score for _, score in parts]))
    return Fit(np.stack(solved, 1), _probabilities(np.stack(scores, 2)))


def probabilities(coefficients: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Probabilities of classes by fitted regressions.

    Parameters
    ----------
    coefficients
        (..., regressions, d + 1) of `Fit`.
    x
        (n, d) features.

    Returns
    -------
    np.ndarray
        (..., n, classes), rows sum to 1.
    """
    return _probabilities(np.swapaxes(coefficients @ with_intercept(x).T, -1, -2))


def with_intercept(x: np.ndarray) -> np.ndarray:
    """Features with a last column of ones.

    Parameters
    ----------
    x
        (n, d) features.

    Returns
    -------
    np.ndarray
        (n, d + 1) float64.
    """
    return np.concatenate([x.astype(np.float64), np.ones((len(x), 1))], axis=1)


def _newton(
    x: np.ndarray, y: np.ndarray, weights: np.ndarray, ridge: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(fits, d) coefficients and (fits, m) leave-one-out scores; x (n, d), y and weights (fits, n), ridge (d,)."""
    coefficients = np.zeros((len(weights), x.shape[1]))
    for _ in range(HESSIANS):
        p = _sigmoid(coefficients @ x.T)
        inverse = np.linalg.inv(_hessian(x, weights * p * (1 - p), ridge))
        for _ in range(STEPS):  # with the Hessian as it was: a gradient costs a small share of it
            slope = (weights * (y - _sigmoid(coefficients @ x.T))) @ x - coefficients * ridge
            step = (inverse @ slope[..., None])[..., 0]
            largest = np.abs(step).max(1, keepdims=True)
            coefficients += step * np.minimum(1.0, LONGEST / np.maximum(largest, LONGEST))
            if largest.max() < ENOUGH:
                break
        if largest.max() < ENOUGH:
            break
    scores = coefficients @ x.T
    p = _sigmoid(scores)
    curvature = weights * p * (1 - p)
    inside, inverse = x[rows], np.linalg.inv(_hessian(x, curvature, ridge))
    leverage = ((inside @ inverse) * inside).sum(2)
    score, bend, pull = (np.take_along_axis(v, rows, axis=1) for v in (scores, curvature, weights * (y - p)))
    return coefficients, score - leverage * pull / np.maximum(1 - leverage * bend, 1e-3)


def _hessian(x: np.ndarray, curvature: np.ndarray, ridge: np.ndarray) -> np.ndarray:
    """(fits, d, d) second derivatives of the penalised loss; float32 will do, as slopes are exact."""
    single = x.astype(np.float32)
    return (single.T[None] * curvature[:, None].astype(np.float32)) @ single + np.diag(ridge)


def _sigmoid(scores: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(scores, -30, 30)))


def _probabilities(scores: np.ndarray) -> np.ndarray:
    """(..., n, classes) of scores (..., n, regressions)."""
    p = _sigmoid(scores)
    return np.concatenate([1 - p, p], -1) if p.shape[-1] == 1 else p / p.sum(-1, keepdims=True)
