"""Output files and folders: complete or absent, checked before the work, one run at a time."""

import contextlib
import errno
import fcntl
import json
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

PARTIAL = ".partial"  # last part of a temporary name
_OPEN_FILES = {"/dev/stdout": "/dev/fd/1", "/dev/stderr": "/dev/fd/2"}
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)  # of file systems without them
_held: set[Path] = set()  # what this process has locked


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary name to write a file under; it takes the place of `path` when the block ends without an error.

    A link stays, and what it leads to is replaced; an existing file keeps its mode. The bytes go through a device, a
    pipe or another open file such as /dev/stdout, which stay what they are. After an error nothing is changed and
    nothing is left.

    Parameters
    ----------
    path : str or Path
        The file to be written.

    Yields
    ------
    Path
        A name that no other run uses, in the same folder (for a device or pipe: in a temporary one).

    Raises
    ------
    OSError
        With one line that names `path` and the reason, also for what goes wrong in the block (see `naming`).
    """
    with naming(path):
        if _written_through(path):
            with tempfile.TemporaryDirectory() as folder:
                partial = Path(folder) / "file"
                yield partial
                _copy_into(path, partial)
            return
        place = _place(path)
        partial = _beside(place)
        try:
            yield partial
            if place.exists():
                _require_writable(place)
                partial.chmod(stat.S_IMODE(place.stat().st_mode))
            _flush(partial)
            partial.rename(place)
        finally:
            remove(partial)


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file by `replacing`.

    Parameters
    ----------
    path
        The file.
    text
        All that is to stand in it.

    Raises
    ------
    OSError
        It cannot be written.
    """
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: object) -> None:
    """Write a JSON file by `replacing`.

    Parameters
    ----------
    path
        The file.
    content
        What json.dumps takes.

    Raises
    ------
    OSError
        It cannot be written.
    ValueError
        It holds NaN or infinity.
    """
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


@contextlib.contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """Give a temporary folder to fill; it gets the name `path` when the block ends without an error.

    Parameters
    ----------
    path : str or Path
        A new name, or an existing empty folder, whose mode is kept.

    Yields
    ------
    Path
        An empty folder beside `path`. After an error it is removed with all that is in it.

    Raises
    ------
    OSError
        With one line that names `path` and the reason, also for what goes wrong in the block (see `naming`).
    """
    with naming(path):
        place = _place(path)
        partial = _beside(place)
        try:
            partial.mkdir()
            yield partial
            if place.is_dir():
                partial.chmod(stat.S_IMODE(place.stat().st_mode))
            for file in partial.rglob("*"):
                if file.is_file():
                    _flush(file)
            partial.rename(place)  # also over an empty folder, but over nothing else
        finally:
            remove(partial)


def check_file(path: str | Path) -> Path:
    """Check before the work that a file can be written.

    Parameters
    ----------
    path : str or Path
        The file to be written later. It may exist, and may be a link, a device or a pipe.

    Returns
    -------
    Path
        The same path.

    Raises
    ------
    ValueError
        With one line, for a folder, a link that leads nowhere, a place that is missing or cannot be written to, and a
        file that another run is writing.
    """
    path = Path(path)
    with _as_value_error(path, "file"):
        if path.is_dir():
            raise ValueError(f"{path} is a folder: give a file")
        if not _written_through(path):
            _check_place(path, "file")
        _require_writable(path)
    return path


def check_new_folder(path: str | Path) -> Path:
    """Check before the work that a new folder can be written.

    Parameters
    ----------
    path : str or Path
        The folder to be made later: a new name, or an empty folder.

    Returns
    -------
    Path
        The same path.

    Raises
    ------
    ValueError
        With one line, for a name that is taken, a link that leads nowhere, a place that is missing or cannot be written
        to, and a folder that another run is writing.
    """
    path = Path(path)
    with _as_value_error(path, "folder"):
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ValueError(f"{path} exists already: give a new folder or remove it first")
        place = _check_place(path, "folder")
        if place == Path.cwd() or os.path.ismount(place):  # no other folder can take their names
            what = "a mounted file system" if os.path.ismount(place) else "the current folder"
            raise ValueError(f"{path} is {what}: give a new folder inside it")
    return path


def check_folder(path: str | Path) -> Path:
    """Check as `check_new_folder`, but for a folder that may hold files already.

    Parameters
    ----------
    path
        The folder to be written to later.

    Returns
    -------
    Path
        The same path.

    Raises
    ------
    ValueError
        As `check_new_folder`.
    """
    path = Path(path)
    with _as_value_error(path, "folder"):
        if path.exists() and not path.is_dir():
            raise ValueError(f"{path} is a file: give a folder")
        _check_place(path, "folder")
    return path


