"""Whether a file is still the same, and what it holds, without understanding it."""

import hashlib
import json
from pathlib import Path


def stamp(path: Path) -> str:
    """Sizes and times of a file: while they stay, so does what it holds.

    Parameters
    ----------
    path : Path
        A file, or a folder, which stands for all files in it.

    Returns
    -------
    str
    """
    stats = [f.stat() for f in _files(path)]
    text = " ".join(f"{s.st_size} {s.st_mtime_ns} {s.st_ctime_ns} {s.st_ino}" for s in stats)
    return text if len(stats) == 1 else hashlib.sha256(text.encode()).hexdigest()


def digest(path: Path, *read_as: str | None) -> bytes:
    """SHA-256 of what a file holds and of how it is read.

    Parameters
    ----------
    path : Path
        A file, or a folder, which stands for all files in it.
    *read_as : str or None
        What else decides what is read, such as the label column.

    Returns
    -------
    bytes
    """
    total = hashlib.sha256(json.dumps(read_as).encode())
    for file in _files(path):
        name = str(file.relative_to(path)) if path.is_dir() else "".join(path.suffixes[-2:])  # by which it is read
        with open(file, "rb") as content:
            total.update(name.encode() + b"\0" + hashlib.file_digest(content, "sha256").digest())
    return total.digest()


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(f for f in path.rglob("*") if f.is_file() and not f.name.startswith("."))
