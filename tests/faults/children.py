"""A worker that scores at once and can be told to hang, to die or to eat memory, and a command that uses it."""

import os
import sys
from pathlib import Path

import pytest

from transmeter.batch import worker

ROOT = Path(__file__).resolve().parent.parent.parent

# what a child runs instead of the real scoring; the name of a source says what befalls it
STAND_IN = """
import os, sys, time, types, zlib

def mark(name, task):
    path = os.path.join(os.environ["MARKS"], name)
    there = os.path.exists(path)
    open(path, "a").close()
    return there

def run(task):
    names = [item["name"] for item in task["items"]]
    print("what a library prints is no answer")
    if task["do"] == "read":
        return {"rows": [{"rows": 1, "columns": 1, "texts": False}], "warnings": []}
    with open(os.path.join(os.environ["MARKS"], "log"), "a") as file:
        file.write(" ".join(names) + "\\n")
    time.sleep(float(os.environ.get("PACE", 0)))
    if "hangs" in names:
        time.sleep(600)
    if "dies" in names or "dies_once" in names and not mark("died", task):
        os.kill(os.getpid(), 9)
    if "ends" in names:
        sys.exit("said at the end")
    if "eats" in names:
        try:
            bytearray(1 << 38)
        except MemoryError:
            return {"rows": [{"error": "out of memory"}] * len(names), "warnings": []}
    rows = [{"score": zlib.crc32((task["target"]["name"] + n).encode()) / 2**32, "seconds": 0.0} for n in names]
    return {"rows": rows, "warnings": []}

fake = types.ModuleType("transmeter.batch.scoring")
fake.run = run
sys.modules["transmeter.batch.scoring"] = fake
import transmeter.batch
transmeter.batch.scoring = fake
from transmeter.batch import worker
if __name__ == "__main__":
    worker.main()
"""
COMMAND = """
from transmeter.batch import worker
worker.MODULE = "stand_in"
import cli
cli.main()
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Children of this process and of its processes run STAND_IN; the folder in which it notes what it was asked."""
    marks = tmp_path / "marks"
    marks.mkdir()
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules/stand_in.py").write_text(STAND_IN)
    (tmp_path / "modules/command.py").write_text(COMMAND)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "modules"), str(ROOT), *sys.path]))
    monkeypatch.setenv("MARKS", str(marks))
    monkeypatch.setattr(worker, "MODULE", "stand_in")
    worker.may_start()  # a run of another test has ended its children
    yield marks
    worker.stop_all()
    worker.may_start()
