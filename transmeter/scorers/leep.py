"""LEEP: log likelihood of the target's labels, told from the source classifier's outputs alone.

Nguyen et al., "LEEP: A New Measure to Evaluate Transferability of Learned Representations", ICML 2020, arXiv
2002.12462. Range: nats a row, at most 0.
"""

from collections.abc import Sequence

import numpy as np

from transmeter.gain.estimate import Score
from transmeter.network.source import Source
from transmeter.network.views import over_views
from transmeter.tables.data import Table
from transmeter.tables.labels import one_hot


def score(sources: Sequence[Source], target: Table, *, seed: int = 0, steps: int = 60) -> list[Score]:
    """Mean LEEP over both halves, of every source.

    steps: of training of the transformation. Raises ValueError for a class with fewer than 4 labelled rows.
    """
    return over_views(lambda view: leep(view.outputs, view.codes), sources, target, seed, steps)


def leep(outputs: np.ndarray, codes: np.ndarray) -> float:
    """Mean over rows of log sum_z P(y | z) outputs_z, with P(y, z) the mean output z in class y.

    outputs (n, source classes) probabilities, codes (n,) class numbers. Raises ValueError for outputs that are not
    finite or below 0, for a row of zeros, and for fewer than two classes.
    """
    labels = one_hot(outputs, codes)
    if (outputs < 0).any() or not outputs.any(1).all():
        raise ValueError("outputs hold rows that are no probabilities: give at least 0 each, and not 0 alone")
    joint = labels.T @ outputs  # (classes, source classes), n times P(y, z)
    likely = outputs @ (joint / np.maximum(joint.sum(0), 1e-300)).T  # (n, classes)
    return float(np.log(np.einsum("ij,ij->i", likely, labels)).mean())
