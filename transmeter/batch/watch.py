"""What a run says while it runs: a live table on a terminal, a log in JSON lines, and its state from elsewhere."""

import json
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table as Grid
from rich.text import Text

from transmeter.batch import store
from transmeter.gain.metric_names import LOG_LOSS, unit
from transmeter.util import writing
from transmeter.util.counts import counted

LEADERS = 10  # targets whose best sources are shown
FRESH = 120.0  # seconds since its last result in which a run is taken for alive


def printable(text: str) -> str:
    """A text without what could steer a terminal.

    Parameters
    ----------
    text : str
        From outside.

    Returns
    -------
    str
        In one line, other characters as "?".
    """
    return "".join(c if c.isprintable() else "?" for c in text)


class Watch:
    """Takes the events of a run; a context.

    Parameters
    ----------
    log : Path or None
        File that events are appended to as JSON lines.
    """

    def __init__(self, log: Path | None):
        self.counts = {"total": 0, "before": 0, "done": 0, "failed": 0, "open": 0}
        self.scored = self.read = 0
        self.begin = time.monotonic()
        self.leaders: dict[tuple[str, str], tuple[float, str]] = {}
        self.warned: set[str] = set()
        self.log = open(log, "a", encoding="utf-8", buffering=1) if log else None  # noqa: SIM115
        console = Console(stderr=True)
        self.live = Live(console=console, transient=True, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> "Watch":
        if self.live:
            self.live.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.live:
            self.live.stop()
        if self.log:
            how = "done" if error is None else "interrupted" if isinstance(error, KeyboardInterrupt) else str(error)
            self._note("end", {**self.counts, "how": how})
            self.log.close()

    def tell(self, event: str, about: dict) -> None:
        """Take note of an event of `run`."""
        if event == "warning":
            if about["message"] in self.warned:
                return
            self.warned.add(about["message"])
        elif event == "read":
            self.read += 1
        elif event == "start":
            self.begin, self.counts = time.monotonic(), self.counts | about
        elif event == "pairs":
            self._count(about)
        self._note(event, about)
        if self.live:
            self.live.update(self._shown(), refresh=True)

    def _count(self, about: dict) -> None:
        for source, row in about["rows"].items():
            self.scored += 1
            self.counts["failed" if row.get("error") else "done"] += 1
            place = about["target"], about["scorer"]
            if not row.get("error") and (place not in self.leaders or row["score"] > self.leaders[place][0]):
                self.leaders[place] = row["score"], source

    def _note(self, event: str, about: dict) -> None:
        if self.log:
            with writing.naming(self.log.name):
                self.log.write(json.dumps({"time": round(time.time(), 3), "event": event, **about}) + "\n")

    def _shown(self) -> Group:
        counts, seconds = self.counts, time.monotonic() - self.begin
        rate = self.scored / seconds if seconds else 0.0
        left = (counts["open"] - self.scored) / rate if rate else None
        head = Grid("done", "failed", "left", "pairs a minute", "time left", box=None, pad_edge=False)
        done, open_pairs = counts["before"] + counts["done"], counts["open"] - self.scored
        head.add_row(*(str(n) for n in (done, counts["failed"], open_pairs)), f"{60 * rate:.0f}", duration(left))
        if not counts["total"]:
            return Group(Text(f"{counted(self.read, 'file')} read"))
        grid = Grid("target", "scorer", "leader", "score", box=None, pad_edge=False)
        for (target, scorer), (score, source) in list(self.leaders.items())[-LEADERS:]:
            grid.add_row(*(Text(printable(t)) for t in (target, scorer, source, f"{score:.4g}")))
        return Group(head, Text(), grid)


def duration(seconds: float | None) -> str:
    """A duration for people.

    Parameters
    ----------
    seconds : float or None
        None: not known.

    Returns
    -------
    str
        Such as "5 s", "10 min" or "11.1 h".
    """
    if seconds is None:
        return "not known"
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 100 else f"{minutes} min" if minutes < 100 else f"{minutes / 60:.1f} h"


def state(db: sqlite3.Connection) -> dict[str, Any]:
    """How far the batch of a store has come.

    Parameters
    ----------
    db : sqlite3.Connection
        Of `store.reading`.

    Returns
    -------
    dict
        done, failed, open (numbers of pairs); run, the last one with its pace; errors, the reasons of failure; leaders,
        with the unit of gains that are not in percentage points; commands, where runs noted theirs.
    """
    counts = dict(store.query(db, "SELECT status, count(*) FROM results GROUP BY status")[1])
    result: dict[str, Any] = {name: counts.get(name, 0) for name in ("done", "failed", "open")}
    names = ("began", "beat", "ended", "how", "host", "pid", "engine", "workers")
    last = next(store.query(db, f"SELECT {', '.join(names)} FROM runs ORDER BY id DESC LIMIT 1")[1], None)
    result["run"] = dict(zip(names, last)) if last else None
    if last:
        run = result["run"]
        run["pairs"] = next(store.query(db, "SELECT count(*) FROM pairs WHERE at >= ?", (run["began"],))[1])[0]
        run["pairs_a_second"] = run["pairs"] / max((run["ended"] or run["beat"]) - run["began"], 1e-9)
    if commands := store.commands(db):
        result["commands"] = commands
    reasons = "SELECT error, count(*) FROM results WHERE status = 'failed' GROUP BY error ORDER BY 2 DESC LIMIT 5"
    result["errors"] = [{"error": error, "pairs": count} for error, count in store.query(db, reasons)[1]]
    leaders = (
        "SELECT target, scorer, source, max(score), gain_pp, verdict, json_extract(settings, '$.metric') FROM results"
        " WHERE status = 'done'"
        f" GROUP BY target, scorer ORDER BY target, scorer LIMIT {LEADERS}"
    )
    heads = ("target", "scorer", "source", "score", "gain_pp", "verdict")
    result["leaders"] = [
        dict(zip(heads, row)) | ({"unit": unit(LOG_LOSS)} if row[-1] == LOG_LOSS else {})
        for row in store.query(db, leaders)[1]
    ]
    return result


def format_state(state: Mapping[str, Any]) -> str:
    """The state of a store for people.

    Parameters
    ----------
    state : mapping
        Of `state`.

    Returns
    -------
    str
        Ends with a line break.
    """
    lines = [f"{state['done']} done, {state['failed']} failed, {state['open']} open"]
    if run := state["run"]:
        rate = run["pairs_a_second"]
        if run["ended"]:
            now = f"ended {duration(time.time() - run['ended'])} ago: {printable(run['how'])}"
        else:
            now = f"last result {duration(time.time() - run['beat'])} ago"
            now += f", {duration(state['open'] / rate)} left" if run["pairs"] else ""
        who = f"process {run['pid']}, {run['engine']}, {counted(run['workers'], 'worker')}"
        lines.append(f"run on {run['host']} ({who}): {now}; {counted(round(60 * rate), 'pair')} a minute")
    lines += [f"made by: {printable(command)}" for command in state.get("commands", ())]
    lines += [f"{e['pairs']} failed: {printable(e['error'])}" for e in state["errors"]]
    for row in state["leaders"]:
        gain = row["gain_pp"]
        known = gain is not None
        number = f"{gain:+z.1f} {row.get('unit', 'points')}, {row['verdict']}" if known else f"{row['score']:.4g}"
        names = [printable(row[k]) for k in ("target", "scorer", "source")]
        lines.append(f"{names[0]}, {names[1]}: {names[2]} leads ({number})")
    return "\n".join(lines) + "\n"
