"""Arguments of Python callers, checked before the work: errors are one line with the value and what is allowed."""

import inspect
import math
import types
import typing
from collections.abc import Collection, Mapping
from numbers import Integral, Real
from pathlib import Path

from transmeter.util.signatures import UNIONS
from transmeter.util.suggestions import did_you_mean

LARGEST_SEED = 2**31 - 1  # that all random generators take
KINDS = {int: "a whole number", float: "a number", bool: "True or False", str: "a text", types.NoneType: "None"}


def shown(value: object) -> str:
    """A value as errors show it.

    Parameters
    ----------
    value
        Anything.

    Returns
    -------
    str
        Its representation, in one line of at most 60 characters.
    """
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."


def whole_number(name: str, value: object, least: int, most: int | None = None) -> int:
    """A whole number within bounds.

    Parameters
    ----------
    name
        What the error calls the argument.
    value
        What the caller gave; True is not a whole number.
    least, most
        The bounds, both included. `most` None: there is none.

    Returns
    -------
    int
        The value as Python's own.

    Raises
    ------
    ValueError
        It is not a whole number, or out of bounds.
    """
    if not _is_whole(value) or value < least or (most is not None and value > most):
        bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name} is {shown(value)}: give a whole number {bounds}")
    return int(value)


def seed_number(name: str, value: object) -> int:
    """The seed of a random generator.

    Parameters
    ----------
    name
        What the error calls the argument.
    value
        What the caller gave.

    Returns
    -------
    int
        The value as Python's own.

    Raises
    ------
    ValueError
        It is not a whole number from 0 to LARGEST_SEED.
    """
    return whole_number(name, value, 0, LARGEST_SEED)


def positive_number(name: str, value: object) -> float:
    """A finite number above 0.

    Parameters
    ----------
    name
        What the error calls the argument.
    value
        What the caller gave.

    Returns
    -------
    float
        The value as Python's own.

    Raises
    ------
    ValueError
        It is not a number, not finite, or not above 0.
    """
    if not _is_real(value) or not 0 < value < math.inf:
        raise ValueError(f"{name} is {shown(value)}: give a number above 0")
    return float(value)


def one_of(name: str, value: object, allowed: Collection[str]) -> str:
    """A word out of a few.

    Parameters
    ----------
    name
        What the error calls the argument.
    value
        What the caller gave.
    allowed
        The words.

    Returns
    -------
    str
        The value.

    Raises
    ------
    ValueError
        It is not among them; the error says what may have been meant.
    """
    if not isinstance(value, str) or value not in allowed:
        guess = did_you_mean(value, allowed) if isinstance(value, str) else ""
        raise ValueError(f"{name} {shown(value)} is unknown{guess}: give one of {', '.join(allowed)}")
    return value


def column_name(name: str, value: object) -> str | None:
    """The name of a column, as text.

    Parameters
    ----------
    name
        What the error calls the argument.
    value
        A text or a number; None stays None.

    Returns
    -------
    str or None
        The name.

    Raises
    ------
    ValueError
        It is neither a text nor a number.
    """
    if value is None or isinstance(value, str):
        return value
    if not _is_real(value):
        raise ValueError(f"{name} is {shown(value)}: give the name of one column, a text or a number")
    return str(value)


def path(name: str, value: object) -> Path:
    """A path.

    Parameters
    ----------
    name
        What the error calls the argument.
    value
        A text or a Path.

    Returns
    -------
    Path
        The same path.

    Raises
    ------
    ValueError
        It is neither.
    """
    if not isinstance(value, str | Path):
        raise ValueError(f"{name} is {shown(value)}: give a path, a text or a pathlib.Path")
    return Path(value)


def folder(name: str, value: object) -> Path | None:
    """A folder, new or not.

    Parameters
    ----------
    name
        What the error calls the argument.
    value
        A text or a Path; None stays None.

    Returns
    -------
    Path or None
        The same path.

    Raises
    ------
    ValueError
        It is neither, or there is a file of that name.
    """
    if value is None:
        return None
    found = path(name, value)
    if found.exists() and not found.is_dir():
        raise ValueError(f"{name} {found} is a file: give a folder")
    return found


def option_values(owner: str, given: object, parameters: Mapping[str, inspect.Parameter]) -> dict[str, object]:
    """The options of a scorer or method.

    Parameters
    ----------
    owner
        Whose options they are, for errors: "scorer logme".
    given
        A mapping of names to values; None: there are none.
    parameters
        Those that may be given; their annotations say of which type.

    Returns
    -------
    dict
        The options, with numbers as Python's own.

    Raises
    ------
    ValueError
        For what is not a mapping, an option that is unknown, and a value of another type.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ValueError(f"options is {shown(given)}: give a dict of names and values")
    found = {}
    for name, value in given.items():
        if name not in parameters:
            allowed = f"give one of {', '.join(parameters)}" if parameters else "there are none to set"
            guess = did_you_mean(str(name), parameters)
            raise ValueError(f"option '{name}' is unknown to {owner}{guess}: {allowed}")
        found[name] = _of_kind(f"option {name} of {owner}", value, parameters[name].annotation)
    return found


def _of_kind(name: str, value: object, annotation: object) -> object:
    """`value` as the type that an annotation says. Raises ValueError for another."""
    union = typing.get_origin(annotation) in UNIONS
    kinds = typing.get_args(annotation) if union else (annotation,)
    for kind in kinds:
        if kind is int and _is_whole(value):
            return int(value)
        if kind is float and _is_real(value) and math.isfinite(value):
            return float(value)
        if typing.get_origin(kind) is typing.Literal and value in typing.get_args(kind):
            return value
        if kind not in (int, float) and isinstance(kind, type) and isinstance(value, kind):
            return value
    allowed = " or ".join(map(_words, kinds))
    raise ValueError(f"{name} is {shown(value)}: give {allowed}")


def _words(kind: object) -> str:
    """A type as errors name it."""
    if typing.get_origin(kind) is typing.Literal:
        return f"one of {', '.join(map(repr, typing.get_args(kind)))}"
    return KINDS.get(kind) or f"a {kind.__name__}"


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_real(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
