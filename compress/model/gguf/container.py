"""An open GGUF file and the values in it, by the gguf package."""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from gguf import GGUFReader


def opened(file: Path) -> "GGUFReader":
    """A file, of which nothing but the head is in memory.

    Parameters
    ----------
    file
        An existing one.

    Returns
    -------
    GGUFReader
        The same for every call, as long as the file stays as it is.

    Raises
    ------
    ValueError
        It is broken.
    """
    found = file.stat()
    try:
        return _opened(str(file), found.st_mtime_ns, found.st_size)
    except Exception as error:  # of any kind: what broken numbers lead to is not known beforehand
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{file} is broken ({reason}): give a sound copy of the model") from None


@lru_cache(maxsize=2)  # a large vocabulary takes seconds
def _opened(file: str, changed: int, size: int) -> "GGUFReader":
    from gguf import GGUFReader

    return GGUFReader(file)


def field(reader: "GGUFReader", key: str, default: Any = None) -> Any:
    """A value in a file.

    Parameters
    ----------
    reader
        The open file.
    key
        Its whole name.
    default
        What stands for a value that is not there.

    Returns
    -------
    object
        A number, a string, or a list of such; of a float32 the shortest decimal number that stands for it.
    """
    found = reader.fields.get(key)
    if found is None:
        return default
    value = found.contents()
    return float(str(np.float32(value))) if isinstance(value, float) else value


def special(reader: "GGUFReader") -> dict[str, int]:
    """The tokens that have a meaning.

    Parameters
    ----------
    reader
        The open file.

    Returns
    -------
    dict
        Their ids by their names in transformers (bos_token, ...).
    """
    names = {"bos": "bos_token", "eos": "eos_token", "padding": "pad_token", "unknown": "unk_token"}
    found = {name: field(reader, f"tokenizer.ggml.{ours}_token_id") for ours, name in names.items()}
    return {name: number for name, number in found.items() if number is not None}
