"""`check`: what files are read as, what matches, what is odd; the same in `rank -v`; caveats and notes of `rank`."""

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import cli
import transmeter
from tests.conftest import DATA
from transmeter.report.sections import sections

VA, HUNGARIAN, STATLOG = (str(DATA / f"tabular/heart_{n}.csv") for n in ("va", "hungarian", "statlog"))
PIMA = str(DATA / "tabular/pima_diabetes.csv")
NO_MATCH = "no column matches one of mine: give its columns the same names and units, or pair rows by a key"
QUICK = ("--repeats", 2)


def run(*args):
    """Result of the command."""
    found = CliRunner().invoke(cli.main, [str(a) for a in args])
    assert found.exit_code == 0, found.output
    return found


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """A working directory and a cache of the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / "app"))


def odd(n=200):
    """A table with a column of every kind, and classes of 98:2."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "id": np.arange(n) + 1000,
            "x": rng.normal(size=n),
            "day": pd.date_range("2020-01-01", periods=n).strftime("%Y-%m-%d"),
            "price": [f"${v:.2f}" for v in rng.uniform(1, 9, n)],
            "site": "north",
            "code": [f"p{i}x" for i in range(n)],
            "colour": np.resize(["red", "blue"], n),
            "said": [f"word{i} here is text" for i in range(n)],
            "rare": np.where(np.arange(n) < 150, np.nan, np.arange(n) % 3),
            "label": np.where(np.arange(n) < 196, "a", "b"),
        }
    )


def plain(n=40, columns=("c0", "c1", "c2"), seed=0):
    """Two classes of which nothing is odd."""
    y = np.arange(n) % 2
    values = np.random.default_rng(seed).normal(size=(n, len(columns))) + y[:, None]
    return pd.DataFrame(values, columns=list(columns)).assign(label=y)


def test_real_tables_are_read_and_matched_as_they_are():
    lines = run("check", VA, STATLOG, HUNGARIAN, f"pima={PIMA}").stdout.splitlines()
    for line in (
        "heart_va: 200 rows, 200 of them labelled",
        "heart_va: column 'trestbps': numbers, 0 to 190; 56 missing",
        "heart_va: label: 2 classes: 0 (51 rows), 1 (149 rows)",
        "heart_va: odd: more than half of the cells are missing in columns: slope, ca, thal",
        "heart_va: odd: 1 of 200 rows repeat another row, label and all",
        "heart_statlog: 5 of 13 columns matched by name: age, sex, oldpeak, slope, thal",
        "heart_statlog: column 'resting_blood_pressure' stands for 'trestbps' by meaning, confidence 0.717",
        "heart_statlog: columns of heart_va without a match: ca",
        "heart_hungarian: classes: 0 = 0, 1 = 1",
        "pima: 1 of 8 columns matched by name: age",
    ):
        assert line in lines
    assert any("heart_statlog: odd: no class is called as one of heart_va" in line for line in lines)


def test_every_kind_of_column_and_what_is_odd_is_said():
    found = transmeter.check(odd())
    assert found.sources == [] and found.target.labelled == 200 and found.target.classes == {"a": 196, "b": 4}
    kinds = {column.name: column.kind for column in found.target.columns}
    assert kinds == {
        **{"id": "numbers", "x": "numbers", "day": "days", "price": "numbers", "site": "categories"},
        **{"code": "categories", "colour": "categories", "said": "text", "rare": "numbers"},
    }
    assert found.target.oddities == [
        "98 % of the labelled rows are of class 'a': few rows speak for the others",
        "classes with fewer than 5 rows: 'b' (4): what is said of them is unsure",
        "constant columns, which tell nothing: site",
        "more than half of the cells are missing in columns: rare",
        "columns with another value in every row, perhaps ids, which are better left out: id, code",
    ]
    assert "target: column 'day' is read as days since 2020-01-01" in found.lines
    assert "target: column 'colour': categories, 2 different: 'red', 'blue'" in found.lines


