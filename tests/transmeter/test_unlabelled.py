"""A target of which no row has a label, from `rank`, `check`, `validate`, `transfer` and the command line."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import cli
import transmeter
from transmeter import checks, result
from transmeter.report.sections import sections
from transmeter.report.tables import format_ranking, format_transfer
from transmeter.tables.data import load

QUICK = {"shots": 3, "repeats": 2}


@pytest.fixture(scope="module")
def frames(root):
    """The heart sites as data frames."""
    names = ("va", "hungarian", "cleveland")
    return {name: pd.read_csv(root / f"data/tabular/heart_{name}.csv") for name in names}


@pytest.fixture(scope="module")
def target(frames):
    """The Veterans' hospital without its label column."""
    return frames["va"].drop(columns="label")


@pytest.fixture(autouse=True)
def quiet():
    """What is said is looked at where it matters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="module")
def ranking(target, frames):
    """Of two other sites."""
    return transmeter.rank(target, {name: frames[name] for name in ("hungarian", "cleveland")})


def test_gains_are_over_guessing_and_hold_what_labels_would_say(ranking, frames):
    assert (ranking.shots, ranking.repeats, ranking.metric) == (0, 0, "balanced_accuracy")
    assert ranking.setting == "no labelled row"
    for row in ranking.rows:
        assert row.baseline == "guessing" and row.repeats == 0 and -50 <= row.ci_low < row.gain_pp < row.ci_high <= 50
        assert row.evidence["classes"] == 2 and row.terms is None and row.over_itself is None
        found = transmeter.transfer(frames["va"].drop(columns="label"), {row.source: frames[row.source]})
        right = found.predictions["prediction"].to_numpy() == frames["va"]["label"].astype(str)
        reached = np.mean([100 * right[frames["va"]["label"] == c].mean() for c in (0, 1)])
        assert row.ci_low < reached - 50 < row.ci_high
        assert found.check.gain.verdict == found.check.verdict and found.check.shots == 0
        assert found.check.reached.mean == pytest.approx(50 + found.check.gain.mean)


def test_no_column_empty_cells_and_no_y_are_the_same(target, frames, ranking):
    sources = {name: frames[name] for name in ("hungarian", "cleveland")}
    for given in (target.assign(label=None), target.assign(label="?"), target.assign(label=np.nan), (target, None)):
        assert [r.gain_pp for r in transmeter.rank(given, sources).rows] == [r.gain_pp for r in ranking.rows]


def test_what_is_shown_says_what_a_gain_is(ranking, tmp_path):
    shown = format_ranking(ranking)
    assert "target has no label: gain_pp is what the model of a source alone is expected to reach" in shown
    assert "over guessing (50 %)" in shown and "predicted, not measured" in shown
    assert "no label column 'label': no row is labelled" in " ".join(ranking.notes)
    ranking.save(tmp_path / "r.json")
    assert result.load(tmp_path / "r.json") == ranking
    assert "no labelled row" in ranking._repr_html_()
    (section, *_), _ = sections([tmp_path / "r.json"])
    text = json.dumps(section, default=str)
    assert "Target has no label: gain_pp is what" in text and "agreement with other sources" in text


def test_one_source_alone_and_one_without_a_shared_column(target, frames):
    strange = frames["hungarian"].rename(columns=lambda c: c if c == "label" else f"x {c} 9")
    with pytest.warns(UserWarning, match="strange: no column matches one of target"):
        found = transmeter.rank(target, {"strange": strange, "hungarian": frames["hungarian"]}, match="name")
    alone = transmeter.rank(target, {"hungarian": frames["hungarian"]})
    rows = {row.source: row for row in found.rows}
    assert rows["strange"].gain_pp == 0 and rows["strange"].verdict == "no evidence"
    assert rows["hungarian"].gain_pp == alone.rows[0].gain_pp
    with pytest.raises(ValueError, match="has no column of the target, so that it predicts nothing"):
        transmeter.transfer(target, {"strange": strange}, match="name")


def test_sources_with_other_class_names(target, frames):
    words = frames["cleveland"].assign(label=frames["cleveland"]["label"].map({0: "no", 1: "yes"}))
    grades = frames["cleveland"].assign(label=frames["cleveland"]["label"].map({0: "mild", 1: "severe"}))
    sources = {"hungarian": frames["hungarian"], "words": words, "grades": grades}
    with pytest.warns(UserWarning, match="grades: its model tells mild, severe apart, that of others 0, 1"):
        found = transmeter.rank(target, sources)
    rows = {row.source: row for row in found.rows}
    assert rows["words"].class_map == {"no": "0", "yes": "1"} and rows["grades"].class_map is None
    assert rows["words"].evidence["consensus"] > 0 == rows["grades"].evidence["consensus"]
    by_hand = transmeter.rank(target, sources, classes={"grades": {"mild": "0", "severe": "1"}})
    again = {row.source: row for row in by_hand.rows}
    assert again["grades"].gain_pp == again["words"].gain_pp
    for name in ("words", "grades"):  # a source alone predicts by its own names
        predictions = transmeter.transfer(target, {name: sources[name]}).predictions["prediction"]
        assert set(predictions) <= set(sources[name]["label"])


def test_a_model_of_a_source_alone_is_saved_and_predicts_in_the_order_of_its_classes(target, frames, tmp_path):
    x, sources = target, {"hungarian": frames["hungarian"], "cleveland": frames["cleveland"]}
    fitted = transmeter.TransferClassifier(sources).fit(x, [None] * len(x))
    assert fitted.classes_.tolist() == ["0", "1"] and sum(fitted.members_.values()) == pytest.approx(1)
    each = [transmeter.TransferClassifier({n: s}).fit(x, [None] * len(x)).predict_proba(x) for n, s in sources.items()]
    assert fitted.predict_proba(x) == pytest.approx(np.mean(each, axis=0), abs=1e-6)
    swapped = sources["hungarian"].assign(label=sources["hungarian"]["label"].map({0: "z", 1: "a"}))
    other = transmeter.TransferClassifier({"s": swapped}).fit(x, [None] * len(x))
    assert other.predict_proba(x)[:, ::-1] == pytest.approx(each[0], abs=1e-6)
    fitted.save(tmp_path / "m")
    assert np.array_equal(transmeter.TransferClassifier.load(tmp_path / "m").predict_proba(x), fitted.predict_proba(x))
    with pytest.raises(ValueError, match="y holds no label, NaN or None only: two classes are needed, or sources"):
        transmeter.TransferClassifier().fit(x, [None] * len(x))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"shots": 5}, "target has no labelled row, and shots 5 needs them: leave shots out, or label some rows"),
        ({"together": True}, "and together True needs them: leave together out"),
        ({"metric": "roc_auc"}, "and metric 'roc_auc' needs them"),
        ({"learner": "network"}, "and learner 'network' needs them"),
        ({"options": {"steps": 5}}, "and steps 5 needs them"),
        ({"scorer": "logme"}, "scorer logme needs them: use transmeter, or one of shared_columns, source_accuracy, s"),
        ({"scorer": "otdd"}, "scorer otdd needs them"),
    ],
)
def test_what_needs_labels_is_refused_with_the_remedy(options, message, target, frames):
    with pytest.raises(ValueError, match=message):
        transmeter.rank(target, {"hungarian": frames["hungarian"]}, **options)


def test_what_is_of_measuring_is_left_aside_and_said(target, frames):
    with pytest.warns(UserWarning, match="no labelled row to measure on: (repeats|budget) is left aside") as said:
        found = transmeter.rank(target, {"hungarian": frames["hungarian"]}, repeats=5, budget=9)
    assert sum("left aside" in str(w.message) for w in said) == 2 and found.repeats == 0


def test_scorers_that_look_at_no_label_take_such_a_target(target, frames):
    sources = {name: frames[name] for name in ("hungarian", "cleveland")}
    for scorer in ("source_accuracy", "source_size", "shared_columns"):
        found = transmeter.rank(target, sources, scorer)
        labelled = transmeter.rank(frames["va"], sources, scorer)
        assert [(r.source, r.score) for r in found.rows] == [(r.source, r.score) for r in labelled.rows]
        assert found.shots == 0


def test_a_label_column_that_is_not_named_is_no_missing_one(frames, root, tmp_path):
    source = {"hungarian": frames["hungarian"]}
    for name in ("Label", "labels", "class label"):
        with pytest.raises(ValueError, match="no label column 'label'"):
            transmeter.rank(frames["va"].rename(columns={"label": name}), source)
    with pytest.raises(ValueError, match="no label column 'disease'"):
        transmeter.rank(frames["va"], source, label="disease")
    frames["va"].rename(columns={"label": "num"}).to_csv(tmp_path / "va.csv", index=False)
    frames["hungarian"].rename(columns={"label": "num"}).to_csv(tmp_path / "h.csv", index=False)
    with pytest.raises(ValueError, match="has a column 'num', which holds those of a source: name it as PATH::num"):
        transmeter.rank(tmp_path / "va.csv", [f"{tmp_path / 'h.csv'}::num"])
    with pytest.raises(ValueError, match="has no label column 'label'"):
        load(str(tmp_path / "va.csv"))


def test_validate_transfer_and_check_say_what_they_do(ranking, target, frames):
    source = {"hungarian": frames["hungarian"]}
    with pytest.raises(ValueError, match="target has no labelled row to measure gains on: label some, or rank without"):
        transmeter.validate(target, source)
    with pytest.raises(ValueError, match="the ranking was made without labels, so that its gains are over guessing"):
        transmeter.validate(frames["va"], source, ranking)
    with pytest.raises(ValueError, match="no labelled row to weigh 2 sources by: give the first of a ranking"):
        transmeter.transfer(target, {**source, "cleveland": frames["cleveland"]})
    shown = format_transfer(transmeter.transfer(target, source))
    assert "guessing" in shown and "target has no label: what is reached is predicted, not measured" in shown
    lines = checks.check(target, source).lines
    assert "target: 200 rows, 0 of them labelled" in lines
    assert not any("no class is called" in line for line in lines)


def test_the_command_answers_and_a_source_needs_labels(target, root, tmp_path, monkeypatch):
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / "cache"))
    target.to_csv(tmp_path / "va.csv", index=False)
    hungarian = str(root / "data/tabular/heart_hungarian.csv")
    words = ["rank", str(tmp_path / "va.csv"), hungarian, str(tmp_path / "va.csv"), "--json"]
    (tmp_path / "other.csv").write_bytes((tmp_path / "va.csv").read_bytes())
    words[3] = str(tmp_path / "other.csv")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        found = CliRunner().invoke(cli.main, words)
    assert found.exit_code == 0, found.output
    content = json.loads(found.stdout)
    assert content["shots"] == 0 and content["rows"][0]["source"] == "heart_hungarian"
    assert "no label column" in content["rows"][1]["error"]
    assert "va: no label column 'label': no row is labelled (columns: age, sex" in found.stderr
