"""Batch scoring at scale: equal numbers on every engine, pace, overhead, memory, kills, bad inputs.

    python benchmarks/batch_scale.py TABLES --part engines             (2,000 pairs thrice)
    python benchmarks/batch_scale.py TABLES --part pace
    python benchmarks/batch_scale.py TABLES --part memory
    python benchmarks/batch_scale.py TABLES --part kills --kills 100 --engine local    (dask, ray: fewer)
    python benchmarks/batch_scale.py TABLES --part fuzz --fuzz 10000
    python benchmarks/batch_scale.py TABLES --part units               (a source of a million rows)
    python benchmarks/batch_scale.py TABLES --part paper               (docs/scale.md from pace and units)

TABLES holds CSV files with a column label. Every part is written to results/batch_scale.json beside the others. Use a
quiet machine: a pace is wall time.
"""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import click
import numpy as np

from transmeter.tables.data import MAX_ROWS
from transmeter.util import writing

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks/results/batch_scale.json"
DOCS = ROOT / "docs/scale.md"
DOLLARS = 0.04  # a core hour of a rented machine
QUICK = (
    "shared_columns",
    "source_accuracy",
    "source_size",
    "logme",
    "hscore",
    "knn",
    "gbc",
    "leep",
    "nce",
    "transrate",
)
SLOW = ("transmeter", "cls")
APART = ("credit_australian", "credit_approval_jp")  # the same applications


@click.command()
@click.argument("tables", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--part", required=True, type=click.Choice(["engines", "pace", "memory", "kills", "fuzz", "units", "paper"])
)
@click.option("--pairs", default=2000, show_default=True)
@click.option("--engine", "engines", multiple=True, default=("local", "dask", "ray"), show_default=True)
@click.option("--kills", default=100, show_default=True)
@click.option("--fuzz", default=10_000, show_default=True)
@click.option("--rows", default=1_000_000, show_default=True, help="Of the source that units looks at.")
@click.option("--seed", default=0, show_default=True)
def main(
    tables: Path, part: str, pairs: int, engines: Sequence[str], kills: int, fuzz: int, rows: int, seed: int
) -> None:
    """Run one part and merge it into the results."""
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        found = {
            "engines": lambda: _engines(tables, work, pairs, engines),
            "pace": lambda: _pace(tables, work, pairs),
            "memory": lambda: _memory(tables, work, pairs),
            "kills": lambda: known.get("kills", {}) | {e: _kills(tables, work, kills, seed, e) for e in engines},
            "fuzz": lambda: _fuzz(work, fuzz, seed),
            "units": lambda: _source(work, rows),
            "paper": lambda: _paper(known),
        }[part]()
    writing.write_json(RESULTS, known | {part: found if part == "kills" else found | {"cores": os.cpu_count()}})
    click.echo(json.dumps(found, indent=1))