def test_nothing_is_odd_about_a_plain_table_and_nothing_is_said_twice(recwarn):
    found = transmeter.check(plain(), {"other": plain(seed=1)})
    assert found.target.oddities == found.sources[0].oddities == []
    assert len(set(found.lines)) == len(found.lines) and not recwarn.list


def test_an_index_left_out_a_quantity_as_label_and_unlabelled_rows_are_said(tmp_path):
    frame = plain(60).assign(label=np.r_[np.random.default_rng(2).normal(size=50).round(3), [np.nan] * 10])
    frame.to_csv(tmp_path / "t.csv")
    found = transmeter.check(tmp_path / "t.csv").target
    assert found.labelled == 50 and found.classes == {}
    assert found.columns[-1].kind == "left out" and found.columns[-1].name == "Unnamed: 0"
    assert any("the label is a quantity" in note for note in found.notes)


def test_sources_without_anything_in_common_copies_keys_and_unusable_ones(tmp_path):
    target = plain().assign(who=np.arange(40))
    target.to_csv(tmp_path / "mine.csv", index=False)
    plain(columns=("f0", "f1")).to_csv(tmp_path / "arrays.csv", index=False)
    plain(columns=("f0", "f1")).assign(who=np.arange(20, 60)).to_csv(tmp_path / "paired.csv", index=False)
    target.drop(columns="who").to_csv(tmp_path / "copy.csv", index=False)
    target.head(0).to_csv(tmp_path / "empty.csv", index=False)
    found = json.loads(
        run("check", "mine.csv", "arrays.csv", "paired.csv", "copy.csv", "empty.csv", "--key", "who", "--json").stdout
    )
    arrays, paired, copy, empty = found["sources"]
    assert arrays["oddities"] == [NO_MATCH]
    assert paired["oddities"] == [] and "20 of 40 rows of mine are paired by key" in paired["match_lines"]
    assert copy["oddities"] == ["40 of 40 rows of mine stand in it too: its gain will be overstated"]
    assert [m["confidence"] for m in copy["matches"]] == [1.0] * 3 and copy["class_map"] == {"0": "0", "1": "1"}
    assert "has no rows" in empty["error"] and found["target"]["matches"] is None


def test_wide_tables_take_few_lines():
    found = transmeter.check(plain(columns=[f"c{i}" for i in range(500)]).assign(cost="$1.50"))
    assert len(found.target.columns) == 501
    assert found.lines == [
        "target: 40 rows, 40 of them labelled",
        "target: column 'cost' is read as numbers in $",
        "target: 501 columns: 501 numbers",
        "target: label: 2 classes: 0 (20 rows), 1 (20 rows)",
        "target: odd: constant columns, which tell nothing: cost",
    ]


def test_rank_says_the_same_when_verbose():
    files = (VA, STATLOG, PIMA)
    said = run("-v", "rank", *files, "--scorer", "source_size").stderr.splitlines()
    assert set(run("check", *files).stdout.splitlines()) <= set(said)


def test_rank_says_every_line_once_when_verbose():
    columns = {f"c{i}": [*(f"${v}" for v in range(39)), "-"] for i in range(5)}
    pd.DataFrame(columns).assign(empty=None, label=[*["a", "b", "?"] * 13, "a"]).to_csv("t.csv", index=False)
    plain().to_csv("s.csv", index=False)
    said = run("-v", "rank", "t.csv", "s.csv", "--scorer", "source_size").stderr
    notes = transmeter.check("t.csv").target.notes
    lines = [c.line for c in transmeter.check("t.csv").target.columns] + notes
    assert len(lines) == 7 and [said.count(line) for line in lines] == [1] * 7


