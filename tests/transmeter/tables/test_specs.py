"""How text files are written, as users say it: separator, decimal mark, encoding."""

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import cli
import transmeter
from transmeter.tables import data
from transmeter.tables.specs import Dialect

QUICK = {"scorer": "source_size"}


@pytest.mark.parametrize("sep", [";", "\\t", "|", ","])
@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-8", None])
def test_decimal_commas_are_numbers_whatever_separates_columns(tmp_path, sep, encoding):
    dialect = Dialect(sep, ",", encoding)
    rows = [["größe", "preis", "label"], ["1,5", "1.234", "ja"], ["2,5", "2.345", "nein"], ["3", "5", "ja"]]
    lines = [dialect.sep.join(f'"{cell}"' for cell in row) for row in rows]
    (tmp_path / "a.csv").write_text("\n".join(lines), encoding=encoding or "utf-8-sig")
    found = data.load(str(tmp_path / "a.csv"), dialect=dialect)
    assert found.features.to_dict("list") == {"größe": [1.5, 2.5, 3], "preis": [1234, 2345, 5]}
    assert found.classes == ("ja", "nein")


@pytest.fixture
def latin(tmp_path):
    """Two files in Latin-1 with colons between columns and commas in numbers."""
    rng = np.random.default_rng(0)
    for name in ("mine", "theirs"):
        frame = pd.DataFrame({"größe": rng.normal(size=30).round(3), "label": ["ja", "nein"] * 15})
        frame.to_csv(tmp_path / f"{name}.csv", sep=":", decimal=",", index=False, encoding="latin-1")
    return str(tmp_path / "mine.csv"), str(tmp_path / "theirs.csv")


def test_the_dialect_reaches_rank_validate_and_transfer(latin):
    dialect = {"sep": ":", "decimal": ",", "encoding": "latin-1"}
    found = transmeter.rank(*latin, **QUICK, **dialect)
    assert [m["source"] for m in found.rows[0].matches] == ["größe"]
    measured = transmeter.validate(*latin, repeats=2, steps=2, **dialect)
    assert [arm.name for arm in measured.ground_truth.sources] == ["theirs"]
    made = transmeter.transfer(*latin, predict=latin[1], repeats=2, **dialect)
    assert made.classifier.feature_names_in_.tolist() == ["größe"] and len(made.predictions) == 30


def test_the_dialect_reaches_commands_and_errors_name_it(latin):
    run = CliRunner()
    given = ["rank", *latin, "--scorer", "source_size"]
    found = run.invoke(cli.main, given)
    assert found.exit_code == 2 and "give its encoding (--encoding)" in found.stderr
    found = run.invoke(cli.main, [*given, "--encoding", "latin-1"])
    assert found.exit_code == 2 and "or give the separator (--sep)" in found.stderr
    found = run.invoke(cli.main, [*given, "--encoding", "latin-1", "--sep", ":", "--decimal", ","])
    assert found.exit_code == 0, found.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sep": "::"}, "sep is '::': give one character"),
        ({"sep": ""}, "sep is '': give one character"),
        ({"decimal": "x"}, "decimal .x. is unknown: give one of"),
        ({"encoding": "utf-9"}, "encoding is 'utf-9': give one that Python knows"),
        ({"encoding": "hex"}, "encoding is 'hex': give one that Python knows"),
    ],
)
def test_another_dialect_is_refused(latin, arguments, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        transmeter.rank(*latin, **QUICK, **arguments)
    if "decimal" not in arguments:
        [(option, value)] = arguments.items()
        found = CliRunner().invoke(cli.main, ["rank", *latin, f"--{option}", value])
        assert found.exit_code == 2 and message in found.stderr