def _job(tables: Path, work: Path, pairs: int, scorers: Sequence[str]) -> Path:
    """A job of at least `pairs` pairs, if the tables allow: as many targets as it takes, all tables as sources."""
    paths = [p for p in sorted(tables.glob("*.csv")) if p.stem != APART[0]]
    targets = paths[: -(-pairs // ((len(paths) - 1) * len(scorers)))]
    sources = paths
    if len(targets) == 1:  # a tiny run
        sources = paths[: -(-pairs // len(scorers)) + 1]
    lines = ["shots: 5", "repeats: 10", f"scorers: [{', '.join(scorers)}]"]
    for name, files in (("targets", targets), ("sources", sources)):
        lines += [f"{name}:", *(f"- {p.resolve()}" for p in files)]
    path = work / f"job{pairs}.yaml"
    path.write_text("\n".join(lines) + "\n")
    return path


def _command(job: Path, store: Path, cache: Path, workers: int, engine: str = "local") -> list[str]:
    words = [sys.executable, str(ROOT / "cli.py"), "batch", str(job), "--store", str(store), "--cache", str(cache)]
    return [*words, "--allow-outside", "--workers", str(workers), "--engine", engine, "--log", f"{store}.jsonl"]


def _run(command: Sequence[str]) -> float:
    """Seconds of the command; exit code 3 says that pairs failed, which tables too small for a scorer do."""
    begin = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode not in (0, 3):
        raise RuntimeError(done.stderr[-2000:])
    return time.perf_counter() - begin


def _rows(store: Path) -> dict[tuple, tuple]:
    with closing(sqlite3.connect(store)) as db:
        columns = "target, source, scorer, score, gain_pp, ci_low, ci_high, verdict, status, error"
        return {row[:3]: row[3:] for row in db.execute(f"SELECT {columns} FROM results")}


def _events(store: Path, name: str) -> list[dict]:
    lines = Path(f"{store}.jsonl").read_text().splitlines() if Path(f"{store}.jsonl").exists() else []
    return [event for event in map(json.loads, (x for x in lines if x.endswith("}"))) if event["event"] == name]


def _engines(tables: Path, work: Path, pairs: int, engines: Sequence[str]) -> dict:
    """The same job on every engine with 2 workers, then a second run on each."""
    job, found, seconds, again = _job(tables, work, pairs, QUICK + SLOW), {}, {}, {}
    for engine in engines:
        command = _command(job, work / f"{engine}.sqlite", work / "cache", 2, engine)
        seconds[engine], found[engine] = _run(command), _rows(work / f"{engine}.sqlite")
        again[engine] = _run(command)
    first = found[engines[0]]
    different = {e: sum(rows.get(k) != first[k] for k in first) for e, rows in found.items()}
    failed = sum(row[5] == "failed" for row in first.values())
    counts = {"pairs": len(first), "failed": failed, "different_from_first": different}
    return counts | {"seconds": seconds, "second_run_seconds": again}


def _pace(tables: Path, work: Path, pairs: int) -> dict:
    """Two workers against two independent processes that score the same tasks without a store or an engine.

    Both with trained classifiers; overhead: what the command's wall time has beside the workers' scoring.
    """
    job, cache = _job(tables, work, pairs, QUICK + SLOW), work / "cache"
    _run(_command(job, work / "warm.sqlite", cache, 2))
    whole = _run(_command(job, work / "timed.sqlite", cache, 2))
    with closing(sqlite3.connect(work / "timed.sqlite")) as db:
        scoring = db.execute("SELECT sum(seconds) FROM pairs").fetchone()[0]
    start, end = (_events(work / "timed.sqlite", name)[0]["time"] for name in ("start", "end"))
    code = (
        "import sys, json\nfrom transmeter.batch import scoring\n"
        "for line in open(sys.argv[1]): scoring.run(json.loads(line))\n"
    )
    lists = _tasks(job, cache, work)
    begin = time.perf_counter()
    threads = {n: "1" for n in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    both = [subprocess.Popen([sys.executable, "-c", code, str(p)], env=os.environ | threads, cwd=ROOT) for p in lists]
    if any(process.wait() for process in both):
        raise RuntimeError("an independent process failed")
    independent = time.perf_counter() - begin
    return {
        "pairs": len(_rows(work / "timed.sqlite")),
        "seconds": whole,
        "independent_seconds": independent,
        "pace_of_independent": independent / whole,
        "scoring_seconds": scoring,
        "overhead": max(0.0, 2 * (end - start) / scoring - 1),
        "unit_seconds": _units(work / "timed.sqlite"),
        "store_bytes_a_pair": (work / "timed.sqlite").stat().st_size / len(_rows(work / "timed.sqlite")),
    }


def _units(store: Path) -> dict[str, float]:
    """Mean seconds of a pair by scorer."""
    with closing(sqlite3.connect(store)) as db:
        return dict(db.execute("SELECT scorer, avg(seconds) FROM results WHERE status = 'done' GROUP BY 1"))


def _tasks(job: Path, cache: Path, work: Path) -> list[Path]:
    """The tasks of the job as two files of JSON lines, dealt out in turn."""
    from transmeter.batch import run, spec, store

    plan, machine = spec.plan(job, {}, False, cache), run.Machine()
    with store.writing(work / "tasks.sqlite") as db, run.engines.Engine("local", 1, None, "") as engine:
        found = run._inputs(db, engine, plan, machine, False, lambda *_: None)
        tasks = [json.dumps(run._task(plan, machine, found, c)) for c in run._missing(db, plan, found, False)[1]]
    paths = [work / f"tasks{i}.jsonl" for i in range(2)]
    for i, path in enumerate(paths):
        path.write_text("\n".join(tasks[i::2]) + "\n")
    return paths


def _memory(tables: Path, work: Path, pairs: int) -> dict:
    """Peak resident bytes of the command and of its largest worker, for a tenth of the pairs and for all."""
    found = {}
    for count in (pairs // 10, pairs):
        job = _job(tables, work, count, QUICK)
        process = subprocess.Popen(
            _command(job, work / f"m{count}.sqlite", work / "cache", 2),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        peaks = {"command": 0, "worker": 0}
        while process.poll() is None:
            for kind, pids in (("command", [process.pid]), ("worker", _descendants(process.pid))):
                peaks[kind] = max([peaks[kind], *map(_peak, pids)])
            time.sleep(0.2)
        found[str(count)] = peaks | {"pairs": len(_rows(work / f"m{count}.sqlite"))}
    return found


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    except OSError:
        pass  # it has ended
    return found + [further for child in found for further in _descendants(child)]


def _peak(pid: int) -> int:
    """Bytes of VmHWM."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def _kills(tables: Path, work: Path, kills: int, seed: int, engine: str) -> dict:
    """Runs of 200 pairs, each killed at a random moment (the command or a process of its own) and taken up again.

    What dies on a cluster is a worker, its nanny, or, of Ray, the scheduler and the object store.
    """
    job, cache, draw = _job(tables, work, 200, QUICK[:4]), work / "cache", random.Random(seed)
    _run(_command(job, work / f"warm_{engine}.sqlite", cache, 2, engine))
    whole = _run(_command(job, work / f"whole_{engine}.sqlite", cache, 2, engine))
    undisturbed = _rows(work / f"whole_{engine}.sqlite")
    different = recomputed = lost = finished = commands = stopped = 0
    for number in range(kills):
        store = work / f"k{number}_{engine}.sqlite"
        command = _command(job, store, cache, 2, engine)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(draw.uniform(0, whole))
        others = _descendants(process.pid)
        victim = process.pid if draw.random() < 0.7 or not others else draw.choice(others)
        commands += victim == process.pid
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            finished += 1
        try:
            stopped += process.wait(timeout=60 + 2 * whole) not in (0, 3, -signal.SIGKILL)
        except subprocess.TimeoutExpired:
            stopped += 1
            process.kill()
            process.wait()
        before = len(_done(store))
        _run(command)
        rows, counted = _rows(store), sum(len(e["rows"]) for e in _events(store, "pairs"))
        lost += len(undisturbed.keys() - rows.keys())
        different += sum(rows.get(k) != v for k, v in undisturbed.items())
        recomputed = max(recomputed, counted - len(undisturbed) if before else 0)
    return {
        "kills": kills,
        "of_the_command": commands,
        "after_the_end": finished,
        "ended_in_an_error_by_it": stopped,
        "pairs": len(undisturbed),
        "lost": lost,
        "different": different,
        "most_kept_twice": recomputed,
        "cores": os.cpu_count(),
    }


def _done(store: Path) -> dict[tuple, tuple]:
    try:
        return {k: v for k, v in _rows(store).items() if v[5] == "done"}
    except sqlite3.Error:
        return {}


def _fuzz(work: Path, count: int, seed: int) -> dict:
    """Generated bad inputs, each in this process by the command line's own runner."""
    sys.path.insert(0, str(ROOT / "tests/faults"))
    from fuzz import bad_inputs, wrong

    kinds: dict[str, int] = {}
    faults: list[str] = []
    for number, case in enumerate(bad_inputs(seed, count)):
        kinds[case.kind] = kinds.get(case.kind, 0) + 1
        folder = work / str(number)
        folder.mkdir()
        fault = wrong(case, folder)
        if fault:
            faults.append(f"{number} {case.kind}: {fault}"[:500])
    return {"inputs": count, "kinds": kinds, "faults": len(faults), "first_faults": faults[:5]}


def _source(work: Path, rows: int, columns: int = 20) -> dict:
    """What a large source costs once: to hash, to read and keep, to train; bytes of file and cache.

    And what a pair costs: 300 rows for a target, 15 sources of as many rows as are kept of a large one.
    """
    from transmeter.batch import files, scoring

    rng = np.random.default_rng(0)
    path, cache = _made(work / "large.csv", rows, columns, rng), work / "cache"
    begin = time.perf_counter()
    content = files.digest(path).hex()
    hashed = time.perf_counter()
    task = {"do": "read", "cache": str(cache), "label": None, "key": None, "seed": 0}
    item = {"name": "large", "spec": str(path), "digest": content, "train": False}
    scoring.run(task | {"items": [item]})
    read = time.perf_counter()
    scoring.run(task | {"items": [item | {"train": True}]})
    trained = time.perf_counter()
    kept = sum(f.stat().st_size for f in cache.rglob("*") if f.is_file())
    (work / "tables").mkdir()
    _made(work / "tables/0.csv", 300, columns, rng)
    for number in range(1, 16):
        _made(work / f"tables/{number}.csv", MAX_ROWS, columns, rng)
    _run(_command(_job(work / "tables", work, 15 * len(QUICK + SLOW), QUICK + SLOW), work / "u.sqlite", cache, 1))
    return {
        "rows": rows,
        "columns": columns,
        "file_bytes": path.stat().st_size,
        "cache_bytes": kept,
        "hash_seconds": hashed - begin,
        "read_seconds": read - hashed,
        "train_seconds": trained - read,
        "pair_seconds": _units(work / "u.sqlite"),
    }


def _made(path: Path, rows: int, columns: int, rng: np.random.Generator) -> Path:
    with open(path, "w") as file:
        file.write(",".join(f"c{i}" for i in range(columns)) + ",label\n")
        for first in range(0, rows, 100_000):
            x = rng.normal(size=(min(100_000, rows - first), columns))
            y = (x[:, 0] > 0).astype(int)
            np.savetxt(file, np.c_[x, y], fmt=["%.6f"] * columns + ["%d"], delimiter=",")
    return path


def _paper(known: dict) -> dict:
    """A million pairs over ten thousand sources of a million rows, from the unit costs; also into docs/scale.md."""
    pace, units, memory = known["pace"], known["units"], known["memory"]
    pairs, sources = 1_000_000, 10_000
    hours = {
        "hash the sources": sources * units["hash_seconds"] / 3600,
        "read the sources": sources * units["read_seconds"] / 3600,
        "train their classifiers": sources * units["train_seconds"] / 3600,
    } | {f"score with {s}": pairs * cost / 3600 for s, cost in units["pair_seconds"].items()}
    cached = {
        "classifiers and tables": sources * units["cache_bytes"] / 1e9,
        "files": sources * units["file_bytes"] / 1e9,
    }
    worker = max(part["worker"] for part in memory.values() if isinstance(part, dict)) / 1e9
    lines = ["| what | core hours | dollars |", "|---|---|---|"]
    lines += [f"| {what} | {h:,.1f} | {h * DOLLARS:,.2f} |" for what, h in hours.items()]
    lines += ["", "| where | GB |", "|---|---|"]
    lines += [f"| {what} | {size:,.1f} |" for what, size in cached.items()]
    lines += [
        f"| the store | {pairs * pace['store_bytes_a_pair'] / 1e9:,.2f} |",
        f"| memory of a worker | {worker:.2f} |",
    ]
    text = DOCS.read_text(encoding="utf-8")
    head, _, rest = text.partition("<!-- figures -->")
    tail = rest.partition("<!-- end -->")[2]
    DOCS.write_text(head + "<!-- figures -->\n" + "\n".join(lines) + "\n<!-- end -->" + tail, encoding="utf-8")
    return {"core_hours": hours, "gigabytes": cached, "dollars_a_core_hour": DOLLARS}


if __name__ == "__main__":
    main()
