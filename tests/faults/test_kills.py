"""What is killed, hangs or runs out of memory costs nothing but itself: every pair is there exactly once."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.faults.children import stand_in as stand_in  # a fixture
from transmeter.batch import engines, worker

ROOT = Path(__file__).resolve().parent.parent.parent


def asked(*names, timeout=None, memory=None):
    """Results of `guarded` by source."""
    items = [{"name": n} for n in names]
    task = {"do": "score", "target": {"name": "t"}, "items": items, "timeout": timeout, "memory": memory}
    found = worker.guarded(task)
    return dict(zip(names, found["rows"], strict=True))


def until(holds, seconds=20):
    """Wait for what must come."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)


def test_a_child_that_was_killed_once_is_asked_again_as_one_stack(stand_in):
    found = asked("a", "dies_once", "b")
    assert not any("error" in r for r in found.values())
    assert (stand_in / "log").read_text().splitlines() == ["a dies_once b"] * 2


@pytest.mark.parametrize(
    "name, said, limits",
    [
        ("dies", "killed (signal 9): out of memory, most likely", {}),
        ("hangs", "took longer than 0.5 s", {"timeout": 0.5}),
        ("eats", "out of memory", {"memory": 2 << 30}),
        ("ends", "code 1): said at the end", {}),
    ],
)
def test_the_pair_at_fault_gets_its_reason_and_the_others_their_scores(stand_in, name, said, limits):
    if name == "eats":  # the real worker asks one by one itself
        found = asked("eats", **limits) | asked("a", **limits) | asked("b", **limits)
    else:
        found = asked("a", name, "b", **limits)
    assert said in found[name]["error"]
    assert "score" in found["a"] and "score" in found["b"]


def test_a_worker_that_cannot_start_stops_the_run(stand_in, monkeypatch):
    monkeypatch.setattr(worker, "MODULE", "no_such_module")
    task = {"do": "score", "target": {"name": "t"}, "items": [{"name": "a"}], "timeout": None, "memory": None}
    assert "a worker cannot start" in worker.guarded(task)["stop"]


@pytest.fixture
def job(tmp_path):
    """56 pairs: 4 targets with a chunk of 14 sources each."""
    for i in range(15):
        (tmp_path / f"{i:02}.csv").write_text(f"x,label\n{i},0\n")
    text = "targets: ['0[0-3].csv']\nsources: ['*.csv']\nscorers: shared_columns\n"
    (tmp_path / "job.yaml").write_text(text)
    return tmp_path / "job.yaml"


def command(job, *more):
    """The process of `transmeter batch JOB`."""
    words = [
        "batch",
        str(job),
        "--store",
        "s.sqlite",
        "--cache",
        "cache",
        "--workers",
        "1",
        "--log",
        "log.jsonl",
        *more,
    ]
    return subprocess.Popen(
        [sys.executable, "-m", "command", *words],
        cwd=job.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def scores(folder):
    """(target, source) -> score of the store; every pair once."""
    with closing(sqlite3.connect(folder / "s.sqlite")) as db:
        found = db.execute("SELECT target, source, score FROM results WHERE status = 'done'").fetchall()
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert len({row[:2] for row in found}) == len(found)
    return {row[:2]: row[2] for row in found}


def events(folder):
    """Of the log, a line that was cut off left out."""
    path = folder / "log.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line)["event"] for line in lines if line.endswith("}")]


@pytest.mark.parametrize("event, times", [("read", 3), ("start", 1), ("pairs", 2)])
def test_kill_9_of_the_command_at_any_moment_loses_only_what_was_in_flight(stand_in, job, monkeypatch, event, times):
    monkeypatch.setenv("PACE", "0.1")
    first = command(job)
    until(lambda: events(job.parent).count(event) >= times)
    children = Path(f"/proc/{first.pid}/task/{first.pid}/children")
    known = children.read_text().split() if children.exists() else []
    first.kill()
    first.communicate()
    before = len((stand_in / "log").read_text().splitlines()) if (stand_in / "log").exists() else 0
    until(lambda: not any(Path(f"/proc/{pid}").exists() and _runs(pid) for pid in known))
    second = command(job)
    out, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    disturbed = scores(job.parent)
    assert len(disturbed) == 56
    tasks = len((stand_in / "log").read_text().splitlines())
    assert tasks <= 4 + 1 and before <= 4  # one chunk was in flight
    (job.parent / "s.sqlite").unlink()
    assert command(job).wait() == 0
    assert scores(job.parent) == disturbed


