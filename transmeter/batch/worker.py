"""A child process that scores: it may hang, run out of memory or be killed without harm to who waits for it."""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time

IDLE = 120.0  # seconds without a task after which a child ends, so that none is left on a cluster
START = 300.0  # seconds that a child may take to import what it needs
MODULE = "transmeter.batch.worker"  # what a child runs
STARTS = 3  # attempts, before no child can be had
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_idle: list["Child"] = []  # that wait for a task
_children: set["Child"] = set()
_stopping = threading.Event()


class Died(Exception):
    """The child ended before it answered."""


class Hung(Exception):
    """The child did not answer in time, and was killed."""


class Child:
    """A process that takes tasks as JSON lines.

    Parameters
    ----------
    memory : int or None
        Bytes of data that it may have; None: any.
    """

    def __init__(self, memory: int | None):
        if _stopping.is_set():
            raise Died("the run is being stopped")
        self.memory = memory
        self._said = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-m", MODULE, str(memory or 0)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=os.environ | dict.fromkeys(_THREADS, "1") | {"TOKENIZERS_PARALLELISM": "false"},
            start_new_session=True,  # Ctrl-C is for the command, which then ends its children
        )
        _children.add(self)
        self._answer(START)

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End the process; what waits for its answer is told."""
        self._process.kill()

    def ask(self, task: dict, seconds: float | None) -> dict:
        """What the child answers. Raises Died and Hung."""
        try:
            self._process.stdin.write(json.dumps(task).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            self._died()
        return self._answer(seconds)

    def _answer(self, seconds: float | None) -> dict:
        out, end = self._process.stdout, None if seconds is None else time.monotonic() + seconds
        parts: list[bytes] = []
        while not (parts and parts[-1].endswith(b"\n")):
            left = None if end is None else max(0.0, end - time.monotonic())
            if not select.select([out], [], [], left)[0]:
                self.stop()
                raise Hung(f"took longer than {seconds:g} s")
            parts.append(os.read(out.fileno(), 1 << 16))
            if not parts[-1]:
                self._died()
        return json.loads(b"".join(parts))

    def _died(self) -> None:
        self._said.seek(0)
        said = self._said.read()[-300:].decode("utf-8", "replace").split("\n")
        last = next((line.strip() for line in reversed(said) if line.strip()), "")
        code = self._process.wait()
        self.stop()
        if code == -signal.SIGKILL:
            raise Died("its process was killed (signal 9): out of memory, most likely")
        raise Died(f"its process ended ({f'signal {-code}' if code < 0 else f'code {code}'}){': ' * bool(last)}{last}")

    def stop(self) -> None:
        """End the process."""
        _children.discard(self)
        self._process.kill()
        self._process.wait()
        for file in (self._process.stdin, self._process.stdout, self._said):
            try:
                file.close()
            except OSError:
                pass  # what was not written has no reader


def stop_all() -> None:
    """End all children of this process; what waits for them gets `stop`, and no new ones are made."""
    _stopping.set()
    for child in list(_children):
        child.kill()


def may_start() -> None:
    """Children may be made again."""
    _stopping.clear()


def guarded(task: dict) -> dict:
    """Do a task in this thread's child.

    When the child dies, it may not have been the task's fault: a new one tries again. A task whose child dies twice,
    or hangs, is done item by item, and the one at fault gets its reason.

    Parameters
    ----------
    task : dict
        Of `scoring.run`; memory: bytes of data that the child may have; timeout: seconds that it may take.

    Returns
    -------
    dict
        What `scoring.run` says.
    """
    for _ in range(2):
        try:
            child = _child(task["memory"])
        except (Died, Hung) as error:
            return {"stop": f"a worker cannot start: {error}"}
        try:
            answer = child.ask(task, task["timeout"])
            _idle.append(child)
            return answer
        except Hung as error:
            reason = str(error)
            break
        except Died as error:
            reason = str(error)
    if len(task["items"]) == 1:
        return {"rows": [{"error": reason}], "warnings": []}
    parts = [guarded(task | {"items": [item]}) for item in task["items"]]
    stopped = [part for part in parts if "stop" in part]
    if stopped:
        return stopped[0]
    return {"rows": [r for p in parts for r in p["rows"]], "warnings": [w for p in parts for w in p["warnings"]]}


def _child(memory: int | None) -> Child:
    """One that waits for a task, or a new one."""
    while _idle:
        child = _idle.pop()
        if child.memory == memory and child.alive:
            return child
        child.stop()
    for _ in range(STARTS - 1):
        try:
            return Child(memory)
        except Died:
            pass
    return Child(memory)


def main() -> None:
    """What a child does: a task in, an answer out, until its parent is gone or has nothing more."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    _limit(int(sys.argv[1]))
    from transmeter.batch import scoring

    print(json.dumps({"ready": os.getpid()}), file=channel, flush=True)
    while select.select([sys.stdin], [], [], IDLE)[0]:
        line = sys.stdin.readline()
        if not line:
            return
        print(json.dumps(scoring.run(json.loads(line))), file=channel, flush=True)


def _limit(memory: int) -> None:
    """Be the first to go where memory runs out, and have no more data than `memory` bytes, 0 for no limit."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("900")
    except OSError:
        pass  # not Linux
    if memory:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))


if __name__ == "__main__":
    main()
