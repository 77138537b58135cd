"""Results as JSON, for programs."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass


def to_json(value: object) -> str:
    """Results as standard JSON text.

    Parameters
    ----------
    value : object
        Dataclasses, mappings, lists and single values, nested as they may be. NaN and infinity become null, bytes
        hexadecimal text, and what JSON does not know its `str`.

    Returns
    -------
    str
        Ends with a line break.
    """
    return json.dumps(_plain(value), indent=1, allow_nan=False) + "\n"


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str | int | float | None):
        return value
    return value.hex() if isinstance(value, bytes) else str(value)
