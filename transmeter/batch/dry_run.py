"""What a batch would do: its pairs, the files that are unusable, and what the open pairs would take."""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from transmeter.batch import keys, store
from transmeter.batch.files import stamp
from transmeter.batch.run import CHUNK
from transmeter.batch.spec import Plan

PER_PAIR = {True: 2.0, False: 0.5}  # seconds expected of Transmeter and of others, before any pair was timed
BASE, FACTOR = 500e6, 6.0  # bytes of a worker, and those per byte of the tables that it works on


class Pair(NamedTuple):
    """A pair of a batch.

    Attributes
    ----------
    target, source, scorer : str
        Their names.
    status : str
        "done", "failed", "open", or "unusable" where one of its files is.
    """

    target: str
    source: str
    scorer: str
    status: str


def unusable(path: Path, plan: Plan) -> dict[str, str]:
    """The files of a batch that are not usable tables; what the store knows is not read again.

    Parameters
    ----------
    path : Path
        The store, which need not exist.
    plan : Plan
        Of the batch.

    Returns
    -------
    dict
        The reason by PATH[::LABEL].
    """
    from transmeter.tables.data import load  # takes a second

    reasons: dict[str, str] = {}
    with store.reading(path) if path.exists() else nullcontext() as db:
        for spec in dict.fromkeys([*plan.targets.values(), *plan.sources.values()]):
            entry = store.find_input(db, keys.input_name(plan, spec), stamp(keys.input_path(spec))) if db else None
            try:
                if entry is None:
                    load(
                        spec,
                        plan.spec.label,
                        strict=False,
                        key=plan.spec.key,
                        dialect=plan.dialects[spec],
                        unlabelled=spec in plan.targets.values(),
                    )
                elif entry.error:
                    reasons[spec] = entry.error
            except ValueError as error:
                reasons[spec] = str(error)
    return reasons


def pairs(path: Path, plan: Plan, reasons: Mapping[str, str]) -> Iterator[Pair]:
    """All pairs of a batch with their status.

    Parameters
    ----------
    path : Path
        The store, which need not exist.
    plan : Plan
        Of the batch.
    reasons : mapping
        Of `unusable`.

    Yields
    ------
    Pair
    """
    statuses: dict[bytes, str] = {}
    if path.exists():
        with store.reading(path) as db:
            statuses = dict(store.query(db, "SELECT key, status FROM pairs")[1])
    digests = {spec: keys.input_digest(plan, spec) for spec in {*plan.targets.values(), *plan.sources.values()}}
    for scorer, options in plan.scorers:
        method = keys.method_key(plan, scorer, options)
        for target, one in plan.targets.items():
            for source, other in plan.sources.items():
                if keys.is_pair(plan, digests, target, source):
                    unscored = "unusable" if {one, other} & reasons.keys() else "open"
                    status = statuses.get(keys.pair_key(method, digests[one], digests[other]), unscored)
                    yield Pair(target, source, scorer, status)


def timings(path: Path) -> dict[str, float]:
    """How long pairs took so far.

    Parameters
    ----------
    path : Path
        The store, which need not exist.

    Returns
    -------
    dict
        Mean seconds per pair by scorer, as far as the store holds any.
    """
    if not path.exists():
        return {}
    with store.reading(path) as db:
        sql = "SELECT scorer, avg(seconds) FROM results WHERE status = 'done' GROUP BY scorer"
        return dict(store.query(db, sql)[1])


def expected_seconds(timed: Mapping[str, float], scorer: str) -> float:
    """How long a pair will take.

    Parameters
    ----------
    timed : mapping
        Of `timings`.
    scorer : str
        Its name.

    Returns
    -------
    float
        Seconds; a guess where none was timed.
    """
    return timed.get(scorer, PER_PAIR[scorer == "transmeter"])


def memory(plan: Plan, workers: int) -> float:
    """Bytes that the workers take together, at most.

    Parameters
    ----------
    plan : Plan
        Of the batch.
    workers : int
        Number of processes.

    Returns
    -------
    float
    """
    sizes = sorted(keys.input_path(s).stat().st_size for s in plan.sources.values())
    return workers * (BASE + FACTOR * sum(sizes[-CHUNK:]))
