"""Shared columns: the share of the target's columns that the source has. Range: 0 to 1. See arXiv 2510.06448."""

from collections.abc import Sequence

from transmeter.gain.estimate import Score
from transmeter.network.source import Source
from transmeter.tables.data import Table
from transmeter.tables.matching import shared_features


def score(sources: Sequence[Source], target: Table, *, seed: int = 0) -> list[Score]:
    """Share of shared columns of every source; seed changes nothing."""
    return [Score(len(shared_features(s.table.columns, target.columns)) / len(target.columns)) for s in sources]
