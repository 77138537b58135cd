"""Which code made a result that is kept: results of other code are made anew."""

import hashlib
from functools import cache
from importlib import resources
from pathlib import Path


@cache
def code_version(*parts: str) -> str:
    """A hash of code of this package.

    Parameters
    ----------
    *parts : str
        Files, or folders with all their .py and .json files, relative to the package.

    Returns
    -------
    str
        SHA-256 of their names and bytes, hexadecimal.
    """
    root = Path(str(resources.files("transmeter")))
    total = hashlib.sha256()
    for part in parts:
        files = (
            [root / part] if (root / part).is_file() else [*(root / part).rglob("*.py"), *(root / part).rglob("*.json")]
        )
        for path in sorted(files):
            total.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return total.hexdigest()
