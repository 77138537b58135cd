"""NCE: minus the entropy of the target's labels given the labels that the source's classifier predicts.

Tran et al., "Transferability and Hardness of Supervised Classification Tasks", ICCV 2019, arXiv 1908.08142. Range: nats
a row, from minus the entropy of the labels to 0.
"""

from collections.abc import Sequence

import numpy as np

from transmeter.gain.estimate import Score
from transmeter.network.source import Source
from transmeter.network.views import over_views
from transmeter.tables.data import Table


def score(sources: Sequence[Source], target: Table, *, seed: int = 0, steps: int = 60) -> list[Score]:
    """Mean negative conditional entropy over both halves, of every source.

    steps: of training of the transformation. Raises ValueError for a class with fewer than 4 labelled rows.
    """
    return over_views(lambda v: nce(v.outputs.argmax(1), v.codes), sources, target, seed, steps)


def nce(predicted: np.ndarray, codes: np.ndarray) -> float:
    """sum_{y, z} P(y, z) log P(y | z), with the shares P of rows.

    predicted (n,) source class numbers, codes (n,) class numbers. Raises ValueError for fewer than two classes.
    """
    if (codes == codes[0]).all():
        raise ValueError("one class only: two are needed")
    classes = codes.max() + 1
    joint = np.bincount(predicted * classes + codes, minlength=classes * (predicted.max() + 1))
    joint = joint.reshape(-1, classes)  # (source classes, classes), n times P(y, z)
    there = joint > 0
    given = (joint / np.maximum(joint.sum(1, keepdims=True), 1))[there]
    return float(joint[there] @ np.log(given) / len(codes))
