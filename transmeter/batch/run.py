"""A batch from its spec to its results: what is missing is scored, and results are kept when their task is done."""

import os
import socket
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from transmeter.batch import engines, keys, store
from transmeter.batch.files import stamp
from transmeter.batch.spec import Plan
from transmeter.batch.store import Input
from transmeter.batch.tables import folder_of

CHUNK = 15  # sources that are scored as one stack; the last digits of a result may depend on it, so no option
LOSSES = 3  # of an engine in a row without a result in between, after which the run ends

Tell = Callable[[str, dict], None]  # takes an event and what belongs to it


@dataclass(frozen=True)
class Machine:
    """Where tasks run.

    Attributes
    ----------
    engine : str
        "local", "dask" or "ray".
    workers : int
        Number of processes.
    address : str or None
        Of a running cluster; None: one is started.
    host : str
        Address that a cluster started here listens at.
    timeout : float or None
        Seconds that a task may take.
    memory : int or None
        Bytes of data that a worker may have.
    """

    engine: str = "local"
    workers: int = 1
    address: str | None = None
    host: str = engines.LOOPBACK
    timeout: float | None = None
    memory: int | None = None


@dataclass(frozen=True)
class Chunk:
    """Missing pairs that are scored together.

    Attributes
    ----------
    target : str
        Its name.
    scorer : int
        Its place among those of the plan.
    sources : tuple of str
        Their names.
    keys : tuple of bytes
        Key of every source's pair.
    """

    target: str
    scorer: int
    sources: tuple[str, ...]
    keys: tuple[bytes, ...]


class Stopped(RuntimeError):
    """The run cannot go on; what is done is kept."""


