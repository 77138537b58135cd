"""OTDD: minus the optimal-transport distance of the data sets, where labels are as far apart as their classes.

Alvarez-Melis & Fusi, "Geometric Dataset Distances via Optimal Transport", 2020, arXiv 2002.02923: rows cost
|x - x'|^2 + W(y, y')^2 with the Bures-Wasserstein distance of the classes as Gaussians. In the shared columns, in units
of the target's standard deviation, where there are some, else in the representation that a transfer learns: compare
sources of one kind. At most 300 labelled rows a side, drawn by the seed. Range: at most 0, the distance to itself.
"""

from collections.abc import Sequence

import numpy as np

from transmeter.gain.score import Needs, Score
from transmeter.network.source import Source
from transmeter.network.views import Pair, pairs
from transmeter.tables.data import Table

NEEDS = Needs(classifier=True)
ROWS = 300  # of either side that are looked at
LARGEST = 1e140  # with a larger value a cost may be infinite, and of one such cost POT makes a distance of 0.0


def score(
    sources: Sequence[Source], target: Table, *, seed: int = 0, steps: int = 60, entropy: float = 0.0
) -> list[Score]:
    """Minus the distance of every source to the target, over the square root of the number of features.

    Parameters
    ----------
    sources, target : sequence of Source, Table
        What is compared.
    seed : int
        Seed of the rows and of the representation.
    steps : int
        Training steps of the representation, where there are no shared columns.
    entropy : float
        As in `distance`.

    Returns
    -------
    list of Score
        At most 0, the distance to itself.

    Raises
    ------
    ValueError
        As by `views.pairs` and `distance`.

    References
    ----------
    Alvarez-Melis & Fusi, "Geometric Dataset Distances via Optimal Transport", 2020, arXiv 2002.02923.
    """
    found = pairs(sources, target, seed, steps, ROWS)
    return [Score(-float(np.mean([_of(pair, entropy) for pair in both]))) for both in found]


def _of(pair: Pair, entropy: float) -> float:
    """Distance a feature, so that it is no merit to share few columns."""
    return distance(pair.x_s, pair.codes_s, pair.x_t, pair.codes_t, entropy) / pair.x_t.shape[1] ** 0.5


def distance(x_s: np.ndarray, codes_s: np.ndarray, x_t: np.ndarray, codes_t: np.ndarray, entropy: float = 0.0) -> float:
    """Square root of the least mean of |x - x'|^2 + W(y, y')^2 over couplings of the rows.

    Parameters
    ----------
    x_s, x_t : ndarray of shape (n, d) and (m, d), float64
        Rows of both sides.
    codes_s, codes_t : ndarray of shape (n,) and (m,)
        Their class numbers, each side's own.
    entropy : float
        0 solves exactly, above 0 by Sinkhorn's iteration with that regularisation, as a share of the mean cost.

    Returns
    -------
    float
        In the unit of `x_s`.

    Raises
    ------
    ValueError
        For values that are not finite or above `LARGEST`, and for an entropy below 0.
    """
    if not (np.isfinite(x_s).all() and np.isfinite(x_t).all()):
        raise ValueError("values are given that are not finite: replace them first")
    largest = max(np.abs(x_s).max(), np.abs(x_t).max())
    if largest > LARGEST:
        raise ValueError(f"the value {largest:.3g} is too large to be squared: give at most {LARGEST:g}")
    if not entropy >= 0:
        raise ValueError(f"entropy {entropy} is too small: give at least 0")
    import ot  # takes two seconds, which no other scorer should cost

    (here, place_s), (there, place_t) = _gaussians(x_s, codes_s), _gaussians(x_t, codes_t)
    labels = np.array([[_bures_wasserstein(a, b) for b in there] for a in here])
    cost = ot.dist(x_s, x_t) + labels[np.ix_(place_s, place_t)]
    weights = ot.unif(len(x_s)), ot.unif(len(x_t))
    if entropy:
        least = ot.sinkhorn2(*weights, cost, entropy * cost.mean(), method="sinkhorn_log")
    else:
        least = ot.emd2(*weights, cost, numItermax=1_000_000)
    return float(np.sqrt(max(float(least), 0)))


def _gaussians(x: np.ndarray, codes: np.ndarray) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray]:
    """Mean m (d,) and a root R (r, d) of the covariance R' R of every class, and the place (n,) of each row's class."""
    classes, place = np.unique(codes, return_inverse=True)
    found = []
    for c in range(len(classes)):
        rows = x[place == c]
        mean = rows.mean(0)
        found.append((mean, np.linalg.qr((rows - mean) / len(rows) ** 0.5, mode="r")))
    return found, place


def _bures_wasserstein(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> float:
    """|m_a - m_b|^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2); the last trace is the nuclear norm of R_a R_b'."""
    (mean_a, root_a), (mean_b, root_b) = a, b
    cross = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    return max(float(((mean_a - mean_b) ** 2).sum() + (root_a**2).sum() + (root_b**2).sum() - 2 * cross), 0.0)
