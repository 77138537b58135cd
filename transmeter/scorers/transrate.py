"""TransRate: how much shorter the code of the source's features gets once the target's labels are known.

Huang et al., "Frustratingly Easy Transferability Estimation", ICML 2022, arXiv 2106.09362. As in the paper's listing
all classes weigh the same. Range: nats, above 0 for balanced classes; grows with the number of features. With fewer
rows than features it counts the directions that rows spread over more than the classes: trust it with many rows only.
"""

from collections.abc import Sequence

import numpy as np

from transmeter.gain.score import Needs, Score
from transmeter.network.source import Source
from transmeter.network.views import mean_over_views
from transmeter.tables.data import Table
from transmeter.tables.labels import one_hot

NEEDS = Needs(labelled_rows=4, classifier=True)


def score(
    sources: Sequence[Source], target: Table, *, seed: int = 0, steps: int = 60, distortion: float = 1e-4
) -> list[Score]:
    """TransRate of every source, the mean over both halves of the target.

    Parameters
    ----------
    sources, target : sequence of Source, Table
        What is compared.
    seed : int
        Seed of the halves and of the transformation.
    steps : int
        Training steps of the transformation.
    distortion : float
        Distortion that the code may have, above 0.

    Returns
    -------
    list of Score
        Nats.

    Raises
    ------
    ValueError
        For a class with fewer than 4 labelled rows.

    References
    ----------
    Huang et al., "Frustratingly Easy Transferability Estimation", ICML 2022, arXiv 2106.09362.
    """
    values = mean_over_views(lambda v: trans_rate(v.features, v.codes, distortion), sources, target, seed, steps)
    return [Score(v) for v in values]


def trans_rate(features: np.ndarray, codes: np.ndarray, distortion: float = 1e-4) -> float:
    """R(Z) - mean over classes R(Z_c), with R(Z) = 1/2 log det(I + Z' Z / (n distortion)), Z centred.

    Parameters
    ----------
    features : ndarray of shape (n, d), float64
        Rows in the source's features.
    codes : ndarray of shape (n,)
        Class numbers.
    distortion : float
        Distortion that the code may have.

    Returns
    -------
    float
        Nats.

    Raises
    ------
    ValueError
        For values that are not finite, for fewer than two classes, and for a distortion of 0 or less.
    """
    if not distortion > 0:
        raise ValueError(f"distortion {distortion} is too small: give a number above 0")
    counts = one_hot(features, codes).sum(0).astype(int)
    centred = (features - features.mean(0))[np.argsort(codes, kind="stable")]
    d = features.shape[1]
    whole, within = np.zeros((d, d)), 0.0
    for rows in np.split(centred, counts.cumsum()[:-1]):
        gram = rows.T @ rows
        whole += gram
        within += _rate(rows @ rows.T if len(rows) < d else gram, len(rows) * distortion)
    return _rate(whole, len(features) * distortion) - within / len(counts)


def _rate(gram: np.ndarray, scale: float) -> float:
    """1/2 log det(I + gram / scale), gram (k, k): Z' Z or Z Z', whose determinants agree."""
    return float(np.log(np.linalg.cholesky(np.eye(len(gram)) + gram / scale).diagonal()).sum())
