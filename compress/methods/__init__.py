"""Compression methods: every file here with a function `compress(model, batches, *, ...) -> model` is a method."""

import inspect
from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from transmeter.util import signatures
from transmeter.util.arguments import one_of, option_values

SHARED = ("in_place", "progress", "seed", "teacher")  # arguments of a method that are not options of one step


def methods() -> dict[str, Callable]:
    """Name of each method file and its `compress` function."""
    return {m.name: import_module(f"{__name__}.{m.name}").compress for m in iter_modules(__path__)}


def method_signatures() -> dict[str, Callable]:
    """Name of each method and a function of the same signature, without torch, which takes seconds."""
    return signatures.of_folder(__name__, Path(__file__).parent, "compress")


def quantizes(method: str) -> bool:
    """Whether a method stores weights in few bits."""
    known = methods()
    return method in known and "bits" in inspect.signature(known[method]).parameters


def check(method: str, given: Mapping[str, object] | None, fixed: Collection[str] = ()) -> dict[str, object]:
    """The options of a method. Raises ValueError for a method that is unknown, an option that is not among its own, but
    for `fixed` ones, and a value of another type."""
    known = methods()
    parameters = inspect.signature(known[one_of("method", method, known)]).parameters
    own = {k: p for k, p in parameters.items() if p.kind is p.KEYWORD_ONLY and k not in fixed}
    return option_values(method, given, own)