def _runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_ctrl_c_ends_with_130_and_the_same_command_goes_on(stand_in, job, monkeypatch):
    monkeypatch.setenv("PACE", "0.2")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background a shell has it ignored
    first = command(job)
    signal.signal(signal.SIGINT, before)
    until(lambda: "pairs" in events(job.parent))
    first.send_signal(signal.SIGINT)
    out, err = first.communicate(timeout=30)
    assert first.returncode == 130 and "the same command goes on" in err and "Traceback" not in err
    assert 14 <= len(scores(job.parent)) < 56
    again = command(job)
    out, _ = again.communicate(timeout=60)
    assert again.returncode == 0 and len(scores(job.parent)) == 56


def test_a_worker_killed_from_outside_is_replaced(stand_in, job, monkeypatch):
    monkeypatch.setenv("PACE", "0.2")
    run = command(job)
    until(lambda: "start" in events(job.parent) and (stand_in / "log").exists())
    for pid in Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split():
        os.kill(int(pid), signal.SIGKILL)
    for thread in Path(f"/proc/{run.pid}/task").iterdir():
        for pid in (thread / "children").read_text().split():
            os.kill(int(pid), signal.SIGKILL)
    out, err = run.communicate(timeout=60)
    assert run.returncode == 0, err
    assert len(scores(job.parent)) == 56


# where a cluster's workers look it up
LETHAL = """
import os, signal
def guarded(task):
    path = os.environ["MARKS"] + "/killed"
    if task["number"] == 1 and not os.path.exists(path):
        open(path, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return {"rows": [{"score": task["number"]}], "warnings": []}
"""


@pytest.mark.parametrize("name", ["dask", "ray"])
def test_a_cluster_outlives_the_kill_of_a_worker(stand_in, name, tmp_path, monkeypatch):
    pytest.importorskip("distributed" if name == "dask" else "ray")
    (tmp_path / "modules/lethal.py").write_text(LETHAL)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    import lethal

    monkeypatch.setattr(engines, "guarded", lethal.guarded)
    tasks = [{"number": i, "items": [{}]} for i in range(6)]
    with engines.Engine(name, 1, None, engines.LOOPBACK) as engine:
        found = {task["number"]: result["rows"][0]["score"] for task, result in engine.each(tasks)}
    assert found == {i: i for i in range(6)} and (stand_in / "killed").exists()


CLUSTER = """
from distributed import LocalCluster
from transmeter.batch import worker
worker.MODULE = "stand_in"
quiet = {"host": "127.0.0.1", "dashboard_address": None}
print(LocalCluster(1, threads_per_worker=1, processes=False, protocol="tcp", **quiet).scheduler_address, flush=True)
input()
"""


@pytest.fixture
def cluster(stand_in):
    """Starts a Dask scheduler with a worker in a process of its own, and gives it with its address."""
    pytest.importorskip("distributed")
    started = []

    def start():
        words = [sys.executable, "-c", CLUSTER]
        started.append(subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return started[-1], started[-1].stdout.readline().strip()

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_killed_scheduler_stops_the_run_and_another_one_goes_on(cluster, job, monkeypatch):
    monkeypatch.setenv("PACE", "0.2")
    scheduler, address = cluster()
    run = command(job, "--engine", "dask", "--address", address)
    until(lambda: "pairs" in events(job.parent))
    scheduler.kill()
    out, err = run.communicate(timeout=90)
    assert run.returncode == 1 and "the same command goes on" in err and "Traceback" not in err, err
    assert 14 <= len(scores(job.parent)) < 56
    again = command(job, "--engine", "dask", "--address", cluster()[1])
    out, err = again.communicate(timeout=60)
    assert again.returncode == 0 and len(scores(job.parent)) == 56, err
