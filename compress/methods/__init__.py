"""Compression methods: every file here with a function `compress(model, batches, *, ...) -> model` is a method."""

from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules


def methods() -> dict[str, Callable]:
    """Name of each method file and its `compress` function."""
    return {m.name: import_module(f"{__name__}.{m.name}").compress for m in iter_modules(__path__)}
