"""Shared columns: the share of the target's columns that the source has. Range: 0 to 1. See arXiv 2510.06448."""

from collections.abc import Sequence

from transmeter.gain.score import Needs, Score
from transmeter.network.source import Source
from transmeter.tables.data import Table
from transmeter.tables.matching import shared_features

NEEDS = Needs(target_labels=False)


def score(sources: Sequence[Source], target: Table, *, seed: int = 0) -> list[Score]:
    """Share of the target's columns that every source has, by name or meaning.

    Parameters
    ----------
    sources, target : sequence of Source, Table
        What is compared.
    seed : int
        Changes nothing.

    Returns
    -------
    list of Score
        From 0 to 1.

    References
    ----------
    arXiv 2510.06448.
    """
    return [Score(len(shared_features(s.table.columns, target.columns)) / len(target.columns)) for s in sources]
