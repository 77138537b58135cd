"""--json: stdout is one JSON document without NaN, for every command that prints a result."""

import json
import math

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import cli
from tests.conftest import DATA
from transmeter.util.to_json import to_json

MODEL, MATH = str(DATA / "mixlm"), str(DATA / "text/math_sample.txt")
VA, HUNGARIAN = (str(DATA / f"tabular/heart_{n}.csv") for n in ("va", "hungarian"))
ROUNDED = ("--method", "round_to_nearest")
CANDIDATES = ("--candidate", MATH, "--candidate", str(DATA / "text/code.txt"))
TRAIN = ("--repeats", "2")


def refuse(name):
    """json.loads calls it for NaN and infinities."""
    raise AssertionError(f"{name} is not JSON")


def run(*args):
    """The document that a command prints."""
    found = CliRunner().invoke(cli.main, [str(a) for a in args])
    assert found.exit_code == 0, found.output
    return json.loads(found.stdout, parse_constant=refuse)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A short evaluation text, a recipe, and a store with a scored pair."""
    folder = tmp_path_factory.mktemp("json")
    (folder / "held_out.txt").write_text("\n\n".join((DATA / "text/math_sample.txt").read_text().split("\n\n")[:3]))
    recipe = {"model": MODEL, "steps": [{"method": "round_to_nearest"}], "out": "ran"}
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    batch = ("batch", "--targets", VA, "--sources", HUNGARIAN, "--scorer", "source_size", "--cache", folder / "cache")
    assert run(*batch, "--store", folder / "s.db", "--json")["new"] == 1
    return folder


CASES = {
    "check": (("check", VA, HUNGARIAN), {"target", "sources"}),
    "rank": (("rank", VA, HUNGARIAN, "--scorer", "source_size"), {"rows", "target"}),
    "validate": (("validate", VA, HUNGARIAN, *TRAIN, "--steps", "2"), {"sources", "agreement", "reliability"}),
    "transfer": (("transfer", VA, HUNGARIAN, *TRAIN, "--out", "t"), {"gain", "alone"}),
    "scorers": (("scorers",), {"name", "about", "options"}),
    "methods": (("methods",), {"name", "about", "options"}),
    "batch --dry-run": (("batch", "--dry-run"), {"pairs", "open", "seconds"}),
    "batch": (("batch",), {"store", "total", "done", "new", "failed"}),
    "results": (("results", "s.db"), {"target", "source", "score", "error"}),
    "status": (("status", "s.db"), {"done", "failed", "open", "run", "leaders"}),
    "calibrate": (
        ("calibrate", MODEL, "--target", MATH, *CANDIDATES, "--tokens", "400", "--out", "c"),
        {"out", "parts", "scores", "by_target"},
    ),
    "compress": (("compress", MODEL, *ROUNDED, "--out", "m"), {"out", "bytes", "bytes_before", "uploaded"}),
    "run": (("run", "recipe.yaml"), {"out", "bytes", "bytes_before", "uploaded"}),
    "sweep": (("sweep", MODEL, *ROUNDED, "--data", "held_out.txt", "--out", "s"), {"rows", "area", "before"}),
    "evaluate": (("evaluate", MODEL, "--data", "held_out.txt"), {"perplexity", "bytes", "data"}),
}
BATCH = ("--targets", VA, "--sources", HUNGARIAN, "--scorer", "source_size", "--store", "s.db")


@pytest.mark.parametrize("args, keys", CASES.values(), ids=CASES)
def test_json_is_one_document(args, keys, folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(folder / "app"))
    found = run(*args, *(BATCH if args[0] == "batch" else ()), "--json")
    assert keys <= set(found[0] if isinstance(found, list) else found)


def test_it_is_the_same_as_the_format(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert run("results", "s.db", "--json") == run("results", "s.db", "--format", "json")


def test_every_command_that_prints_a_result_has_it():
    """Only report, which prints the name of its page, has none."""
    for name, command in cli.main.commands.items():
        assert ("--json" in {o for p in command.params for o in p.opts}) == (name != "report"), name
    assert {args[0] for args, _ in CASES.values()} == set(cli.main.commands) - {"report", "export"}


def test_it_can_be_a_default(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "d.toml").write_text("[scorers]\njson = true\n[rank]\njson = true\n")
    for args in (("scorers",), ("rank", VA, HUNGARIAN, "--scorer", "source_size")):
        assert run("--config", "d.toml", *args)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text() | st.integers(), inner),
)


@given(VALUES)
def test_anything_becomes_json_and_what_json_can_say_stays(value):
    text = to_json(value)
    assert text.endswith("\n")
    found = json.loads(text, parse_constant=refuse)
    if isinstance(value, float):
        assert found == value if math.isfinite(value) else found is None
    if isinstance(value, str | int | None):
        assert found == value
