"""`rank` and `validate` on the command line: end to end, budgets, and every kind of bad table."""

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import cli
from transmeter import ranking
from transmeter.commands import options
from transmeter.tables import data

ROOT = Path(__file__).resolve().parents[3]
TABLES = ROOT / "data/tabular"
VA, HUNGARIAN, CLEVELAND = (str(TABLES / f"heart_{n}.csv") for n in ("va", "hungarian", "cleveland"))
QUICK = ("--repeats", 2)


def run(*args):
    """Result of the command."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        return CliRunner().invoke(cli.main, [str(a) for a in args])


def told(found):
    """The lines of stderr that say something."""
    return [line for line in found.stderr.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One cache for all commands, so that a source is trained once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(cache, monkeypatch):
    """Keep the user's cache out of the tests."""
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(cache))


@pytest.fixture(scope="module")
def ranked(tmp_path_factory, cache):
    """ranking.json of heart_va from two sites."""
    path = tmp_path_factory.mktemp("ranked") / "r.json"
    given = (*("--shots", 3, "--metric", "accuracy"), *QUICK, "--cache", cache, "--out", path)
    found = run("rank", VA, HUNGARIAN, CLEVELAND, *given)
    assert found.exit_code == 0, found.output
    return path


def table(path, n=40, columns=3, seed=0, label=None, name="c"):
    """A small file of two classes."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    frame = pd.DataFrame(rng.normal(size=(n, columns)) + y[:, None]).add_prefix(name).round(4)
    frame.assign(label=y if label is None else label).to_csv(path, index=False)
    return path


# validate


def test_validate_measures_the_truth_and_checks_a_ranking_against_it(ranked, tmp_path):
    args = ("validate", VA, HUNGARIAN, CLEVELAND, "--ranking", ranked, "--repeats", 4, "--steps", 10)
    found = run(*args, "--out", tmp_path / "t.json")
    assert found.exit_code == 0, found.output
    truth = json.loads((tmp_path / "t.json").read_text())
    assert truth["shots"] == 3 and truth["metric"] == "accuracy" and truth["repeats"] == 4  # those of the ranking
    assert [a["name"] for a in truth["sources"]] == ["heart_hungarian", "heart_cleveland"]
    for text in (
        "true gain_pp",
        "predicted",
        "control: Gaussian mixture",
        "agreement: weighted_tau",
        "interval coverage: pairs",
    ):
        assert text in found.stdout
    assert found.stdout == run(*args).stdout


def test_validate_without_a_ranking_states_the_truth_alone():
    found = run("validate", VA, HUNGARIAN, "--repeats", 4, "--steps", 5, "--shots", 2)
    assert found.exit_code == 0, found.output
    assert "heart_hungarian" in found.stdout and "shots 2" in found.stdout
    assert "predicted" not in found.stdout and "agreement" not in found.stdout


def test_validate_checks_scores_that_are_no_gains_by_their_order_alone(tmp_path):
    sizes = run("rank", VA, HUNGARIAN, CLEVELAND, "--scorer", "source_size", "--out", tmp_path / "r.json")
    assert sizes.exit_code == 0, sizes.output
    given = ("--ranking", tmp_path / "r.json", "--repeats", 2, "--steps", 2)
    found = run("validate", VA, HUNGARIAN, CLEVELAND, *given)
    assert found.exit_code == 0 and "agreement" in found.stdout and "interval coverage" not in found.stdout


@pytest.mark.parametrize(
    "args, message",
    [
        ((VA, HUNGARIAN, "--ranking", "R", "--shots", 5), "shots 5 differs from the ranking's 3"),
        ((VA, HUNGARIAN, "--ranking", "R", "--metric", "balanced_accuracy"), "differs from the ranking's accuracy"),
        ((VA, HUNGARIAN, f"other={CLEVELAND}", "--ranking", "R"), "the ranking does not hold 'other'"),
        ((VA, HUNGARIAN, "--ranking", VA), "is not a ranking"),
        ((VA, HUNGARIAN, "--ranking", "none.json"), "none.json does not exist"),
        ((VA, HUNGARIAN, "--out", "none/t.json"), "in a folder that does not exist"),
        ((VA, HUNGARIAN, "--shots", 60), "at least 61 are needed for --shots 60"),
        ((VA, HUNGARIAN, "--repeats", 1), "--repeats"),
        ((VA, "none.csv"), "none.csv does not exist"),
        ((VA,), "SOURCES"),
    ],
)
def test_validate_refuses_bad_input_in_one_line(args, message, ranked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = run("validate", *(ranked if a == "R" else a for a in args))
    assert found.exit_code == 2, found.output
    assert message in told(found)[-1] and told(found)[-1].startswith("Error: ") and found.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_validate_leaves_out_what_it_cannot_read_and_says_why(tmp_path):
    (tmp_path / "empty.csv").write_bytes(b"")
    given = ("--repeats", 2, "--steps", 2)
    found = run("validate", VA, HUNGARIAN, tmp_path / "empty.csv", *given)
    assert found.exit_code == 0 and "Warning: empty is left out" in found.stderr
    found = run("validate", VA, tmp_path / "empty.csv", *given)
    assert found.exit_code == 2 and told(found)[-1] == "Error: no source is usable: give others"


# budgets


@pytest.mark.parametrize(
    "text, seconds", [("60s", 60), ("2m", 120), ("1.5h", 5400), ("90", 90), (" 0.5 m ", 30), ("3 s", 3)]
)
def test_a_time_is_read_in_its_unit(text, seconds):
    assert options.SECONDS.convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["soon", "0", "0s", "-5s", "5d", "", "1m30s", "nan", "inf"])
def test_what_is_no_time_is_refused(text):
    found = run("rank", VA, HUNGARIAN, "--budget", text)
    assert found.exit_code == 2 and "give seconds, or a number with s, m or h, such as 60s" in told(found)[-1]


def test_a_budget_ends_after_the_round_and_is_kept_in_the_ranking():
    given = ("--shots", 2, "--repeats", 30, "--format", "json")
    content = json.loads(run("rank", VA, HUNGARIAN, *given, "--budget", "0.001s").stdout)
    assert content["budget"] == 0.001 and content["repeats"] == 30 and content["rows"][0]["repeats"] == 10


def test_an_interrupted_run_says_so_and_leaves_no_file(tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("transmeter.gain.ground_truth.by_combination", interrupted)
    found = run("validate", VA, HUNGARIAN, "--repeats", 2, "--out", tmp_path / "t.json")
    assert found.exit_code == 130 and "Traceback" not in found.output
    assert told(found)[-1].startswith("stopped: source classifiers that were trained are kept, nothing else;")
    assert list(tmp_path.iterdir()) == []


# tables that are wrong, each alone


def test_one_shot_a_class_is_enough():
    found = run("rank", VA, HUNGARIAN, "--shots", 1, *QUICK, "--format", "json")
    row = json.loads(found.stdout)["rows"][0]
    assert found.exit_code == 0 and row["repeats"] == 2 and row["ci_low"] < row["gain_pp"] < row["ci_high"]


@pytest.mark.parametrize(
    "content, message",
    [
        (b"x,label\n1,yes\n2,yes\n3,yes\n", "only the class 'yes': two classes are needed"),
        (b"x,y,label\n,,1\n,,0\n,,1\n,,0\n", "no column that varies"),
        (b"x,labels\n1,2\n3,4\n", "no label column 'label', did you mean 'labels'?: name it with --label"),
        ("x,label\n\xe9,1\n".encode("latin-1"), "not UTF-8"),
        (b"", "has no rows"),
        (b"x,label\n", "no rows"),
        (b"x,label\n1,a\n2,b\n3,a\n", "class 'b' of bad has 1 labelled row: at least 2 are needed"),
    ],
)
def test_a_bad_target_is_refused_in_one_line(content, message, tmp_path):
    (tmp_path / "bad.csv").write_bytes(content)
    found = run("rank", tmp_path / "bad.csv", HUNGARIAN, *QUICK)
    assert found.exit_code == 2 and found.stdout == "", found.output
    assert message in told(found)[-1] and told(found)[-1].startswith("Error: ")


def test_a_bad_source_is_listed_with_its_reason_and_the_others_are_ranked(tmp_path):
    contents = {
        "single": (b"x,label\n1,yes\n2,yes\n3,yes\n", "only the class 'yes'"),
        "blank": (b"age,label\n,1\n,0\n", "no column that varies"),
        "latin": ("x,label\n\xe9,1\n".encode("latin-1"), "not UTF-8"),
        "empty": (b"", "has no rows"),
        "unlabelled": (b"x,y\n1,2\n3,4\n", "no label column"),
    }
    for name, (content, _) in contents.items():
        (tmp_path / f"{name}.csv").write_bytes(content)
    paths = [tmp_path / f"{name}.csv" for name in contents]
    found = run("rank", VA, *paths, HUNGARIAN, *QUICK, "--format", "json")
    assert found.exit_code == 0, found.output
    rows = {r["source"]: r for r in json.loads(found.stdout)["rows"]}
    assert rows["heart_hungarian"]["rank"] == 1 and rows["heart_hungarian"]["error"] is None
    for name, (_, reason) in contents.items():
        assert rows[name]["rank"] is None and reason in rows[name]["error"] and "\n" not in rows[name]["error"]
    shown = run("rank", VA, paths[0], HUNGARIAN, *QUICK)
    assert shown.stdout.splitlines()[2].split()[:3] == ["-", "-", "single"]
    found = run("rank", VA, *paths, *QUICK)
    assert found.exit_code == 2 and "only the class 'yes'" in told(found)[-1]


def test_a_quantity_is_ranked_in_r2_points_or_by_its_terciles(tmp_path):
    y = np.linspace(0, 1, 60).round(3)
    target = table(tmp_path / "target.csv", n=60, label=y)
    source = table(tmp_path / "source.csv", n=60, seed=1, label=100 * y + 0.5)
    found = run("rank", target, source, *QUICK, "--format", "json")
    assert found.exit_code == 0, found.output
    assert sum("the label is a quantity of 60 values" in line for line in told(found)) == 2
    ranking = json.loads(found.stdout)
    assert ranking["metric"] == "r2" and set(ranking["rows"][0]["mae"]) == {"mean", "low", "high"}
    assert ranking["rows"][0]["classes"] is None and ranking["rows"][0]["class_map"] is None
    shown = run("rank", target, source, *QUICK, "--shots", 10)
    assert "gain in MAE" in shown.stdout and "; 10 labelled rows; r2" in shown.stdout
    cut = run("rank", target, source, *QUICK, "--metric", "accuracy", "--format", "json")
    assert json.loads(cut.stdout)["rows"][0]["evidence"]["mapped"] == 1  # low is low in any unit
    rival = run("rank", target, source, "--scorer", "hscore")
    assert "scorer hscore tells classes apart: the terciles of target are ranked for" in " ".join(told(rival))
    refused = run("rank", target, source, "--scorer", "hscore", "--metric", "r2")
    assert refused.exit_code == 2 and "metric 'r2' is unknown" in told(refused)[-1]
    classes = run("rank", target, source, "--classes", "source:low=high")
    assert classes.exit_code == 2 and "the label of target is a quantity: leave them out" in told(classes)[-1]


def test_a_quantity_is_validated(tmp_path):
    y = np.linspace(0, 1, 60).round(3)
    target = table(tmp_path / "target.csv", n=60, label=y)
    source = table(tmp_path / "source.csv", n=60, seed=1, label=100 * y + 0.5)
    found = run("validate", target, source, "--shots", 10, "--repeats", 2)
    assert found.exit_code == 0, found.output
    assert "target alone, r2 in %" in found.stdout and "control: Gaussian mixture" in found.stdout


def test_the_same_file_and_copied_rows_are_told(tmp_path):
    found = run("rank", VA, f"own={VA}", *QUICK)
    assert found.exit_code == 0 and "own is the target's own file: its gain is leakage" in found.stderr
    lines = Path(VA).read_text().splitlines()
    (tmp_path / "part.csv").write_text("\n".join([*Path(CLEVELAND).read_text().splitlines()[:100], *lines[1:51]]))
    found = run("rank", VA, tmp_path / "part.csv", *QUICK)
    assert found.exit_code == 0, found.output
    assert "rows of heart_va stand in part too: its gain is overstated" in found.stderr
    assert "own file" not in found.stderr
    clean = run("rank", VA, HUNGARIAN, *QUICK)
    assert clean.exit_code == 0 and [line for line in told(clean) if not line.startswith("next: ")] == []


def test_a_long_source_is_sampled_with_a_warning(heart, monkeypatch):
    for module in (ranking, data):
        monkeypatch.setattr(module, "MAX_ROWS", 150)
    found = run("rank", VA, HUNGARIAN, *QUICK, "--format", "json")
    assert found.exit_code == 0, found.output
    assert "heart_hungarian: 150 of 294 rows are used" in found.stderr
    evidence = json.loads(found.stdout)["rows"][0]["evidence"]
    assert evidence["size"] == pytest.approx(np.log10(150))
    with pytest.warns(UserWarning, match="heart_cleveland: 150 of 303 rows are used"):  # tables that are no files
        ranking.rank(heart["switzerland"], [heart["cleveland"]], "source_size")


def test_thousands_of_columns_are_ranked(tmp_path):
    target = table(tmp_path / "target.csv", n=24, columns=2000)
    source = table(tmp_path / "source.csv", n=24, columns=2000, seed=1)
    found = run("rank", target, source, "--shots", 4, *QUICK, "--format", "json")
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["rows"][0]["evidence"]["shared"] == 1


def test_no_column_in_common_is_ranked_too(tmp_path):
    found = run("rank", VA, table(tmp_path / "apart.csv", name="zz"), *QUICK, "--format", "json")
    row = json.loads(found.stdout)["rows"][0]
    assert found.exit_code == 0 and row["evidence"]["shared"] == 0
    assert row["verdict"] == "no evidence" and row["ci_low"] == row["gain_pp"] == row["ci_high"] == 0


def test_a_source_with_one_row_of_a_class_is_ranked(tmp_path):
    label = np.where(np.arange(40) == 0, "rare", "usual")
    found = run("rank", VA, table(tmp_path / "lonely.csv", label=label), *QUICK, "--format", "json")
    row = json.loads(found.stdout)["rows"][0]
    assert found.exit_code == 0 and row["error"] is None
    assert row["ci_low"] <= row["gain_pp"] <= row["ci_high"] and abs(row["gain_pp"]) < 15


def test_classes_are_matched_by_hand_and_small_ones_left_out(tmp_path):
    target = table(tmp_path / "t.csv", label=["0", "1", *["0", "1"] * 18, "2", "2"])
    source = table(tmp_path / "s.csv", label=["1", "2"] * 20)
    settings = ("--scorer", "source_size", "--min-class-rows", 3, "--classes", "s:1=0,2=1", "--json")
    found = run("rank", target, source, *settings)
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["rows"][0]["class_map"] == {"1": "0", "2": "1"}
    assert json.loads(found.stdout)["notes"] == ["t: 2 rows of classes of fewer than 3 rows are left out: 2"]
    wrong = run("rank", target, source, "--classes", "s")
    assert wrong.exit_code == 2 and "--classes s is not understood: give SOURCE:THEIRS=OURS,..." in wrong.stderr
