"""The pairs of a store as tables for people: one for every target and scorer, the best source first."""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from rich.table import Table as Grid
from rich.text import Text

from transmeter.batch.watch import printable
from transmeter.gain.metric_names import unit
from transmeter.util.counts import counted
from transmeter.util.grid import text_of

WIDTH = 80  # of a terminal
HELPFUL = ("helps", "likely helps")  # verdicts
GAINS = ("gain_pp", "95 % interval", "P(gain<0)", "verdict")

Pair = Mapping[str, Any]


def format_results(pairs: Iterable[Pair]) -> str:
    """The pairs of a store for people.

    Parameters
    ----------
    pairs : iterable of mapping
        Rows of the view results.

    Returns
    -------
    str
        A table for every target and scorer, and below it what gains are over, whether no source helps, and which pairs
        failed; ends with a line break.
    """
    ordered = sorted(pairs, key=lambda pair: [pair[name] for name in ("target", "scorer", "settings")])
    settings: dict[str, set[str]] = {}
    for pair in ordered:
        settings.setdefault(pair["scorer"], set()).add(pair["settings"])
    blocks = []
    for (target, scorer, chosen), group in groupby(ordered, lambda p: (p["target"], p["scorer"], p["settings"])):
        about = f" ({settings_line(chosen)})" if len(settings[scorer]) > 1 else ""
        blocks.append(printable(f"{target} by {scorer}{about}") + "\n" + _block(list(group), json.loads(chosen)))
    return "\n".join(blocks) or "no pair\n"


def format_query(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """What a query found for people.

    Parameters
    ----------
    columns : sequence of str
        Their names.
    rows : iterable of sequences
        Their values.

    Returns
    -------
    str
        A table as wide as it has to be; ends with a line break.
    """
    grid = Grid(*(printable(column) for column in columns), box=None, pad_edge=False)
    for row in rows:
        grid.add_row(*(Text(_value(value), no_wrap=True) for value in row))
    return text_of(grid, width=10_000)


def helped(pairs: Iterable[Pair]) -> bool | None:
    """Whether a source helps a target.

    Parameters
    ----------
    pairs : iterable of mapping
        All pairs of a target by one scorer.

    Returns
    -------
    bool or None
        None where no pair has a gain.
    """
    verdicts = [pair["verdict"] for pair in pairs if pair["status"] == "done" and pair["gain_pp"] is not None]
    return any(verdict in HELPFUL for verdict in verdicts) if verdicts else None


def _block(pairs: Sequence[Pair], settings: Mapping[str, Any]) -> str:
    """The pairs of one target by one scorer."""
    done = sorted((p for p in pairs if p["status"] == "done"), key=lambda p: (-p["score"], p["source"]))
    helps, text = helped(pairs), ""
    if done:
        grid = Grid("rank", box=None, pad_edge=False)
        grid.add_column("source", overflow="fold")
        for head in GAINS if helps is not None else ("score",):
            grid.add_column(head, no_wrap=True)
        for rank, pair in enumerate(done, 1):
            grid.add_row(str(rank), Text(printable(pair["source"])), *_cells(pair))
        text += text_of(grid, WIDTH)
    if helps is not None:
        text += f"gains in {unit(settings.get('metric'))} {_over(done)}\n"
    if helps is False:
        text += f"none: no source here is shown to help {printable(pairs[0]['target'])}\n"
    for pair in pairs:
        if pair["status"] == "failed":
            text += printable(f"failed: {pair['source']}: {pair['error']}") + "\n"
    waiting = sum(pair["status"] == "open" for pair in pairs)
    return text + (f"open: {counted(waiting, 'pair')}\n" if waiting else "")


def _over(pairs: Sequence[Pair]) -> str:
    """What the gains of pairs are over."""
    baselines = {pair["baseline"] for pair in pairs if pair["baseline"]}
    if baselines == {"guessing"}:
        return "over guessing, predicted: no row of the target has a label"
    return f"over {baselines.pop()} alone" if len(baselines) == 1 else "over the best learner of the target alone"


def _cells(pair: Pair) -> list[str]:
    if pair["gain_pp"] is None:
        return [f"{pair['score']:.4g}"]
    interval = f"{pair['ci_low']:+z.1f} to {pair['ci_high']:+z.1f}"
    return [f"{pair['gain_pp']:+z.1f}", interval, f"{pair['p_negative']:.2f}", pair["verdict"] or ""]


def settings_line(text: str) -> str:
    """Settings of a method in one line.

    Parameters
    ----------
    text : str
        JSON, as a store has it.

    Returns
    -------
    str
        Without those that are not set.
    """
    return ", ".join(f"{name} {value}" for name, value in json.loads(text).items() if value is not None)


def _value(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else printable(str(value))