def run(
    path: Path, plan: Plan, machine: Machine, retry: bool, tell: Tell, command: str | None = None
) -> dict[str, int]:
    """Score what a store lacks of a batch.

    Parameters
    ----------
    path : Path
        The store, new or not.
    plan : Plan
        Of the batch.
    machine : Machine
        Where tasks run.
    retry : bool
        Whether pairs that failed are tried again.
    tell : callable
        Takes the events start, read, pairs, warning and lost, and what belongs to each.
    command : str or None
        The command line, for the store.

    Returns
    -------
    dict
        Numbers of pairs: total, before (done earlier), done, failed.

    Raises
    ------
    ValueError
        For a store that cannot be used and a batch without a pair.
    Stopped
        Where the run cannot go on.
    """
    engine = engines.Engine(machine.engine, machine.workers, machine.address, machine.host)
    with _explained(path), store.writing(path) as db, engine:
        about = (machine.engine, machine.workers, keys.version(), command)
        number = store.begin(db, (socket.gethostname(), os.getpid(), *about))
        try:
            inputs = _inputs(db, engine, plan, machine, retry, tell)
            counts, chunks = _missing(db, plan, inputs, retry)
            unscored = sum(len(c.sources) for c in chunks)
            store.beat(db, number, unscored)
            tell("start", {**counts, "open": unscored})

            def save(chunk: Chunk, result: dict) -> None:
                rows = dict(zip(chunk.sources, result["rows"], strict=True))
                with store.transaction(db):
                    store.record(db, zip(chunk.keys, result["rows"]))
                    store.beat(db, number)
                for row in rows.values():
                    counts["failed" if row.get("error") else "done"] += 1
                tell("pairs", {"target": chunk.target, "scorer": plan.scorers[chunk.scorer][0], "rows": rows})

            _work(engine, chunks, lambda chunk: _task(plan, machine, inputs, chunk), save, tell)
            store.end(db, number, "finished")
        except BaseException as error:
            store.end(db, number, "interrupted" if isinstance(error, KeyboardInterrupt) else str(error))
            raise
    return counts


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Errors of writing as the reason for which the run ends."""
    try:
        yield
    except sqlite3.Error as error:
        raise Stopped(f"{path} cannot be written ({error}): make room, then the same command goes on") from None


def _work(
    engine: engines.Engine, items: Iterable, task: Callable[..., dict], keep: Callable[..., None], tell: Tell
) -> None:
    """Do all items, and begin again with what is left where the engine is lost."""
    left, losses = dict(enumerate(items)), 0
    while left:
        try:
            tasks = (task(item) | {"number": number} for number, item in list(left.items()))
            for asked, result in engine.each(tasks):
                if "stop" in result:
                    raise Stopped(result["stop"])
                for said in result["warnings"]:
                    tell("warning", {"message": said})
                keep(left.pop(asked["number"]), result)
                losses = 0
        except engines.Lost as error:
            losses += 1
            tell("lost", {"reason": str(error), "time": losses})
            if losses >= LOSSES:
                raise Stopped(f"{error}, {losses} times in a row: the same command goes on") from None
            engine.stop()
        except ValueError as error:  # what can be wrong before anything ran is bad input
            if losses:
                raise Stopped(f"{error}: the same command goes on") from None
            raise


def _inputs(
    db: sqlite3.Connection, engine: engines.Engine, plan: Plan, machine: Machine, retry: bool, tell: Tell
) -> dict[str, Input]:
    """What the store holds of every file, by its spec; files that are new, changed or not in the cache are read."""
    names = {spec: name for name, spec in [*plan.targets.items(), *plan.sources.items()]}
    stamps = {spec: stamp(keys.input_path(spec)) for spec in names}

    def entry(spec: str) -> Input | None:
        return store.find_input(db, keys.input_name(plan, spec), stamps[spec])

    def is_new(spec: str) -> bool:
        known = entry(spec)
        if known is None:
            return True
        return retry if known.error else not folder_of(plan.cache, known.digest.hex()).exists()

    new = [spec for spec in names if is_new(spec)]
    digests, trained = {spec: keys.input_digest(plan, spec) for spec in new}, set(plan.sources.values())
    targets = set(plan.targets.values())

    def task(spec: str) -> dict:
        item = {"name": names[spec], "spec": spec, "digest": digests[spec].hex(), "train": spec in trained}
        item["dialect"] = asdict(plan.dialects[spec])
        item["unlabelled"] = spec in targets  # a source has to have labels
        return {**_common(plan, machine), "do": "read", "items": [item]}

    def save(spec: str, result: dict) -> None:
        row = result["rows"][0]
        with store.transaction(db):
            store.save_input(db, keys.input_name(plan, spec), stamps[spec], digests[spec], row)
        tell("read", {"name": names[spec], "error": row.get("error"), "files": len(new)})

    _work(engine, new, task, save, tell)
    return {spec: entry(spec) for spec in names}


def _missing(
    db: sqlite3.Connection, plan: Plan, inputs: dict[str, Input], retry: bool
) -> tuple[dict[str, int], list[Chunk]]:
    """Numbers of pairs, and those that are to be scored, in chunks; the batch's pairs are noted in the store.

    Which chunk a pair belongs to depends on the batch alone, not on what is missing: after a stop the same sources
    are trained as one stack as without it. Pairs with texts are scored by themselves where no encoder gives them
    meaning: TF-IDF is fitted on both tables.
    """
    digests = {spec: entry.digest for spec, entry in inputs.items()}
    order = sorted(plan.sources, key=lambda name: digests[plan.sources[name]])
    alone = {spec for spec, entry in inputs.items() if entry.texts and plan.spec.encoder is None}
    counts, chunks = {"total": 0, "before": 0, "done": 0, "failed": 0}, []
    with store.transaction(db):
        for number, (scorer, options) in enumerate(plan.scorers):
            method = keys.method_key(plan, scorer, options)
            method_id = store.method(db, scorer, {**options, **keys.settings(plan)})
            for target, spec in plan.targets.items():
                unscored: dict[tuple[int, str], list[tuple[str, bytes]]] = {}
                for i, source in enumerate(order):
                    other = plan.sources[source]
                    if not keys.is_pair(plan, digests, target, source):
                        continue
                    key = keys.pair_key(method, digests[spec], digests[other])
                    store.request(db, [(target, source, method_id, key, inputs[spec].id, inputs[other].id)])
                    counts["total"] += 1
                    status = _status(db, key, inputs[spec].error or inputs[other].error, retry)
                    if status:
                        counts["before" if status == "done" else "failed"] += 1
                    else:
                        place = i // CHUNK, source if {spec, other} & alone else ""
                        unscored.setdefault(place, []).append((source, key))
                chunks += [Chunk(target, number, *zip(*pairs)) for pairs in unscored.values()]
    if not counts["total"]:
        raise ValueError("the batch has no pair: a file is not a source for itself, give others")
    return counts, chunks


def _status(db: sqlite3.Connection, key: bytes, error: str | None, retry: bool) -> str | None:
    """done or failed, None for a pair that is to be scored; one of an unusable file, with an `error`, fails now."""
    status = store.status(db, key)
    if status == "done" or (status == "failed" and not retry):
        return status
    if error:
        store.record(db, [(key, {"error": error, "seconds": 0.0})])
        return "failed"
    return None


def _task(plan: Plan, machine: Machine, inputs: dict[str, Input], chunk: Chunk) -> dict:
    """What a worker is asked for a chunk."""
    scorer, options = plan.scorers[chunk.scorer]
    settings = ("shots", "repeats", "metric", "seed", "match", "encoder")
    return {
        **_common(plan, machine),
        "do": "score",
        "target": {"name": chunk.target, "digest": inputs[plan.targets[chunk.target]].digest.hex()},
        "items": [{"name": s, "digest": inputs[plan.sources[s]].digest.hex()} for s in chunk.sources],
        "scorer": scorer,
        "options": options,
        "settings": {k: getattr(plan.spec, k) for k in settings},
    }


def _common(plan: Plan, machine: Machine) -> dict:
    return {
        "cache": str(plan.cache),
        "label": plan.spec.label,
        "key": plan.spec.key,
        "seed": plan.spec.seed,
        "timeout": machine.timeout,
        "memory": machine.memory,
    }
