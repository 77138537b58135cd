"""What holds for the project as a whole: borders, style, data, and a README that is true."""

import ast
import hashlib
import logging
import re
import tomllib
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import pytest
import torch
import transformers
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
FILES = [p for folder in ("transmeter", "compress") for p in sorted((ROOT / folder).rglob("*.py"))]
CLICK = ("cli.py", "commands")  # click gives the arguments of their functions
ids = [str(p.relative_to(ROOT)) for p in FILES]


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_imports_go_one_way(path):
    above = ["cli"] if path.relative_to(ROOT).parts[0] == "compress" else ["cli", "compress"]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not any(n.split(".")[0] in above for n in names), f"line {node.lineno}"


@pytest.mark.parametrize("path", [*FILES, ROOT / "cli.py"], ids=[*ids, "cli.py"])
def test_public_functions_are_documented_and_typed(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert path.name == "__init__.py" and not tree.body or ast.get_docstring(tree)
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name
        if (
            isinstance(node, ast.FunctionDef)
            and not node.name.startswith("_")
            and not {path.name, path.parent.name} & set(CLICK)
        ):
            arguments = [*node.args.args, *node.args.kwonlyargs]
            assert node.returns and all(a.annotation for a in arguments), node.name
            assert not node.args.kwarg, node.name


def test_no_room_is_crowded():
    """At most fifteen modules a folder, but where every file is one of a kind."""
    rooms = {path.parent for path in FILES if path.parent.name not in ("scorers", "methods")}
    assert {
        str(room): len(list(room.glob("[!_]*.py"))) for room in rooms if len(list(room.glob("[!_]*.py"))) > 15
    } == {}


@pytest.mark.parametrize("folder, function", [("transmeter/scorers", "score"), ("compress/methods", "compress")])
def test_a_scorer_or_method_file_has_its_function_and_says_where_it_comes_from(folder, function):
    for path in sorted((ROOT / folder).glob("[!_]*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert function in [n.name for n in tree.body if isinstance(n, ast.FunctionDef)], path.name
        assert "arXiv" in ast.get_docstring(tree), path.name


def test_data_are_what_their_hashes_say_and_all_are_listed():
    lines = (ROOT / "data/SHA256SUMS").read_text().split("\n")[:-1]
    listed = {name: digest for digest, name in (line.split("  ") for line in lines)}
    for name, digest in listed.items():
        assert hashlib.sha256((ROOT / "data" / name).read_bytes()).hexdigest() == digest, name
    there = {str(p.relative_to(ROOT / "data")) for p in (ROOT / "data").rglob("*") if p.is_file()}
    assert there == set(listed) | {"README.md", "SHA256SUMS"}
    described = (ROOT / "data/README.md").read_text(encoding="utf-8")
    assert all(Path(n).name in described or n.startswith("mixlm/") for n in listed)


def test_readme_commands_are_real():
    """Every transmeter command of the README parses: its options exist, and its inputs where they are in data/."""
    import cli

    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    commands = [line.split() for line in re.findall(r"^\s*transmeter (.+)$", text, re.MULTILINE)]
    assert len(commands) >= 5
    for words in commands:
        words = words[: words.index("#")] if "#" in words else words
        command = cli.main.commands[words[0]]
        known = {o for p in command.params for o in p.opts}
        assert {w for w in words if w.startswith("--")} <= known, words
        for word in words:
            path = word.split("=")[-1].split("::")[0]
            assert not path.startswith("data/") or (ROOT / path).exists(), word


@pytest.mark.parametrize("name", ["transformers", "compressed-tensors", "torchao"])
def test_the_upper_bound_is_that_of_the_version_the_tests_run_with(name):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [Requirement(r) for r in chain(project["dependencies"], *project["optional-dependencies"].values())]
    bounds = next(r.specifier for r in asked if r.name == name)
    major, minor, *_ = map(int, version(name).split("."))
    assert version(name) in bounds and f"{major}.{minor + 1}" not in bounds


def test_what_is_deprecated_is_an_error(decoder):
    """Whether transformers warns or only logs, which a command of another test may have silenced, and does once."""
    transformers.logging.set_verbosity_warning()
    logging.Logger.warning_once.cache_clear()
    ids = torch.ones(1, 2, dtype=torch.long)
    with pytest.raises(FutureWarning, match="`past_key_values` is deprecated"):
        decoder[0](input_ids=ids, past_key_values=transformers.DynamicCache(), use_cache=True)
    with pytest.raises(DeprecationWarning, match="`torch_dtype` is deprecated"):
        decoder[0].config.torch_dtype  # noqa: B018
