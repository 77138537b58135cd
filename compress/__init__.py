"""Make language models smaller: prune, quantize, distil, factorise, share.

What is public is imported when it is first asked for: torch takes seconds, `import compress` does not.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compress.api import compress as compress
    from compress.api import save as save
    from compress.calibration.calibrate import calibrate as calibrate
    from compress.evaluation.evaluate import evaluate as evaluate
    from compress.model.io import load as load

_WHERE = {
    "calibrate": "calibration.calibrate",
    "compress": "api",
    "evaluate": "evaluation.evaluate",
    "load": "model.io",
    "save": "api",
}
__all__ = ["calibrate", "compress", "evaluate", "load", "save"]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'compress' has no attribute '{name}'")
    return getattr(import_module(f"compress.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
