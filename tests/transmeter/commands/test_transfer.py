"""`transmeter transfer`: a model folder, its check on held-out rows, and predictions."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import cli
from transmeter import TransferClassifier, TransferRegressor
from transmeter.gain import heldout
from transmeter.network.source import Source

ROOT = Path(__file__).resolve().parents[3]
VA, HUNGARIAN, CLEVELAND = (str(ROOT / f"data/tabular/heart_{n}.csv") for n in ("va", "hungarian", "cleveland"))


def run(*args):
    """Result of the command."""
    return CliRunner().invoke(cli.main, [str(a) for a in ("transfer", *args)])


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Keep the user's cache out of the tests."""
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path_factory.getbasetemp() / "cache"))


def test_it_saves_the_model_its_check_and_predictions(tmp_path):
    new = pd.read_csv(CLEVELAND).drop(columns="label").assign(note="unknown column")[:20]
    new[list(reversed(new.columns))].to_csv(tmp_path / "new.csv", index=False)
    out = tmp_path / "m"
    found = run(VA, HUNGARIAN, "--predict", tmp_path / "new.csv", "--out", out, "--repeats", 2)
    assert found.exit_code == 0, found.output
    names = {"classifier.safetensors", "classifier.json", "transfer.json", "predictions.csv"}
    assert {f.name for f in out.iterdir()} == names
    for text in ("with heart_hungarian", "target alone", "gain", "P(gain<0)", "held-out rows of heart_va, 2 repeats"):
        assert text in found.stdout
    assert re.search(r"m: 17 learners, the heaviest: .*heart_hungarian.* \(\d+%\), 20 predictions", found.stderr)
    predictions = pd.read_csv(out / "predictions.csv")
    assert list(predictions) == ["prediction", "probability 0", "probability 1"] and len(predictions) == 20
    model = TransferClassifier.load(out)
    chances = model.predict_proba(new[model.feature_names_in_])
    assert np.allclose(predictions.iloc[:, 1:], chances) and list(model.matches_) == ["heart_hungarian"]
    check = json.loads((out / "transfer.json").read_text())
    assert check["reached"]["mean"] == pytest.approx(check["alone"]["mean"] + 0, abs=30)
    assert all(0 <= check[k]["low"] < check[k]["mean"] < check[k]["high"] <= 100 for k in ("reached", "alone"))


def test_what_was_decided_of_the_tables_is_printed_and_kept(tmp_path):
    frame = pd.read_csv(VA)
    frame.assign(chol=[f"{v:g} %" for v in frame["chol"].fillna(0)]).to_csv(tmp_path / "va.csv", index=False)
    source = pd.read_csv(HUNGARIAN)
    source["sex"] = np.where(source["sex"] == 1, "male", "female")
    source.assign(label=source["label"] + 1, empty=None).to_csv(tmp_path / "h.csv", index=False)
    found = run(tmp_path / "va.csv", tmp_path / "h.csv", "--repeats", 2, "--out", tmp_path / "m")
    assert found.exit_code == 0, found.output
    about = json.loads((tmp_path / "m/transfer.json").read_text())
    assert about["class_maps"] == {"h": {"1": "0", "2": "1"}} and len(about["matches"]["h"]) == 12
    notes = [
        "va: column 'chol' is read as numbers in %",
        "h: column 'empty' is left out: it holds no value",
        "h: column 'sex' holds categories, that of va numbers: they do not match",
    ]
    assert about["notes"][:3] == notes and "h: its classes are matched as the rows say" in about["notes"][3]
    lines = found.stdout.splitlines()
    assert "classes of h: 1 = 0, 2 = 1" in lines and lines[-4:] == about["notes"]
    assert [found.stderr.count(note) for note in about["notes"]] == [1] * 4 and "X: " not in found.stderr


def test_several_sources_are_used_at_once(tmp_path):
    found = run(VA, HUNGARIAN, CLEVELAND, "--repeats", 2, "--out", tmp_path / "m")
    assert found.exit_code == 0 and "with heart_hungarian + heart_cleveland" in found.stdout
    about = json.loads((tmp_path / "m/transfer.json").read_text())
    assert about["sources"] == list(about["class_maps"]) == ["heart_hungarian", "heart_cleveland"]
    members = TransferClassifier.load(tmp_path / "m").members_
    assert sum("heart_cleveland" in name for name in members) == sum("heart_hungarian" in name for name in members) > 5


def test_the_check_is_of_the_figures_that_a_ranking_compares(heart):
    found = heldout.check([Source(heart["hungarian"])], heart["va"], shots=5, repeats=10, metric="accuracy")
    from transmeter.scorers.transmeter import score

    scored = score([Source(heart["hungarian"])], heart["va"], shots=5, repeats=10, metric="accuracy")[0]
    assert found.gain == scored.gain and found.baseline == scored.outcome.baseline
    difference = np.nanmean(scored.outcome.difference, axis=0).mean() * 100
    assert found.reached.mean - found.alone.mean == pytest.approx(difference, abs=0.2)


@pytest.mark.parametrize(
    "args, message",
    [
        ((VA, "none.csv"), "none.csv does not exist"),
        ((VA, HUNGARIAN, "--predict", "none.csv"), "none.csv does not exist"),
        ((VA, HUNGARIAN, "--predict", "short.csv"), "short.csv has no column 'chol', did you mean 'chols'?"),
        (
            (VA, HUNGARIAN, "--predict", "words.csv"),
            "column 'chol' of words.csv holds 'high', but was learned as numbers",
        ),
    ],
)
def test_bad_input_is_refused_before_any_work(args, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame = pd.read_csv(VA)
    frame.rename(columns={"chol": "chols"}).to_csv("short.csv", index=False)
    frame.assign(chol="high").to_csv("words.csv", index=False)
    before = set(tmp_path.iterdir())
    found = run(*args, "--out", "m")
    assert found.exit_code == 2 and found.stdout == "", found.output
    assert found.stderr.splitlines()[-1].startswith("Error: ") and message in found.stderr.splitlines()[-1]
    assert set(tmp_path.iterdir()) == before


def test_a_quantity_is_predicted_by_a_regressor(tmp_path):
    rng = np.random.default_rng(0)
    for name, rows in (("target", 60), ("source", 80)):
        x = rng.normal(size=(rows, 3))
        y = (x.sum(1) + rng.normal(size=rows) / 2).round(4)
        pd.DataFrame(x, columns=list("abc")).assign(label=y).to_csv(tmp_path / f"{name}.csv", index=False)
    out, target = tmp_path / "m", tmp_path / "target.csv"
    found = run(target, tmp_path / "source.csv", "--predict", target, "--out", out, "--repeats", 2)
    assert found.exit_code == 0, found.output
    names = {"regressor.safetensors", "regressor.json", "transfer.json", "predictions.csv"}
    assert {f.name for f in out.iterdir()} == names
    assert "r2 in %" in found.stdout and "gain in MAE" in found.stdout
    predictions, rows = pd.read_csv(out / "predictions.csv"), pd.read_csv(target)
    assert list(predictions) == ["prediction"] and np.corrcoef(predictions.prediction, rows.label)[0, 1] > 0.9
    again = TransferRegressor.load(out).predict(rows[list("abc")])
    np.testing.assert_allclose(again, predictions.prediction)
    assert json.loads((out / "transfer.json").read_text())["metric"] == "r2"
