"""What the functions of a folder take, read without importing what they need."""

import ast
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal


class _Names(dict):
    """Names in a signature: those of Python and Literal, anything else stands for itself."""

    def __missing__(self, name: str) -> Any:
        return _Unknown


class _Any(type):
    def __getattr__(cls, name: str) -> Any:
        return cls

    def __getitem__(cls, item: object) -> Any:
        return cls


class _Unknown(metaclass=_Any):
    """A type of a library; what is inside of it and made of it is the same."""


_KNOWN = {"Literal": Literal, **{t.__name__: t for t in (int, float, bool, str, list, tuple, dict)}}


def of_folder(package: str, folder: Path, function: str) -> dict[str, Callable]:
    """Functions that do nothing, with the signatures of those called `function` in the modules of a folder.

    Parameters
    ----------
    package : str
        What the folder is imported as; the functions belong to its modules.
    folder : Path
        The folder of .py files; names that begin with _ are left out.
    function : str
        The name of the function in each file.

    Returns
    -------
    dict
        By name of the module.
    """
    found = {}
    for path in sorted(folder.glob("[!_]*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        node = next((n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == function), None)
        if node:
            found[path.stem] = _stub(node, _constants(tree))
            found[path.stem].__module__ = f"{package}.{path.stem}"
    return found


def _stub(node: ast.FunctionDef, constants: Mapping[str, object]) -> Callable:
    node.decorator_list, node.returns, node.body = [], None, [ast.Pass(lineno=1, col_offset=0)]
    names = _Names(_KNOWN | constants)
    alone = ast.fix_missing_locations(ast.Module([node], []))
    exec(compile(alone, node.name, "exec"), {}, names)  # the project's own file, its signature alone
    return names[node.name]


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
