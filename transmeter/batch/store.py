"""The results store: one SQLite file (WAL), written by one process, read by any."""

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from filelock import FileLock, Timeout

SCHEMA = (
    """
    CREATE TABLE inputs (  -- files as they were last seen; seen: size and times, digest: of what they hold
        id INTEGER PRIMARY KEY, spec TEXT NOT NULL UNIQUE, seen TEXT NOT NULL, digest BLOB NOT NULL,
        rows INTEGER, columns INTEGER, texts INTEGER, error TEXT
    );
    CREATE TABLE methods (  -- a scorer with all settings that its numbers depend on
        id INTEGER PRIMARY KEY, scorer TEXT NOT NULL, settings TEXT NOT NULL, UNIQUE (scorer, settings)
    );
    CREATE TABLE wanted (  -- what jobs asked for; key: what its numbers depend on, as it is now
        target TEXT NOT NULL, source TEXT NOT NULL, method INTEGER NOT NULL REFERENCES methods, key BLOB NOT NULL,
        target_input INTEGER NOT NULL REFERENCES inputs, source_input INTEGER NOT NULL REFERENCES inputs,
        PRIMARY KEY (target, source, method)
    ) WITHOUT ROWID;
    CREATE INDEX wanted_key ON wanted (key);
    CREATE TABLE pairs (  -- what was ever scored
        key BLOB PRIMARY KEY, status TEXT NOT NULL CHECK (status IN ('done', 'failed')), score REAL, gain_pp REAL,
        ci_low REAL, ci_high REAL, p_negative REAL, verdict TEXT, repeats INTEGER, baseline TEXT, seconds REAL,
        error TEXT, at REAL NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE runs (
        id INTEGER PRIMARY KEY, began REAL NOT NULL, beat REAL NOT NULL, ended REAL, how TEXT, host TEXT, pid INTEGER,
        engine TEXT, workers INTEGER, version TEXT, open INTEGER
    );
    CREATE VIEW results AS
        SELECT target, source, scorer, score, gain_pp, ci_low, ci_high, p_negative, verdict, repeats, baseline, seconds,
            coalesce(status, 'open') AS status, error, settings
        FROM wanted JOIN methods ON methods.id = method LEFT JOIN pairs USING (key);
    """,
    "ALTER TABLE runs ADD COLUMN command TEXT",  # line that was typed
)
OLDEST = 1  # version of a store that is read as it is: what later ones add is asked for where it is there
FIELDS = ("score", "gain_pp", "ci_low", "ci_high", "p_negative", "verdict", "repeats", "baseline", "seconds", "error")
QUERY_SECONDS = 60.0  # that a query of a user may take
_READS = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}


@dataclass(frozen=True)
class Input:
    """A file that was read.

    Attributes
    ----------
    id : int
        Its number in the store.
    spec : str
        Its path and the columns that it is read by.
    digest : bytes
        SHA-256 of what it holds and of how it is read.
    rows, columns : int or None
        Numbers of them.
    texts : bool
        Whether a column holds texts.
    error : str or None
        Why it is unusable.
    """

    id: int
    spec: str
    digest: bytes
    rows: int | None
    columns: int | None
    texts: bool
    error: str | None


