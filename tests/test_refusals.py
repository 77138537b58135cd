"""Bad input is refused before what takes seconds to import is imported."""

import inspect
import json
import subprocess
import sys
import typing
from pathlib import Path

import pytest

from compress.methods import SHARED, method_signatures, methods
from transmeter.scorers import scorer_signatures, scorers
from transmeter.util.signatures import UNIONS

ROOT = Path(__file__).resolve().parent.parent
MODEL, TEXT, TABLE, OTHER = (
    str(ROOT / "data" / name)
    for name in ("mixlm", "text/math_sample.txt", "tabular/heart_va.csv", "tabular/heart_hungarian.csv")
)
HEAVY = ["torch", "transformers", "datasets", "sklearn", "pandas"]
# the command's words, and the message; FULL is a folder with something in it, EMPTY no word
REFUSED = [
    ("rank none.csv OTHER", "none.csv does not exist"),
    ("rank TABLE none.csv", "none.csv does not exist"),
    ("rank TABLE OTHER --scorer logmee", "'logmee' is unknown, did you mean 'logme'?"),
    ("rank TABLE OTHER --set steps=many", "'many' is not a whole number"),
    ("rank TABLE OTHER --set stepz=3", "did you mean 'steps'?"),
    ("rank TABLE OTHER --set variant=x", "give one of plain, fast, paper"),
    ("rank TABLE OTHER --encoder FULL", "it has no config.json"),
    ("rank TABLE OTHER --out none/r.json", "in a folder that does not exist"),
    ("validate TABLE none.csv", "none.csv does not exist"),
    ("validate TABLE OTHER --ranking none.json", "none.json does not exist"),
    ("check TABLE none.csv", "none.csv does not exist"),
    ("transfer TABLE none.csv --out m", "none.csv does not exist"),
    ("transfer TABLE OTHER --out FULL", "exists already"),
    ("transfer TABLE OTHER --predict none.csv --out m", "none.csv does not exist"),
    ("batch none.yaml --store s.db", "none.yaml cannot be read"),
    ("batch --targets TABLE --sources OTHER --store s.db --scorer logmee", "scorer 'logmee' is unknown"),
    ("results none.db", "none.db does not exist"),
    ("status none.db", "none.db does not exist"),
    ("calibrate FULL --candidate TEXT --out c", "it has no config.json"),
    ("calibrate MODEL --candidate none.txt --out c", "none.txt does not exist"),
    ("calibrate MODEL --candidate TEXT --out FULL", "exists already"),
    ("compress MODEL --method kprun --out m", "did you mean 'kprune'?"),
    ("compress MODEL --method kprune --set ratoi=1 --out m", "did you mean 'ratio'?"),
    ("compress MODEL --method kprune --set ratio=half --out m", "'half' is not a number"),
    ("compress MODEL --method kprune --calibration none.txt --out m", "none.txt does not exist"),
    ("compress MODEL --method kprune --calibration TEXT --data none.csv --out m", "none.csv does not exist"),
    ("compress MODEL --method kprune --calibration TEXT --out FULL", "exists already"),
    ("compress EMPTY --method round_to_nearest --out m", "the name of the model is empty: give a folder"),
    ("compress FULL --method kprune --calibration TEXT --out m", "it has no config.json"),
    ("run none.yaml", "none.yaml cannot be read"),
    ("sweep MODEL --method kprune --set ratio=0.2,x --calibration TEXT --data TEXT --out s", "'x' is not a number"),
    ("sweep FULL --method kprune --calibration TEXT --data TEXT --out s", "it has no config.json"),
    ("evaluate FULL --data TEXT", "it has no config.json"),
    ("evaluate MODEL --baseline FULL --data TEXT", "it has no config.json"),
    ("evaluate MODEL --data none.txt", "none.txt does not exist"),
    ("export FULL --format onnx --out m", "it has no config.json"),
    ("report none.json --out r.html", "none.json does not exist"),
]
CODE = f"""
import json, sys
from click.testing import CliRunner
import cli
for line in sys.stdin:
    found = CliRunner().invoke(cli.main, json.loads(line))
    print(json.dumps([found.exit_code, found.output, [m for m in {HEAVY} if m in sys.modules]]))
"""


def test_bad_input_is_refused_before_heavy_imports(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("mine")
    paths = {"MODEL": MODEL, "TEXT": TEXT, "TABLE": TABLE, "OTHER": OTHER, "FULL": str(tmp_path / "full"), "EMPTY": ""}
    asked = "".join(json.dumps([paths.get(w, w) for w in words.split()]) + "\n" for words, _ in REFUSED)
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{CODE}"]
    done = subprocess.run(command, input=asked, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for (words, message), line in zip(REFUSED, done.stdout.splitlines(), strict=True):
        code, output, imported = json.loads(line)
        assert code == 2 and message in output.splitlines()[-1], (words, output)
        assert not imported, (words, imported)
    assert [p.name for p in tmp_path.iterdir()] == ["full"]


@pytest.mark.parametrize(
    "light, full", [(scorer_signatures, scorers), (method_signatures, methods)], ids=["scorers", "methods"]
)
def test_signatures_that_are_read_are_those_of_the_functions(light, full):
    def taken(function):
        parameters = inspect.signature(function).parameters.values()
        return [(p.name, p.default, p.kind) for p in parameters]

    def annotations(function):
        own = inspect.signature(function).parameters.values()
        return {p.name: convertible(p.annotation) for p in own if p.kind is p.KEYWORD_ONLY and p.name not in SHARED}

    def convertible(annotation):
        """Without the types of libraries in a union, which no text is converted to and which are not imported."""
        if typing.get_origin(annotation) not in UNIONS:
            return annotation
        return [k for k in typing.get_args(annotation) if k.__module__ in ("builtins", "typing")]

    read, functions = light(), full()
    assert list(read) == list(functions)
    for name, function in functions.items():
        assert taken(read[name]) == taken(function) and annotations(read[name]) == annotations(function)
        assert read[name].__module__ == function.__module__
