"""NCE: minus the entropy of the target's labels given the labels that the source's classifier predicts.

Tran et al., "Transferability and Hardness of Supervised Classification Tasks", ICCV 2019, arXiv 1908.08142. Range: nats
a row, from minus the entropy of the labels to 0.
"""

from collections.abc import Sequence

import numpy as np

from transmeter.gain.score import Needs, Score
from transmeter.network.source import Source
from transmeter.network.views import mean_over_views
from transmeter.tables.data import Table

NEEDS = Needs(labelled_rows=4, classifier=True)


def score(sources: Sequence[Source], target: Table, *, seed: int = 0, steps: int = 60) -> list[Score]:
    """Negative conditional entropy of every source, the mean over both halves of the target.

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
    Tran et al., "Transferability and Hardness of Supervised Classification Tasks", ICCV 2019, arXiv 1908.08142.
    """
    values = mean_over_views(lambda v: nce(v.outputs.argmax(1), v.codes), sources, target, seed, steps)
    return [Score(v) for v in values]


def nce(predicted: np.ndarray, codes: np.ndarray) -> float:
    """sum_{y, z} P(y, z) log P(y | z), with the shares P of rows.

    Parameters
    ----------
    predicted : ndarray of shape (n,)
        Source class numbers.
    codes : ndarray of shape (n,)
        Class numbers.

    Returns
    -------
    float
        Nats per row, at most 0.

    Raises
    ------
    ValueError
        For fewer than two classes.
    """
    if (codes == codes[0]).all():
        raise ValueError("one class only: two are needed")
    classes = codes.max() + 1
    joint = np.bincount(predicted * classes + codes, minlength=classes * (predicted.max() + 1))
    joint = joint.reshape(-1, classes)  # (source classes, classes), n times P(y, z)
    there = joint > 0
    given = (joint / np.maximum(joint.sum(1, keepdims=True), 1))[there]
    return float(joint[there] @ np.log(given) / len(codes))
