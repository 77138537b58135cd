"""Options of functions: from texts, and from a folder of functions without importing what these need."""

import ast
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

from transmeter.util.suggestions import did_you_mean


class _Names(dict):
    """Names in a signature: those of Python and Literal, anything else stands for itself."""

    def __missing__(self, name: str) -> Any:
        return _Unknown


class _Any(type):
    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return cls

    def __getitem__(cls, item: object) -> Any:
        return cls


class _Unknown(metaclass=_Any):
    """A type of a library; what is inside of it and made of it is the same."""


UNIONS = (types.UnionType, typing.Union)  # int | None; Literal["a"] | None
_KNOWN = {"Literal": Literal, **{t.__name__: t for t in (int, float, bool, str, list, tuple, dict)}}


def convert(function: Callable, settings: Sequence[str], fixed: Sequence[str] = ()) -> dict[str, object]:
    """Texts as arguments of a scorer or method, by its signature.

    Parameters
    ----------
    function : callable
        Whose keyword-only parameters are its options.
    settings : sequence of str
        Each OPTION=VALUE.
    fixed : sequence of str
        Parameters that may not be set.

    Returns
    -------
    dict
        Values by name, of the types that the annotations say.

    Raises
    ------
    ValueError
        For an unknown option and a value of another type; says what is allowed.
    """
    options = {p.name: p for p in keyword_options(function) if p.name not in fixed}
    values: dict[str, object] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or name not in options:
            guess = did_you_mean(name, options)
            remedy = f"give OPTION=VALUE with one of {', '.join(options)}" if options else "there are no options to set"
            raise ValueError(f"--set {setting} is not understood{guess}: {remedy}")
        values[name] = _value(setting, text, options[name].annotation)
    return values


def keyword_options(function: Callable) -> list[inspect.Parameter]:
    """The keyword-only parameters of a function: its configuration.

    Parameters
    ----------
    function
        A parameter that is annotated with a dataclass has an instance of it as its default.

    Returns
    -------
    list of inspect.Parameter
        The fields of a dataclass stand in its place, each with its default in that instance.
    """
    options: dict[str, inspect.Parameter] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            for option in _options(parameter):
                options.setdefault(option.name, option)
    return list(options.values())


def grouped(function: Callable, options: Mapping[str, object]) -> dict[str, object]:
    """Options as a function takes them: those of a dataclass together in it.

    Parameters
    ----------
    function
        As of `keyword_options`.
    options
        By name, one by one.

    Returns
    -------
    dict
        Parameter of the function -> value.

    Raises
    ------
    ValueError
        As the dataclasses do.
    """
    arguments = dict(options)
    for parameter in inspect.signature(function).parameters.values():
        if is_dataclass(parameter.annotation):
            own = {f.name: options[f.name] for f in fields(parameter.annotation) if f.name in options}
            arguments = {name: value for name, value in arguments.items() if name not in own}
            arguments[parameter.name] = replace(parameter.default, **own)
    return arguments


def _options(parameter: inspect.Parameter) -> list[inspect.Parameter]:
    if not is_dataclass(parameter.annotation):
        return [parameter]
    return [
        parameter.replace(name=f.name, default=getattr(parameter.default, f.name), annotation=f.type)
        for f in fields(parameter.annotation)
    ]


def _value(setting: str, text: str, kind: object) -> object:
    if typing.get_origin(kind) in UNIONS:
        if text.lower() == "none" and type(None) in typing.get_args(kind):
            return None
        kind = next(k for k in typing.get_args(kind) if k is not type(None))
    if typing.get_origin(kind) is typing.Literal:
        if text not in typing.get_args(kind):
            raise ValueError(f"--set {setting}: give one of {', '.join(typing.get_args(kind))}")
        return text
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"--set {setting}: give true or false")
        return text.lower() == "true"
    try:
        number = kind(text)
        if kind is float and not math.isfinite(number):
            raise ValueError
        return number
    except ValueError:
        raise ValueError(
            f"--set {setting}: '{text}' is not {'a whole number' if kind is int else 'a number'}"
        ) from None


def of_folder(
    package: str, folders: Iterable[str], function: str, names: Mapping[str, object] | None = None
) -> dict[str, Callable]:
    """Functions that do nothing, with the signatures of those called `function` in the modules of a package.

    Parameters
    ----------
    package
        Name of the package; the functions belong to its modules.
    folders
        Its `__path__`: folders of .py files; names that begin with _ are left out.
    function
        The name of the function in each file.
    names
        What the signatures use beside Python's own types, such as dataclasses of options; anything else is unknown.

    Returns
    -------
    dict
        By name of the module.
    """
    stubs: dict[str, Callable] = {}
    for path in sorted(path for folder in folders for path in Path(folder).glob("[!_]*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        node = next((n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == function), None)
        if node:
            stubs[path.stem] = _stub(node, {**(names or {}), **_constants(tree)})
            stubs[path.stem].__module__ = f"{package}.{path.stem}"
    return stubs


def _stub(node: ast.FunctionDef, names: Mapping[str, object]) -> Callable:
    node.decorator_list, node.returns, node.body = [], None, [ast.Pass(lineno=1, col_offset=0)]
    scope = _Names(_KNOWN | names)
    alone = ast.fix_missing_locations(ast.Module([node], []))
    exec(compile(alone, node.name, "exec"), {}, scope)  # the project's own file, its signature alone
    return scope[node.name]


def _constants(tree: ast.Module) -> dict[str, object]:
    """What the module sets to a literal value: defaults may be called so."""
    found: dict[str, object] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                found[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                pass  # no literal
    return found
