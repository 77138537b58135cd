"""Sources to use at once, as plain data."""

from dataclasses import dataclass

from transmeter.gain.prior import Gain
from transmeter.util.intervals import Interval


@dataclass(frozen=True)
class SourceSet:
    """Sources to use at once.

    Attributes
    ----------
    sources : list of str
        In the order in which they entered; empty where none makes the target's labels likelier.
    candidates : list of str
        That it was chosen from.
    gain : Gain or None
        Of the set over the target alone; None of no source.
    verdict : str or None
        Of the gain.
    over_best : Interval or None
        Gain over the best single source, in percentage points.
    over_all : Interval or None
        Gain over all candidates at once, in percentage points.
    repeats : int
        Of the comparison.
    """

    sources: list[str]
    candidates: list[str]
    gain: Gain | None
    verdict: str | None
    over_best: Interval | None
    over_all: Interval | None
    repeats: int
