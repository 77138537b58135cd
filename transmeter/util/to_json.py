"""Results as one JSON document, for programs."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass


def document(found: object) -> str:
    """`found` as standard JSON, which ends with a line break: NaN and infinity are null, bytes hexadecimal."""
    return json.dumps(_plain(found), indent=1, allow_nan=False) + "\n"


def _plain(found: object) -> object:
    if is_dataclass(found) and not isinstance(found, type):
        return _plain(asdict(found))
    if isinstance(found, Mapping):
        return {str(k): _plain(v) for k, v in found.items()}
    if isinstance(found, list | tuple):
        return [_plain(v) for v in found]
    if isinstance(found, float) and not math.isfinite(found):
        return None
    if isinstance(found, str | int | float | None):
        return found
    return found.hex() if isinstance(found, bytes) else str(found)
