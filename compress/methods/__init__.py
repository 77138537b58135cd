"""Compression methods: every file here with a function `compress(model, batches, *, ...) -> model` is a method."""

import inspect
from collections.abc import Callable, Collection
from importlib import import_module
from pkgutil import iter_modules

from compress.suggest import did_you_mean


def methods() -> dict[str, Callable]:
    """Name of each method file and its `compress` function."""
    return {m.name: import_module(f"{__name__}.{m.name}").compress for m in iter_modules(__path__)}


def quantizes(method: str) -> bool:
    """Whether a method stores weights in few bits."""
    known = methods()
    return method in known and "bits" in inspect.signature(known[method]).parameters


def check(method: str, options: Collection[str], fixed: Collection[str] = ()) -> None:
    """Raise ValueError for a method that is unknown, or an option that is not among its own, but for `fixed` ones."""
    known = methods()
    if method not in known:
        raise ValueError(f"method '{method}' is unknown{did_you_mean(method, known)}: give one of {', '.join(known)}")
    parameters = inspect.signature(known[method]).parameters.values()
    allowed = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in fixed]
    for option in options:
        if option not in allowed:
            guess = did_you_mean(option, allowed)
            raise ValueError(f"option '{option}' is unknown to {method}{guess}: give one of {', '.join(allowed)}")