@contextlib.contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Name the output in the errors of a block, those of the system and of safetensors where a disk is full.

    Parameters
    ----------
    path
        The output that the block writes.

    Yields
    ------
    None
        Nothing.

    Raises
    ------
    OSError
        With one line: `path` and the reason.
    """
    try:
        yield
    except OSError as error:
        raise _failed(path, error) from error
    except Exception as error:
        if type(error).__name__ != "SafetensorError":  # by its name: importing it would take the library
            raise
        raise _failed(path, error) from error


@contextlib.contextmanager
def lock(path: str | Path) -> Iterator[None]:
    """Keep other runs from writing a file or folder while a block runs.

    The lock is on a hidden file beside it, which is removed afterwards; the system takes the lock from a run that is
    killed. What such a run left under temporary names is removed. Devices and pipes are not locked, and neither is
    anything on a file system without locks.

    Parameters
    ----------
    path
        The file or folder that the block writes.

    Yields
    ------
    None
        Nothing.

    Raises
    ------
    ValueError
        With one line, where another run is writing it.
    """
    if _written_through(path):
        yield
        return
    with naming(path):
        place = _place(path)
        descriptor = None if place in _held else _locked(_lock_file(place))
    if descriptor is None:
        raise ValueError(_in_use(path, _holder(place)))
    _held.add(place)
    try:
        _remove_leftovers(place)
        yield
    finally:
        _held.discard(place)
        with contextlib.suppress(OSError):
            _lock_file(place).unlink()
        os.close(descriptor)


def _locked(file: Path) -> int | None:
    """A descriptor of the locked `file`, with this process's number in it; None where another process has the lock."""
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(descriptor)
                if isinstance(error, BlockingIOError):
                    return None
                raise
        if _same(descriptor, file):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())
            return descriptor
        os.close(descriptor)  # a run that just ended removed it: the name stands for another file now


def _same(descriptor: int, file: Path) -> bool:
    """Whether the open file still has the name."""
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False


def _holder(place: Path) -> str | None:
    """The number of the process that has locked `place`; "" where it is not known, None where none has."""
    try:
        with _lock_file(place).open("r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read().decode()
            return None
    except OSError:
        return None


def _in_use(path: str | Path, process: str | None) -> str:
    number = f" (process {process})" if process else ""
    return f"{path} is being written by another run{number}: wait for it or give another output"


def _remove_leftovers(place: Path) -> None:
    """Remove what runs that no longer exist left under temporary names of `place`, which is locked."""
    names = re.compile(re.escape(f".{_short(place.name)}.") + r"(\d+)-[0-9a-f]{8}" + re.escape(PARTIAL))
    for file in place.parent.iterdir():
        found = names.fullmatch(file.name)
        if found and not _running(int(found[1])):
            remove(file)


def _running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except PermissionError:  # another user's
        return True
    except OSError:
        return False
    return True


def remove(path: Path) -> None:
    """Remove a file or folder, as far as it is there.

    Parameters
    ----------
    path
        The file or folder.
    """
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _beside(place: Path) -> Path:
    """A hidden name in the same folder that no other run uses."""
    return place.with_name(f".{_short(place.name)}.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL}")


def _lock_file(place: Path) -> Path:
    return place.with_name(f".{_short(place.name)}.lock")


def _short(name: str) -> str:
    """The name, cut so that 255 bytes are enough with what is added to it."""
    return os.fsdecode(os.fsencode(name)[:200])


def _place(path: str | Path) -> Path:
    """The absolute path, links followed."""
    place = Path(os.path.realpath(path))
    if place.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    return place


def _written_through(path: str | Path) -> bool:
    """Whether `path` is an open file of this process, or neither a regular file nor a folder."""
    if _open_file(path) is not None:
        return True
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _open_file(path: str | Path) -> int | None:
    """The descriptor that a path such as /dev/stdout, /dev/fd/3 or /proc/self/fd/3 stands for."""
    text = os.path.abspath(path)
    found = re.fullmatch(r"(?:/dev|/proc/self)/fd/(\d+)", _OPEN_FILES.get(text, text))
    return int(found[1]) if found else None


def _copy_into(path: str | Path, partial: Path) -> None:
    """Write the bytes of `partial` into a device, a pipe or an open file."""
    number = _open_file(path)
    sys.stdout.flush()  # what was printed before comes before
    with partial.open("rb") as source, open(path if number is None else os.dup(number), "wb") as node:
        shutil.copyfileobj(source, node)


def _flush(file: Path) -> None:
    """Have the system write the file to its disk; some report only now that there is no room."""
    with file.open("rb") as content:
        os.fsync(content.fileno())


def _failed(path: str | Path, error: Exception) -> OSError:
    number = re.search(r"\(os error (\d+)\)", str(error))  # as safetensors says it
    known = os.strerror(int(number[1])) if number else getattr(error, "strerror", None)
    reason = (known or str(error) or type(error).__name__).splitlines()[0]
    failed = OSError(f"{path} cannot be written: {reason}")
    failed.strerror = reason  # for the file or folder that this one is a part of
    return failed


@contextlib.contextmanager
def _as_value_error(path: str | Path, kind: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(f"{path} cannot be written to ({error.strerror}): give a {kind} elsewhere") from None


def _require_writable(place: Path) -> None:
    """Raise PermissionError for a file that exists and is write-protected."""
    if _open_file(place) is None and place.exists() and not os.access(place, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _check_place(path: Path, kind: str) -> Path:
    """The absolute path, links followed. Raises ValueError where nothing can be made beside it or a run writes it."""
    with _as_value_error(path, kind):
        place = _place(path)
    if path.is_symlink() and not path.exists():
        raise ValueError(f"{path} is a link to {place}, which does not exist: give another {kind}")
    file = next((p for p in place.parents if p.is_file()), None)
    if file:
        raise ValueError(f"{path} would be inside {file}, which is a file: give a {kind} elsewhere")
    if not place.parent.is_dir():
        raise ValueError(f"{path} is in a folder that does not exist: create it first")
    try:
        with tempfile.TemporaryDirectory(dir=place.parent):
            pass
    except OSError as error:
        reason = f"{place.parent} cannot be written to ({error.strerror})"
        raise ValueError(f"{reason}: give a {kind} elsewhere") from None
    process = None if place in _held else _holder(place)
    if process is not None:
        raise ValueError(_in_use(path, process))
    return place