def test_rank_says_what_lowers_the_trust_in_it_and_which_source_matches_nothing(tmp_path):
    odd().drop(columns=["said", "day", "price"]).to_csv(tmp_path / "mine.csv", index=False)
    plain(columns=("f0", "f1")).to_csv(tmp_path / "arrays.csv", index=False)
    found = run("rank", "mine.csv", "arrays.csv", *QUICK, "--out", "r.json")
    caveats = [
        "caveat: mine: 98 % of the labelled rows are of class 'a': few rows speak for the others",
        "caveat: mine: classes with fewer than 5 rows: 'b' (4): what is said of them is unsure",
        "caveat: 2 repeats do not tell how gains vary: use 10 or more",
    ]
    assert found.stdout.splitlines()[-3:] == caveats
    unmatched = (
        "arrays: no column matches one of mine: give its columns the same names and units, or pair rows by a key"
    )
    assert f"Warning: {unmatched}" in found.stderr.splitlines()
    ids = "mine: columns with another value in every row, perhaps ids, which are better left out: id, code"
    assert json.loads((tmp_path / "r.json").read_text())["notes"] == [*caveats, ids, unmatched]
    (section,), _ = sections([tmp_path / "r.json"])
    assert section["notes"][1:] == [f"{line}." for line in caveats]
    decided, classes = section["tables"][1:]
    assert decided["rows"] == [line.split(": ", 1) for line in (ids, unmatched)]
    assert classes["rows"] == [["arrays", "none by name"]]


def test_a_good_table_ranks_without_caveats():
    found = transmeter.rank(VA, [HUNGARIAN], shots=3, repeats=3)
    assert found.caveats == [] and found.notes == []


def test_rows_sampled_columns_left_out_and_classes_mapped_stand_in_the_result(tmp_path):
    frame = plain(20_100)
    source = plain(60, seed=1).assign(label=np.where(np.arange(60) % 2, "Yes", "No"))
    source.to_csv(tmp_path / "s.csv")  # with its index
    frame.assign(label=np.where(frame["label"], "yes", "no")).to_parquet(tmp_path / "t.parquet")
    found = transmeter.rank("t.parquet", ["s.csv"], scorer="source_size")
    assert [note.partition(",")[0] for note in found.notes] == [
        "t: 20000 of 20100 rows are used",
        "s: column 'Unnamed: 0' is left out: it numbers the rows",
    ]
    assert found.rows[0].class_map == {"No": "no", "Yes": "yes"}
    arrays = transmeter.rank((frame[["c0", "c1"]].to_numpy(), frame["label"]), [plain(60)], scorer="source_size")
    assert arrays.notes[0] == "target: 20000 of 20100 rows are used, a random sample"


def test_sources_paired_by_key_need_no_column_in_common(recwarn):
    target, source = plain().assign(who=np.arange(40)), plain(columns=("f0", "f1")).assign(who=np.arange(40))
    transmeter.rank(target, {"paired": source}, scorer="source_size", key="who")
    assert not [w for w in recwarn.list if "no column matches" in str(w.message)]


def test_files_are_read_as_the_options_say(tmp_path):
    plain().assign(c0="1,234").to_csv(tmp_path / "t.csv", index=False, sep=";")
    text = run("check", "t.csv", "--sep", ";", "--decimal", ",").stdout
    assert "t: column 'c0': numbers, 1.234 to 1.234" in text.splitlines()


def test_classes_that_mean_the_same_in_one_table_are_said_by_check_and_rank():
    y = ["yes", "Yes", "no", "no"] * 5
    line = "classes 'Yes' and 'yes' mean the same, but count apart: spell them alike"
    given = (pd.DataFrame({"x": np.arange(20.0)}), y)
    assert transmeter.check(given).target.notes == [line]
    with pytest.warns(UserWarning, match=f"source 1: {line}"):
        found = transmeter.rank(given, [given], "otdd")
    assert [note for note in found.notes if line in note] == [f"target: {line}", f"source 1: {line}"]


def test_numbers_that_stand_for_missing_ones_are_odd():
    frame = plain().assign(flag=np.resize([0, 1], 40), age=np.resize([30.0, 60, 80, 99], 40))
    frame.loc[:4, "c0"] = -999
    frame.loc[3, "c1"] = -999  # may be one
    odd = [line for line in transmeter.check(frame).target.oddities if "far from" in line]
    assert odd == [
        "column 'c0' holds -999 in 5 rows, far from its other values: leave these cells empty if they are missing"
    ]
