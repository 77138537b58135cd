"""What a worker does: read a table once, or score a few sources for one target."""

import errno
import time
import warnings
from pathlib import Path

from transmeter.batch import tables
from transmeter.network.source import Source
from transmeter.ranking import rank
from transmeter.result import Row
from transmeter.scorers import needs
from transmeter.tables.data import Table, load
from transmeter.tables.specs import Dialect
from transmeter.tables.text import text_columns

FULL = (errno.ENOSPC, errno.EDQUOT)


class Full(Exception):
    """No space is left, which is no fault of a pair."""


def run(task: dict) -> dict:
    """Do a task; what fails is the item's own and ends nothing.

    Parameters
    ----------
    task : dict
        What to do ("read" or "score"), its items, and the settings of `batch.run`.

    Returns
    -------
    dict
        rows (one per item, with "error" where it failed) and warnings; or stop, the reason why the run cannot go on.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        begin = time.perf_counter()
        try:
            rows = _each(task, task["items"])
        except Full as error:
            return {"stop": str(error)}
        seconds = (time.perf_counter() - begin) / len(rows)
    said = {str(w.message) for w in caught if issubclass(w.category, UserWarning)}
    return {"rows": [row | {"seconds": seconds} for row in rows], "warnings": sorted(said)}


def _each(task: dict, items: list[dict]) -> list[dict]:
    """All items at once; one by one where that fails, so that each failure stays with its item."""
    try:
        return _table(task, items[0]) if task["do"] == "read" else _pairs(task, items)
    except Exception as error:
        if getattr(error, "errno", None) in FULL or "No space left" in str(error):
            raise Full(f"no space is left for {task['cache']}: {error}") from None
        if len(items) == 1:
            return [{"error": _reason(error)}]
    return [row for item in items for row in _each(task, [item])]


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())[:500]
    if isinstance(error, MemoryError) or "not enough memory" in text or "can't allocate memory" in text:
        return f"out of memory: {text}" if text else "out of memory"
    return text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"


def _table(task: dict, item: dict) -> list[dict]:
    """Read a file, keep it as arrays, and train its classifier if it is a source."""
    folder = tables.folder_of(Path(task["cache"]), item["digest"])
    if not folder.exists():
        found = load(
            item["spec"],
            task["label"],
            strict=False,
            key=task["key"],
            dialect=Dialect(**item["dialect"]),
            unlabelled=item["unlabelled"],
        )
        tables.keep(found, folder)
    table = tables.mapped(folder, item["name"])
    texts = bool(text_columns(table.features))
    if item["train"] and not texts and not table.unlabelled:
        _ = Source(table, Path(task["cache"]), task["seed"]).classifier
    return [{"rows": len(table), "columns": len(table.columns), "texts": texts}]


def _pairs(task: dict, items: list[dict]) -> list[dict]:
    """Every source as if it were the only one, trained as one stack."""
    cache, options = Path(task["cache"]), dict(task["options"])
    if needs(task["scorer"]).compares:
        options["independent"] = True

    def table(item: dict) -> Table:
        return tables.mapped(tables.folder_of(cache, item["digest"]), item["name"])

    found = rank(
        table(task["target"]),
        [table(item) for item in items],
        task["scorer"],
        options=options,
        cache=cache,
        **task["settings"],
    )
    rows = {row.source: row for row in found.rows}
    return [_result(rows[item["name"]]) for item in items]


def _result(row: Row) -> dict:
    fields = ("score", "gain_pp", "ci_low", "ci_high", "p_negative", "verdict", "repeats", "baseline", "error")
    return {field: getattr(row, field) for field in fields}
