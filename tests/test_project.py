"""What holds for the project as a whole: borders, style, data, and a README that is true."""

import ast
import hashlib
import importlib.util
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


@pytest.fixture(scope="module")
def structure():
    """The benchmark of that name."""
    spec = importlib.util.spec_from_file_location("structure", ROOT / "benchmarks/structure.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_code_is_built_as_the_architecture_says(structure):
    """The directions, sizes, documentation and words that `benchmarks/structure.py` measures."""
    figures = structure.measure()
    assert {name: value for name, value in figures.items() if isinstance(value, list) and value} == {}
    assert figures["lines of cli.py"] <= 90
    assert figures["median lines of a function"] <= 6 and figures["90th percentile"] <= 22


def test_what_is_wrong_with_the_structure_is_found(structure, tmp_path):
    up = "def f():\n    from importlib import import_module\n    return import_module('transmeter.commands.rank')\n"
    files = {"tables/data": up, "commands/rank": "from transmeter.tables import data\n", "api": "import compress.api\n"}
    files = {f"transmeter/{name}.py": text for name, text in files.items()} | {"compress/api.py": "", "cli.py": ""}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    graph = structure.imports(structure.modules(tmp_path))
    assert structure.upward(graph) == [
        "transmeter.api -> compress.api",
        "transmeter.tables.data -> transmeter.commands.rank",
    ]
    assert structure.circles(graph) == ["transmeter.commands.rank, transmeter.tables.data"]
    source = '"""Doc."""\n\n\ndef f(a):\n    """Doc."""\n    # why\n    return (\n        a\n    )\n'
    assert structure.code_lines(source) == 4 and structure.function_lengths(source) == [4]
    bad = tmp_path / "transmeter/bad.py"
    bad.write_text('def f(a: int) -> int:\n    """Doc."""\n    raise ValueError("the truth is out")\n')
    structure.ROOT = tmp_path  # of names in what is told
    assert [g.rpartition(": ")[2] for g in structure.undocumented(bad)] == ["parameter a", "no section Returns"]
    assert structure.wrong_words(bad) == ["transmeter/bad.py:3: 'truth', better 'ground truth'"]


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
