"""How close candidates came, and what was taken of them, as text for people."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from transmeter.util.grid import text_of

WIDTH = 80  # characters of a line
TARGETS = 5  # in a table: more have another below it
TOP = 5  # sets in a table of several targets, beside the one that was taken
UNIT = "closeness: 1 over the distance to the target in the model's states, in deviations of the"
UNIT += " target's texts; a ratio without a unit, higher is closer. Intervals: over other samples of the same texts."


def format_closeness(
    scores: Mapping[str, float],
    intervals: Mapping[str, Sequence[float] | None],
    shares: Mapping[str, float],
    chosen: str,
    tied: Sequence[str],
) -> str:
    """A table of everything that was measured, and how sure its order is.

    Parameters
    ----------
    scores
        Closeness by name.
    intervals
        Their 95 % intervals.
    shares
        Of the tokens, 0 to 1, by candidate.
    chosen
        What was taken.
    tied
        What cannot be told apart from it.

    Returns
    -------
    str
        At most 80 characters a line; ends with a line break.
    """
    grid = Table("candidate", "closeness", "95 % interval", "", "tokens", box=None, pad_edge=False)
    for name in sorted(scores, key=lambda name: -scores[name]):
        mark = "taken" if name == chosen else "tied" if name in tied else ""
        share = f"{shares[name]:.0%}" if name in shares else ""
        grid.add_row(name, f"{scores[name]:.3g}", shown(intervals.get(name)), mark, share)
    lines = [UNIT, *sureness(scores, intervals, chosen, tied)]
    return text_of(grid, WIDTH) + "".join(f"{textwrap.fill(line, WIDTH)}\n" for line in lines)


def format_targets(by_target: Mapping[str, Mapping[str, float]], scores: Mapping[str, float], chosen: str) -> str:
    """How close the closest sets come to every one of several targets.

    Parameters
    ----------
    by_target
        Closeness by name of the set, for every target by name.
    scores
        Closeness to all of them.
    chosen
        What was taken.

    Returns
    -------
    str
        At most 80 characters a line; ends with a line break. Empty of one target.
    """
    if len(by_target) < 2:
        return ""
    targets, text = list(by_target), ""
    for start in range(0, len(targets), TARGETS):
        some = targets[start : start + TARGETS]
        grid = Table("closeness to", *some, box=None, pad_edge=False)
        for name in closest(scores, chosen, targets):
            mark = f"{name} (taken)" if name == chosen else name
            grid.add_row(mark, *(f"{by_target[target][name]:.3g}" for target in some))
        text += "\n" + text_of(grid, WIDTH)
    return text + "\n"


def closest(scores: Mapping[str, float], chosen: str, targets: Sequence[str] = ()) -> list[str]:
    """The closest sets, the one that was taken, and the targets' own texts.

    Parameters
    ----------
    scores
        Closeness by name.
    chosen
        What was taken.
    targets
        Names of targets; a set of such a name is the target's own text.

    Returns
    -------
    list
        Names, closest first.
    """
    order = sorted(scores, key=lambda name: -scores[name])
    return [name for place, name in enumerate(order) if place < TOP or name == chosen or name in targets]


def shown(interval: Sequence[float] | None) -> str:
    """An interval of a closeness.

    Parameters
    ----------
    interval
        Its ends; None where it is not known.

    Returns
    -------
    str
        Three digits each.
    """
    return f"{interval[0]:.3g} to {interval[1]:.3g}" if interval else "not known"


def sureness(scores: Mapping[str, float], intervals: Mapping[str, Any], chosen: str, tied: Sequence[str]) -> list[str]:
    """How sure it is that what was taken is the closest.

    Parameters
    ----------
    scores, intervals, chosen, tied
        As of `format_closeness`.

    Returns
    -------
    list of str
        At most one sentence without its stop.
    """
    if len(scores) < 2 or intervals.get(chosen) is None:
        return []
    if len(tied) == len(scores) - 1:
        return ["all are within what another sample of the same texts would change: any of them will do"]
    if tied:
        return [f"any of these, whose closeness cannot be told apart: {', '.join([chosen, *tied])}"]
    if max(scores.values()) > scores[chosen]:  # a mixture that is not closer by enough, which is told elsewhere
        return []
    return [f"{chosen} is the closest, also over other samples of the same texts"]