@contextmanager
def writing(path: Path) -> Iterator[sqlite3.Connection]:
    """A store with the schema of this version, which no other process may write meanwhile.

    Parameters
    ----------
    path : Path
        Its file, which is made where it is not there.

    Yields
    ------
    sqlite3.Connection

    Raises
    ------
    ValueError
        For a file that is not a store, is a newer version's, or is being written by another process.
    """
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise ValueError(f"{path} cannot be a store: give a file in a folder that exists")
    lock = FileLock(f"{path}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"another batch is writing {path}: wait for it (transmeter status {path})") from None
    try:
        with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as store:
            try:
                _migrate(store, path)
            except sqlite3.OperationalError:  # of the disk, not of what stands there
                raise
            except sqlite3.DatabaseError as error:
                raise ValueError(f"{path} is not a store of transmeter batch ({error}): give another file") from None
            try:
                yield store
            finally:
                _fold(store)
    finally:
        lock.release()


def _fold(store: sqlite3.Connection) -> None:
    """One file again, which readers leave as it is; while somebody reads, or where the disk is full, it stays WAL."""
    with suppress(sqlite3.Error):
        store.execute("PRAGMA journal_mode = DELETE")


def _migrate(store: sqlite3.Connection, path: Path) -> None:
    """Bring the schema to this version, a step and a transaction at a time."""
    version = _version(store, path)
    tables = store.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if not version and tables:
        raise ValueError(f"{path} is a database of something else: give another file")
    store.execute("PRAGMA journal_mode = WAL")
    store.execute("PRAGMA synchronous = NORMAL")  # after a power cut the last seconds may be missing, nothing is torn
    for number in range(version, len(SCHEMA)):
        store.executescript(f"BEGIN IMMEDIATE; {SCHEMA[number]}; PRAGMA user_version = {number + 1}; COMMIT;")


def _version(store: sqlite3.Connection, path: Path) -> int:
    """The number of schemas that the store has gone through. Raises ValueError for a newer version's store."""
    version = store.execute("PRAGMA user_version").fetchone()[0]
    if version > len(SCHEMA):
        mine = f"transmeter {metadata.version('transmeter')} reads up to version {len(SCHEMA)}"
        raise ValueError(
            f"{path} was written by a newer transmeter (store version {version}, {mine}): update transmeter, or give"
            " another file"
        )
    return version


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A store for reading alone: whatever a query says, it cannot write, attach or load.

    Parameters
    ----------
    path : Path
        Its file.

    Yields
    ------
    sqlite3.Connection

    Raises
    ------
    ValueError
        For a file that is not there or is not a store that this version reads.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist: make it with transmeter batch --store")
    beside = [path.with_name(path.name + end) for end in ("-wal", "-shm")]
    new = [file for file in beside if not file.exists()]
    store = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    with closing(store):
        try:
            store.execute("PRAGMA query_only = ON")
            store.execute("PRAGMA trusted_schema = OFF")
            version = _version(store, path)
            there = store.execute("SELECT count(*) FROM sqlite_master WHERE name = 'results'").fetchone()[0]
        except sqlite3.DatabaseError as error:
            store.close()
            for file in new:  # sqlite makes them beside whatever says that it is a store in WAL mode
                file.unlink(missing_ok=True)
            raise ValueError(f"{path} is not a store of transmeter batch ({error})") from None
        if not there or not version:
            raise ValueError(f"{path} is a database of something else: give a store of transmeter batch")
        if version < OLDEST:
            raise ValueError(f"{path} is a store of an earlier transmeter: run batch on it first, which updates it")
        store.set_authorizer(_authorise)
        yield store


def _authorise(action: int, first: str | None, second: str | None, database: str | None, trigger: str | None) -> int:
    loads = action == sqlite3.SQLITE_FUNCTION and second == "load_extension"
    return sqlite3.SQLITE_OK if action in _READS and not loads else sqlite3.SQLITE_DENY


def query(store: sqlite3.Connection, sql: str, values: Sequence[object] = ()) -> tuple[list[str], Iterator[tuple]]:
    """Carry out a query.

    Parameters
    ----------
    store : sqlite3.Connection
        Of `reading` or `writing`.
    sql : str
        One SELECT.
    values : sequence
        Values for its question marks.

    Returns
    -------
    list of str
        Names of the columns.
    iterator of tuple
        The rows.

    Raises
    ------
    ValueError
        For what is not one query, or takes over a minute.
    """
    end = time.monotonic() + QUERY_SECONDS
    store.set_progress_handler(lambda: time.monotonic() > end, 100_000)
    try:
        cursor = store.execute(sql, values)
        if cursor.description is None:
            raise ValueError("--sql is not a query: give one SELECT")
        return [column[0] for column in cursor.description], _rows(cursor)
    except (sqlite3.Error, sqlite3.Warning) as error:
        raise ValueError(f"--sql cannot be run: {error}: give one SELECT, such as SELECT * FROM results") from None


def _rows(cursor: sqlite3.Cursor) -> Iterator[tuple]:
    try:
        yield from cursor
    except sqlite3.Error as error:
        raise ValueError(f"--sql cannot be run: {error}") from None


@contextmanager
def transaction(store: sqlite3.Connection) -> Iterator[None]:
    """Write all of it or nothing.

    Parameters
    ----------
    store : sqlite3.Connection
        Of `writing`.

    Yields
    ------
    None
    """
    store.execute("BEGIN IMMEDIATE")
    try:
        yield
        store.execute("COMMIT")
    except BaseException:
        if store.in_transaction:
            store.execute("ROLLBACK")
        raise


def method(store: sqlite3.Connection, scorer: str, settings: dict[str, object]) -> int:
    """Number of a scorer with its settings, which is given where it has none.

    Parameters
    ----------
    store : sqlite3.Connection
        Of `writing`.
    scorer : str
        Its name.
    settings : dict
        Options of the scorer and settings of the batch.

    Returns
    -------
    int
    """
    row = (scorer, json.dumps(settings, sort_keys=True))
    store.execute("INSERT OR IGNORE INTO methods (scorer, settings) VALUES (?, ?)", row)
    return store.execute("SELECT id FROM methods WHERE scorer = ? AND settings = ?", row).fetchone()[0]


def find_input(store: sqlite3.Connection, spec: str, seen: str) -> Input | None:
    """What the store holds of a file, if its sizes and times are as they were then.

    Parameters
    ----------
    store : sqlite3.Connection
        Of `writing`.
    spec : str
        Of `keys.input_name`.
    seen : str
        Of `files.stamp`.

    Returns
    -------
    Input or None
    """
    columns = "id, spec, digest, rows, columns, texts, error"
    row = store.execute(f"SELECT {columns} FROM inputs WHERE spec = ? AND seen = ?", (spec, seen)).fetchone()
    return Input(*row[:5], bool(row[5]), row[6]) if row else None


def save_input(store: sqlite3.Connection, spec: str, seen: str, digest: bytes, found: dict[str, object]) -> None:
    """Store what was read from a file.

    Parameters
    ----------
    store : sqlite3.Connection
        Of `writing`.
    spec : str
        Of `keys.input_name`.
    seen : str
        Of `files.stamp`.
    digest : bytes
        Of `keys.input_digest`.
    found : dict
        rows, columns, texts, or error.
    """
    values = (spec, seen, digest, *(found.get(k) for k in ("rows", "columns", "texts", "error")))
    store.execute(
        "INSERT INTO inputs (spec, seen, digest, rows, columns, texts, error) VALUES (?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (spec) DO UPDATE SET seen = excluded.seen, digest = excluded.digest, rows = excluded.rows,"
        " columns = excluded.columns, texts = excluded.texts, error = excluded.error",
        values,
    )


def request(store: sqlite3.Connection, rows: Iterable[tuple[str, str, int, bytes, int, int]]) -> None:
    """Note the pairs that a batch asks for.

    Parameters
    ----------
    store : sqlite3.Connection
        Of `writing`.
    rows : iterable of tuple
        (target, source, method, key, target's input, source's input), the last two by their numbers.
    """
    store.executemany("INSERT OR REPLACE INTO wanted VALUES (?, ?, ?, ?, ?, ?)", rows)


def record(store: sqlite3.Connection, found: Iterable[tuple[bytes, dict[str, object]]]) -> None:
    """Store results.

    Parameters
    ----------
    store : sqlite3.Connection
        Of `writing`.
    found : iterable of tuple
        (key, result) of each pair; an `error` in the result makes it a failed one.
    """
    marks = ", ".join("?" * (len(FIELDS) + 3))
    store.executemany(
        f"INSERT OR REPLACE INTO pairs (key, status, {', '.join(FIELDS)}, at) VALUES ({marks})",
        ((k, "failed" if r.get("error") else "done", *(r.get(f) for f in FIELDS), time.time()) for k, r in found),
    )


def status(store: sqlite3.Connection, key: bytes) -> str | None:
    """Whether a pair was scored.

    Parameters
    ----------
    store : sqlite3.Connection
        Of `writing`.
    key : bytes
        Of `keys.pair_key`.

    Returns
    -------
    str or None
        "done", "failed", or None for one that was never scored.
    """
    row = store.execute("SELECT status FROM pairs WHERE key = ?", (key,)).fetchone()
    return row[0] if row else None


def begin(store: sqlite3.Connection, about: tuple[str, int, str, int, str, str | None]) -> int:
    """Note that a run begins.

    Parameters
    ----------
    store : sqlite3.Connection
        Of `writing`.
    about : tuple
        (host, process, engine, workers, version, command line).

    Returns
    -------
    int
        Its number.
    """
    now = time.time()
    found = store.execute(
        "INSERT INTO runs (began, beat, host, pid, engine, workers, version, command) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (now, now, *about),
    )
    return found.lastrowid


def commands(store: sqlite3.Connection) -> list[str]:
    """The command lines that made a store.

    Parameters
    ----------
    store : sqlite3.Connection
        Of `reading` or `writing`.

    Returns
    -------
    list of str
        Different ones, the first that was run first; none of runs that did not note theirs.
    """
    if "command" not in query(store, "SELECT * FROM runs LIMIT 0")[0]:  # of an earlier version
        return []
    sql = "SELECT command FROM runs WHERE command IS NOT NULL GROUP BY command ORDER BY min(id)"
    return [row[0] for row in query(store, sql)[1]]


def beat(store: sqlite3.Connection, run: int, open_pairs: int | None = None) -> None:
    """Note that a run is alive.

    Parameters
    ----------
    store : sqlite3.Connection
        Of `writing`.
    run : int
        Its number.
    open_pairs : int or None
        How many pairs it has before it, at its start.
    """
    store.execute("UPDATE runs SET beat = ?, open = coalesce(?, open) WHERE id = ?", (time.time(), open_pairs, run))


def end(store: sqlite3.Connection, run: int, how: str) -> None:
    """Note how a run ended, if there is room for that.

    Parameters
    ----------
    store : sqlite3.Connection
        Of `writing`.
    run : int
        Its number.
    how : str
        "finished", "interrupted" or an error.
    """
    try:
        store.execute("UPDATE runs SET ended = ?, how = ? WHERE id = ?", (time.time(), how[:500], run))
    except sqlite3.Error:
        pass  # a full disk, of which the run tells itself
