"""A batch from its job to its results: what is missing is scored, and each task's results are kept when it is done."""

import hashlib
import json
import os
import socket
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from transmeter.batch import engines, store
from transmeter.batch.files import digest, seen
from transmeter.batch.spec import Job
from transmeter.batch.store import Input

CHUNK = 15  # sources that are scored as one stack; the last digits of a result may depend on it, so no option
LOSSES = 3  # of an engine in a row without a result in between, after which the run ends
# what of the package cannot change a number: rooms, and files of the others
_ROOMS_APART = ("commands", "report")
_APART = ("agreement.py", "ground_truth.py", "run.py", "store.py", "watch.py", "spec.py", "writing.py")

Tell = Callable[[str, dict], None]  # takes an event and what belongs to it


@dataclass(frozen=True)
class Plan:
    """A checked job: spec by name of targets and sources, (scorer, options) each, and the folder for what is reused."""

    job: Job
    targets: dict[str, str]
    sources: dict[str, str]
    scorers: list[tuple[str, dict[str, object]]]
    cache: Path


@dataclass(frozen=True)
class Machine:
    """Where tasks run; timeout: seconds that one may take; memory: bytes of data that a worker may have; None: any."""

    engine: str = "local"
    workers: int = 1
    address: str | None = None
    host: str = engines.LOOPBACK
    timeout: float | None = None
    memory: int | None = None


@dataclass(frozen=True)
class Chunk:
    """Missing pairs that are scored together: one target, one scorer, some sources; key: of a source's pair."""

    target: str
    scorer: int
    sources: tuple[str, ...]
    keys: tuple[bytes, ...]


class Stopped(RuntimeError):
    """The run cannot go on; what is done is kept."""


