"""Source size: the logarithm of the number of labelled source rows. Looks at no target; the rank to beat.

Static rankings like this one reach high agreement on public benchmarks (arXiv 2510.06448). Range: 0 upwards.
"""

from collections.abc import Sequence

import numpy as np

from transmeter.gain.score import Needs, Score
from transmeter.network.source import Source
from transmeter.tables.data import Table

NEEDS = Needs(target_labels=False)


def score(sources: Sequence[Source], target: Table, *, seed: int = 0) -> list[Score]:
    """log(labelled rows) of every source.

    Parameters
    ----------
    sources, target : sequence of Source, Table
        What is compared; the target changes nothing.
    seed : int
        Changes nothing.

    Returns
    -------
    list of Score
        From 0 upwards.

    References
    ----------
    arXiv 2510.06448.
    """
    return [Score(float(np.log((source.table.codes >= 0).sum()))) for source in sources]
