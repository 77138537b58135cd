"""Scorers: every file here with a function `score(sources, target, *, seed=0, ...) -> list[Score]` is one."""

from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules

from transmeter.util import signatures

SHARED = ("seed", "shots", "repeats", "metric", "budget")  # settings of a ranking that a scorer may ask for


def scorers() -> dict[str, Callable]:
    """Name of each scorer file and its `score` function."""
    return {m.name: import_module(f"{__name__}.{m.name}").score for m in iter_modules(__path__)}


def scorer_signatures() -> dict[str, Callable]:
    """Name of each scorer and a function of the same signature, without torch, which takes seconds."""
    return signatures.of_folder(__name__, __path__, "score")
