"""Compression methods: every file here with a function `compress(model, batches, *, ...) -> model` is a method.

The function changes the model that it is given and returns it, or another one in its place. It replaces parameters and
never writes into them before `unshare`, as a teacher may share them. What else it is, TRAITS of its file declares.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from pkgutil import iter_modules

from compress.algorithms import options
from compress.algorithms.traits import Traits
from transmeter.util import signatures
from transmeter.util.arguments import one_of, option_values

SHARED = ("progress", "seed", "teacher")  # arguments of a method that are not options of one step


def methods() -> dict[str, Callable]:
    """Name of each method file and its `compress` function.

    Returns
    -------
    dict
        Name of each method file -> its `compress` function.
    """
    return {m.name: import_module(f"{__name__}.{m.name}").compress for m in iter_modules(__path__)}


def method_signatures() -> dict[str, Callable]:
    """The signatures of all methods, without importing torch, which takes seconds.

    Returns
    -------
    dict
        Name of each method -> a function that does nothing and has its signature.
    """
    return signatures.of_folder(__name__, __path__, "compress", vars(options))


def traits(method: str) -> Traits:
    """What a method declares.

    Parameters
    ----------
    method
        The name of its file.

    Returns
    -------
    Traits
        TRAITS of the file; without it the defaults.
    """
    return getattr(import_module(f"{__name__}.{method}"), "TRAITS", Traits())


def quantizes(method: str) -> bool:
    """Whether a method stores weights in few bits.

    Parameters
    ----------
    method
        A name, which may be unknown.

    Returns
    -------
    bool
        False for an unknown one.
    """
    return method in methods() and traits(method).quantizes


def check(method: str, given: Mapping[str, object] | None) -> dict[str, object]:
    """The options of a method, with numbers as Python's own.

    Parameters
    ----------
    method
        Its name.
    given
        Options by name; None: none.

    Returns
    -------
    dict
        The options.

    Raises
    ------
    ValueError
        For an unknown method or option, and for a value of another type.
    """
    function = methods()[one_of("method", method, methods())]
    own = {option.name: option for option in signatures.keyword_options(function) if option.name not in SHARED}
    return option_values(method, given, own)
