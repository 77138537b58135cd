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


def describe(chosen: SourceSet) -> list[str]:
    """A set in words.

    Parameters
    ----------
    chosen : SourceSet
        Of a ranking.

    Returns
    -------
    list of str
        One line, and one of what else could be done with the candidates.
    """
    many = len(chosen.candidates)
    if not chosen.gain or not chosen.over_best or not chosen.over_all:
        which = "the one source does not make" if many == 1 else f"none of {many} sources makes"
        return [f"together: {which} the labels of the target likelier"]
    alone = " alone, to which no other adds," if len(chosen.sources) == 1 else ""
    lines = [f"together: {' + '.join(chosen.sources)}{alone} gain {_signed(chosen.gain)}, {chosen.verdict}"]
    leads = [f"over the best single source {_signed(chosen.over_best)}"] if len(chosen.sources) > 1 else []
    leads += [f"over all {many} at once {_signed(chosen.over_all)}"] if len(chosen.sources) < many else []
    return [*lines, "  " + ", ".join(leads)] if leads else lines


def _signed(interval: Gain | Interval) -> str:
    return f"{interval.mean:+z.1f} ({interval.low:+z.1f} to {interval.high:+z.1f})"
