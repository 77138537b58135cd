"""Where tasks run: on this machine, or on a Dask or Ray cluster. joblib's threads wait, the work is in processes."""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

from joblib import Parallel, delayed

from transmeter.batch.worker import guarded, may_start, stop_all

ENGINES = ("local", "dask", "ray")
RETRIES = 3  # of a task whose worker on a cluster was lost
LOOPBACK = "127.0.0.1"
Call = Callable[[dict], dict]


class Lost(Exception):
    """The engine itself is gone: its scheduler was killed or cannot be reached."""


class Engine:
    """An engine that starts when the first task comes; a context.

    Parameters
    ----------
    name : str
        "local", "dask" or "ray".
    workers : int
        Number of processes of a cluster that is started here, or that are at work at a time.
    address : str or None
        Of a running cluster; None: one is started, and ends with the run.
    host : str
        Address that a cluster started here listens at.
    """

    def __init__(self, name: str, workers: int, address: str | None, host: str):
        self.workers = workers
        self._start = partial({"local": _local, "dask": _dask, "ray": _ray}[name], workers, address, host)
        self._running = ExitStack()
        self._call: Call | None = None

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def each(self, tasks: Iterable[dict]) -> Iterator[tuple[dict, dict]]:
        """(task, its result) as they are done.

        Raises ValueError for an engine that is not installed or an address that cannot be reached, and Lost.
        """
        if self._call is None:
            self._call = self._running.enter_context(self._start())
        threads = {"n_jobs": self.workers, "pre_dispatch": 2 * self.workers}
        pool = Parallel(backend="threading", return_as="generator_unordered", **threads)
        return pool(delayed(_answered)(self._call, task) for task in tasks)

    def stop(self) -> None:
        """End it; it starts again when a task comes."""
        self._call = None
        self._running.close()


def _answered(call: Call, task: dict) -> tuple[dict, dict]:
    return task, call(task)


@contextmanager
def _local(workers: int, address: str | None, host: str) -> Iterator[Call]:
    may_start()
    try:
        yield guarded
    finally:
        stop_all()


@contextmanager
def _dask(workers: int, address: str | None, host: str) -> Iterator[Call]:
    try:
        import dask
        from distributed import Client, LocalCluster
        from distributed.utils import silence_logging_cmgr
    except ImportError:
        raise ValueError("--engine dask is not installed: pip install 'transmeter[dask]'") from None
    settings = {"distributed.comm.timeouts.connect": "10s", "distributed.scheduler.allowed-failures": RETRIES}
    with dask.config.set(settings), silence_logging_cmgr(logging.CRITICAL):  # a loss is told by Lost
        try:
            cluster = address or LocalCluster(workers, threads_per_worker=1, host=host, dashboard_address=None)
            client = Client(cluster, timeout="10s", set_as_default=False)
        except OSError as error:
            raise ValueError(f"no Dask scheduler answers at {address or host}: {error}") from None
        try:
            yield partial(_by_dask, client)
        finally:
            with suppress(OSError):  # of a scheduler that is gone, or a machine too busy to answer
                client.close(timeout=5)
            if not address:
                with suppress(OSError):
                    cluster.close(timeout=30)


def _by_dask(client: object, task: dict) -> dict:
    from distributed import CancelledError, KilledWorker

    try:
        return client.submit(guarded, task, pure=False, retries=RETRIES).result()
    except KilledWorker as error:
        return {"rows": [{"error": f"its workers were killed: {error}"}] * len(task["items"]), "warnings": []}
    except (CancelledError, OSError, RuntimeError) as error:
        raise Lost(f"the Dask scheduler is gone ({type(error).__name__})") from None


@contextmanager
def _ray(workers: int, address: str | None, host: str) -> Iterator[Call]:
    try:
        import ray
    except ImportError:
        raise ValueError("--engine ray is not installed: pip install 'transmeter[ray]'") from None
    quiet = {"logging_level": "ERROR", "log_to_driver": False}
    try:
        if address:
            ray.init(address, **quiet)
        else:
            ray.init(num_cpus=workers, include_dashboard=False, _node_ip_address=host, **quiet)
    except Exception as error:  # Ray raises any kind
        kind = ValueError if address else RuntimeError
        raise kind(f"Ray cannot be started at {address or host}: {str(error).splitlines()[0]}") from None
    try:
        yield partial(_by_ray, ray.remote(guarded).options(max_retries=RETRIES, num_cpus=1))
    finally:
        ray.shutdown()


def _by_ray(remote: object, task: dict) -> dict:
    import ray

    try:
        return ray.get(remote.remote(task))
    except ray.exceptions.WorkerCrashedError as error:
        reason = f"its workers were killed: {str(error).splitlines()[0]}"
        return {"rows": [{"error": reason}] * len(task["items"]), "warnings": []}
    except (ray.exceptions.RayError, ConnectionError, RuntimeError) as error:
        raise Lost(f"the Ray cluster is gone ({type(error).__name__})") from None
