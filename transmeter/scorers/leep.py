"""LEEP: log likelihood of the target's labels, told from the source classifier's outputs alone.

Nguyen et al., "LEEP: A New Measure to Evaluate Transferability of Learned Representations", ICML 2020, arXiv
2002.12462. Range: nats a row, at most 0.
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
    """LEEP of every source, the mean over both halves of the target.

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
        Nats per row.

    Raises
    ------
    ValueError
        For a class with fewer than 4 labelled rows.

    References
    ----------
    Nguyen et al., "LEEP: A New Measure to Evaluate Transferability of Learned Representations", ICML 2020, arXiv
    2002.12462.
    """
    values = mean_over_views(lambda view: leep(view.outputs, view.codes), sources, target, seed, steps)
    return [Score(v) for v in values]


def leep(outputs: np.ndarray, codes: np.ndarray) -> float:
    """Mean over rows of log sum_z P(y | z) outputs_z, with P(y, z) the mean output z in class y.

    Parameters
    ----------
    outputs : ndarray of shape (n, source classes)
        Probabilities by the source's classifier.
    codes : ndarray of shape (n,)
        Class numbers.

    Returns
    -------
    float
        Nats per row, at most 0.

    Raises
    ------
    ValueError
        For outputs that are not finite or below 0, for a row of zeros, and for fewer than two classes.
    """
    labels = one_hot(outputs, codes)
    if (outputs < 0).any() or not outputs.any(1).all():
        raise ValueError("outputs hold rows that are no probabilities: give at least 0 each, and not 0 alone")
    joint = labels.T @ outputs  # (classes, source classes), n times P(y, z)
    likely = outputs @ (joint / np.maximum(joint.sum(0), 1e-300)).T  # (n, classes)
    return float(np.log(np.einsum("ij,ij->i", likely, labels)).mean())