@cache
def version() -> str:
    """SHA-256 of the code that scores: a number of other code is another number."""
    total = hashlib.sha256()
    root = Path(str(resources.files("transmeter")))
    for path in sorted(p for p in root.rglob("*") if p.suffix in (".py", ".json") and not _is_apart(p)):
        total.update(path.name.encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


def _is_apart(path: Path) -> bool:
    return path.name in _APART or path.parent.name in _ROOMS_APART


def run(path: Path, plan: Plan, machine: Machine, retry: bool, tell: Tell) -> dict[str, int]:
    """Score what the store at `path` lacks of the job; numbers of pairs: total, before (done earlier), done, failed.

    retry: whether pairs that failed are tried again. `tell` gets the events start, read, pairs, warning and lost.
    Raises ValueError for a store that cannot be used and a job without a pair, Stopped where the run cannot go on.
    """
    engine = engines.Engine(machine.engine, machine.workers, machine.address, machine.host)
    with _explained(path), store.writing(path) as db, engine:
        number = store.begin(db, (socket.gethostname(), os.getpid(), machine.engine, machine.workers, version()))
        try:
            found = _inputs(db, engine, plan, machine, retry, tell)
            counts, chunks = _missing(db, plan, found, retry)
            store.beat(db, number, sum(len(c.sources) for c in chunks))
            tell("start", counts | {"open": sum(len(c.sources) for c in chunks)})

            def keep(chunk: Chunk, result: dict) -> None:
                rows = list(zip(chunk.sources, result["rows"], strict=True))
                with store.transaction(db):
                    store.record(db, zip(chunk.keys, result["rows"]))
                    store.beat(db, number)
                counts["failed"] += sum(bool(row.get("error")) for _, row in rows)
                counts["done"] += sum(not row.get("error") for _, row in rows)
                tell("pairs", {"target": chunk.target, "scorer": plan.scorers[chunk.scorer][0], "rows": dict(rows)})

            _work(engine, chunks, lambda chunk: _task(plan, machine, found, chunk), keep, tell)
            store.end(db, number, "finished")
        except BaseException as error:
            store.end(db, number, "interrupted" if isinstance(error, KeyboardInterrupt) else str(error))
            raise
    return counts


def unusable(path: Path, plan: Plan) -> dict[str, str]:
    """The reason by its spec for every file of the job that is no usable table. What the store knows is not read."""
    from transmeter.tables.data import load  # takes a second

    found: dict[str, str] = {}
    with store.reading(path) if path.exists() else nullcontext() as db:
        for spec in dict.fromkeys([*plan.targets.values(), *plan.sources.values()]):
            known = store.known_input(db, _as_read(plan, spec), seen(_path(spec))) if db else None
            try:
                if known is None:
                    load(spec, plan.job.label, strict=False, key=plan.job.key)
                elif known.error:
                    found[spec] = known.error
            except ValueError as error:
                found[spec] = str(error)
    return found


def survey(path: Path, plan: Plan, reasons: Mapping[str, str]) -> Iterator[tuple[str, str, str, str]]:
    """(target, source, scorer, status) of every pair of the job; unusable where one of its files has a reason."""
    known: dict[bytes, str] = {}
    if path.exists():
        with store.reading(path) as db:
            known = dict(store.query(db, "SELECT key, status FROM pairs")[1])
    digests = {spec: _digest(plan, spec) for spec in {*plan.targets.values(), *plan.sources.values()}}
    for name, options in plan.scorers:
        method = _method(plan, name, options)
        for target, source in _pairs(plan, digests):
            key = _key(method, digests[plan.targets[target]], digests[plan.sources[source]])
            usable = not {plan.targets[target], plan.sources[source]} & reasons.keys()
            yield target, source, name, known.get(key, "open" if usable else "unusable")


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
    """What is known of every file, by its spec; files that are new, changed or no longer in the cache are read."""
    specs = dict.fromkeys([*plan.sources.values(), *plan.targets.values()])
    names = {spec: name for name, spec in [*plan.targets.items(), *plan.sources.items()]}
    looks = {spec: seen(_path(spec)) for spec in specs}
    known = {spec: store.known_input(db, _as_read(plan, spec), looks[spec]) for spec in specs}
    new = [s for s, k in known.items() if k is None or (retry if k.error else not _folder(plan, k.digest).exists())]

    def task(spec: str) -> dict:
        item = {"name": names[spec], "spec": spec, "digest": digests[spec].hex(), "train": spec in trained}
        return _common(plan, machine) | {"do": "read", "items": [item]}

    def keep(spec: str, result: dict) -> None:
        with store.transaction(db):
            store.keep_input(db, _as_read(plan, spec), looks[spec], digests[spec], result["rows"][0])
        tell("read", {"name": names[spec], "error": result["rows"][0].get("error"), "files": len(new)})

    digests, trained = {spec: _digest(plan, spec) for spec in new}, set(plan.sources.values())
    _work(engine, new, task, keep, tell)
    return {spec: store.known_input(db, _as_read(plan, spec), looks[spec]) for spec in specs}


def _missing(
    db: sqlite3.Connection, plan: Plan, found: dict[str, Input], retry: bool
) -> tuple[dict[str, int], list[Chunk]]:
    """Numbers of pairs, and those that are to be scored, in chunks; the job's pairs are noted in the store.

    Which chunk a pair belongs to depends on the job alone, not on what is missing: after a stop the same sources are
    trained as one stack as without it. Pairs with texts are scored by themselves where no encoder gives them meaning:
    TF-IDF is fitted on both tables.
    """
    digests = {spec: known.digest for spec, known in found.items()}
    order = sorted(plan.sources, key=lambda name: digests[plan.sources[name]])
    alone = {s for s in order if plan.job.encoder is None and found[plan.sources[s]].texts}
    place = {source: (i // CHUNK, source if source in alone else "") for i, source in enumerate(order)}
    counts, chunks = {"total": 0, "before": 0, "done": 0, "failed": 0}, []
    with store.transaction(db):
        for number, (name, options) in enumerate(plan.scorers):
            method = _method(plan, name, options)
            method_id = store.method(db, name, {**options, **_settings(plan)})
            for target in plan.targets:
                one = found[plan.targets[target]]
                open_pairs: dict[object, list[tuple[str, bytes]]] = {}
                for source in order:
                    other = found[plan.sources[source]]
                    if not _two(plan, digests, target, source):
                        continue
                    key = _key(method, one.digest, other.digest)
                    store.want(db, [(target, source, method_id, key, one.id, other.id)])
                    counts["total"] += 1
                    status = store.status(db, key)
                    if status == "done" or (status == "failed" and not retry):
                        counts["before"] += status == "done"
                        counts["failed"] += status == "failed"
                    elif one.error or other.error:
                        store.record(db, [(key, {"error": one.error or other.error, "seconds": 0.0})])
                        counts["failed"] += 1
                    else:
                        texts = one.texts and plan.job.encoder is None
                        open_pairs.setdefault((*place[source], source if texts else ""), []).append((source, key))
                chunks += [Chunk(target, number, *zip(*pairs)) for pairs in open_pairs.values()]
    if not counts["total"]:
        raise ValueError("the job has no pair: a file is no source for itself, give others")
    return counts, chunks


def _task(plan: Plan, machine: Machine, found: dict[str, Input], chunk: Chunk) -> dict:
    """What a worker is asked for a chunk."""
    name, options = plan.scorers[chunk.scorer]
    job = plan.job
    settings = {k: getattr(job, k) for k in ("shots", "repeats", "metric", "seed", "match", "encoder")}
    return _common(plan, machine) | {
        "do": "score",
        "target": {"name": chunk.target, "digest": found[plan.targets[chunk.target]].digest.hex()},
        "items": [{"name": s, "digest": found[plan.sources[s]].digest.hex()} for s in chunk.sources],
        "scorer": name,
        "options": options,
        "settings": settings,
    }


def _common(plan: Plan, machine: Machine) -> dict:
    job = plan.job
    return {
        "cache": str(plan.cache),
        "label": job.label,
        "key": job.key,
        "seed": job.seed,
        "timeout": machine.timeout,
        "memory": machine.memory,
    }


def _settings(plan: Plan) -> dict[str, object]:
    """What numbers depend on beside tables, scorer and its options."""
    given = {k: getattr(plan.job, k) for k in ("shots", "repeats", "metric", "seed", "match")}
    return given | {"encoder": plan.job.encoder and _model(plan.job.encoder)}


@cache
def _model(encoder: str) -> str:
    """What an encoder is: SHA-256 of its files, or a name on a hub."""
    return digest(Path(encoder)).hex() if Path(encoder).exists() else encoder


def _method(plan: Plan, name: str, options: dict[str, object]) -> bytes:
    settings = json.dumps([name, options, _settings(plan), version()], sort_keys=True)
    return hashlib.sha256(settings.encode()).digest()


def _key(method: bytes, target: bytes, source: bytes) -> bytes:
    return hashlib.sha256(method + target + source).digest()


def _pairs(plan: Plan, digests: dict[str, bytes]) -> Iterator[tuple[str, str]]:
    return ((t, s) for t in plan.targets for s in plan.sources if _two(plan, digests, t, s))


def _two(plan: Plan, digests: dict[str, bytes], target: str, source: str) -> bool:
    """Whether they are two files of two contents."""
    one, other = plan.targets[target], plan.sources[source]
    return _path(one) != _path(other) and digests[one] != digests[other]


def _path(spec: str) -> Path:
    return Path(spec.partition("::")[0])


def _as_read(plan: Plan, spec: str) -> str:
    return json.dumps([spec, plan.job.label, plan.job.key])


def _digest(plan: Plan, spec: str) -> bytes:
    return digest(_path(spec), spec.partition("::")[2], plan.job.label, plan.job.key)


def _folder(plan: Plan, content: bytes) -> Path:
    return plan.cache / "tables" / content.hex()
