"""Scorers: every file here with a function `score(sources, target, *, seed=0, ...) -> list[Score]` is one."""

from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules


def scorers() -> dict[str, Callable]:
    """Name of each scorer file and its `score` function."""
    return {m.name: import_module(f"{__name__}.{m.name}").score for m in iter_modules(__path__)}
