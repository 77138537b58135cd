"""Columns that match by name and by meaning, and those that must not."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transmeter import ranking
from transmeter.network import source
from transmeter.report.tables import format_ranking
from transmeter.result import load
from transmeter.tables import data, encoding
from transmeter.tables.matching import Match, align, match_columns, shared_features
from transmeter.tables.names import likeness
from transmeter.tables.prepare import prepare

STATLOG = {
    "chest": "cp",
    "resting_blood_pressure": "trestbps",
    "serum_cholestoral": "chol",
    "fasting_blood_sugar": "fbs",
    "resting_electrocardiographic_results": "restecg",
    "maximum_heart_rate_achieved": "thalach",
    "exercise_induced_angina": "exang",
}


def by_meaning(a, b, **options):
    """Source name to target name of the matches by meaning."""
    return {m.source: m.target for m in match_columns(a, b, **options) if m.how == "meaning"}


def make(name="t", n=60, **columns):
    """A table of the given columns."""
    return data.table(name, pd.DataFrame(columns), np.arange(n) % 2)


@pytest.fixture(scope="module")
def tables(root):
    """The tables of data/ that are no heart site."""
    return {
        n: data.load(str(root / f"data/tabular/{n}.csv")) for n in ("heart_statlog", "heart_failure", "pima_diabetes")
    }


@pytest.mark.parametrize("site", ["cleveland", "hungarian", "va"])
def test_the_same_columns_under_other_names(heart, tables, site):
    found = match_columns(tables["heart_statlog"], heart[site])
    assert {m.source: m.target for m in found if m.how == "meaning"} == STATLOG
    assert {m.source for m in found if m.how == "name"} == {"age", "sex", "oldpeak", "slope", "thal"}
    assert all(0.6 <= m.confidence <= 1 for m in found)
    back = match_columns(heart[site], tables["heart_statlog"])
    assert {(m.target, m.source) for m in back} == {(m.source, m.target) for m in found}


def test_tables_of_other_things_match_by_name_only(heart, tables):
    for a in ("heart_failure", "pima_diabetes"):
        for b in (heart["cleveland"], tables["heart_statlog"]):
            assert by_meaning(tables[a], b) == by_meaning(b, tables[a]) == {}
    assert [m.target for m in match_columns(tables["pima_diabetes"], heart["cleveland"])] == ["age"]


def test_opaque_names_never_match_by_meaning():
    x = np.random.default_rng(0).normal(size=(60, 3))
    a = make(x1=x[:, 0], feature_2=x[:, 1], V3=x[:, 2])
    b = make(f1=x[:, 0], attr_2=x[:, 1], col3=x[:, 2])
    assert match_columns(a, b) == []


def test_other_numbers_values_or_kinds_are_no_match():
    x = np.random.default_rng(0).normal(size=60)
    a = make(bill_amount_1=x, resting_pressure=x, has_diabetes=x > 0, body_weight=x, town=["Seoul", "Busan"] * 30)
    b = make(
        bill_amt_2=x,
        rest_pressure=x + 9,
        diabetes_level=x,
        weight=np.where(x > 0, "heavy", "light"),
        home_town=["Rome", "Oslo"] * 30,
    )
    assert match_columns(a, b) == []


def test_a_close_second_leaves_both_unmatched():
    x = np.random.default_rng(0).normal(size=60)
    assert by_meaning(make(radius=x), make(radius_mean=x, radius_worst=x)) == {}
    assert by_meaning(make(radius=x), make(radius_mean=x, texture_mean=x)) == {"radius": "radius_mean"}


@pytest.mark.parametrize(
    "a, b, alike",
    [
        ("trestbps", "resting_blood_pressure", True),
        ("cp", "chest_pain_type", True),
        ("wbcc", "whiteBloodCellCount", True),
        ("radius_mean", "mean radius", True),
        ("gender", "sex", True),
        ("serum_cholesterol", "serum_cholestoral", True),
        ("radius_se", "radius_worst", False),
        ("resting_heart_rate", "maximum_heart_rate", False),
        ("credit_amount", "credit_history", False),
        ("age", "page", False),
        ("x1", "x_1", False),
        ("", "age", False),
    ],
)
def test_likeness_of_names(a, b, alike):
    assert (likeness(a, b) >= 0.6) == alike
    assert likeness(a, b) == likeness(b, a)


def test_an_encoder_sees_descriptions_and_finds_what_letters_do_not():
    x = np.random.default_rng(0).normal(size=60)
    a, b = make(occupation=x, wage=x**2), make(job=x, salary=x**2)
    assert by_meaning(a, b) == {}
    seen = []

    def encoder(texts):
        seen.extend(texts)
        return np.array([[1.0, 0.0] if t.split(":")[0] in ("occupation", "job") else [0.0, 1.0] for t in texts])

    assert by_meaning(a, b, encoder=encoder) == {"occupation": "job", "wage": "salary"}
    assert seen[0] == f"occupation: {', '.join(f'{v:g}' for v in x[:3])}"


def test_aligned_tables_share_features_and_categories():
    rng = np.random.default_rng(0)
    town = rng.choice(["Seoul", "Busan"], 60)
    gaps = [None, *town[1:]]
    a = make("a", resting_blood_pressure=rng.normal(size=60), home_town=gaps, age=rng.choice(["old", "young"], 60))
    b = make("b", rest_bp=rng.normal(size=60), town=np.char.add(np.char.upper(town), " "), age=rng.normal(size=60))
    a = replace(a, keys=np.arange(60).astype(str))
    found, matches = align(a, b)
    assert found.columns == ["rest_bp", "town", "age (of a)"] and list(found.keys) == list(a.keys)
    assert set(found.features["town"]) == {"SEOUL", "BUSAN", None} and set(a.features["home_town"]) == {
        "Seoul",
        "Busan",
        None,
    }
    assert [m.how for m in matches] == ["meaning"] * 2 and isinstance(matches[0], Match)
    names = encoding.Encoder(found.features).names, encoding.Encoder(b.features).names
    assert [names[1][j] for _, j in shared_features(*names)] == ["rest_bp", "town=BUSAN", "town=SEOUL"]


def test_renaming_does_not_train_a_source_anew(heart, tables, tmp_path):
    found, _ = align(tables["heart_statlog"], heart["hungarian"])
    assert found.columns != tables["heart_statlog"].columns
    keys = [source.Source(t, tmp_path)._key() for t in (found, tables["heart_statlog"])]
    assert keys[0] == keys[1] != source.Source(found.take(np.arange(99)), tmp_path)._key()


def test_wide_tables_match_by_name_only():
    columns = {f"gene of {a}{b}{c}": np.arange(60.0) for a in "abcdefg" for b in "hijklmn" for c in "opqrst"}
    with pytest.warns(UserWarning, match="more than 200 columns are left, only names are matched"):
        assert match_columns(make(**columns), make(genes=np.arange(60.0))) == []


def test_prepare_matches_by_name_where_told(heart, tables):
    target, sources, matches = prepare(heart["va"], [tables["heart_statlog"]], match="name")
    assert sources[0].columns == tables["heart_statlog"].columns and len(matches[0]) == 5
    with pytest.raises(ValueError, match="match 'sound' is unknown: give one of meaning, name"):
        prepare(heart["va"], [], match="sound")


names = st.lists(
    st.text(max_size=12) | st.sampled_from(["Age", "age", "AGE ", "", "_", "blood_pressure", "bp"]), unique=True
)


@settings(max_examples=60, deadline=None)
@given(names.filter(bool), names.filter(bool), st.integers(0, 3))
def test_any_names_give_one_to_one_matches_and_distinct_columns(left, right, seed):
    rng = np.random.default_rng(seed)
    a, b = (
        data.table(name, pd.DataFrame(rng.normal(size=(12, len(c))), columns=c), np.arange(12) % 2)
        for name, c in (("a", left), ("b", right))
    )
    found, matches = align(a, b)
    assert len({m.source for m in matches}) == len({m.target for m in matches}) == len(matches)
    assert len(set(found.columns)) == len(left) and all(0 < m.confidence <= 1 for m in matches)
    assert {m.target for m in matches} >= set(left) & set(right)
    places = {c: i for i, c in enumerate(a.columns)}
    for match in matches:
        assert found.columns[places[match.source]] == match.target


def test_a_ranking_tells_the_matches(heart, tables, tmp_path):
    found = ranking.rank(heart["va"], [tables["heart_statlog"], tables["pima_diabetes"]], "source_size")
    rows = {r.source: r.matches for r in found.rows}
    assert [m["source"] for m in rows["pima_diabetes"]] == ["age"] and rows["pima_diabetes"][0]["how"] == "name"
    assert {m["source"]: m["target"] for m in rows["heart_statlog"] if m["how"] == "meaning"} == STATLOG
    found.save(tmp_path / "r.json")
    assert load(tmp_path / "r.json") == found
    lines = format_ranking(found).splitlines()
    assert len(lines) == 4 and lines[3].startswith("heart_statlog, columns matched by meaning: ")
    assert "serum_cholestoral = chol (0." in lines[3]


def test_columns_of_texts_make_no_tables_kin():
    x = np.random.default_rng(0).normal(size=60)
    series = {f"text dimension {i}": x for i in range(9)}
    assert by_meaning(make(upvotes=x, **series), make(price=x, **series)) == {}


def test_columns_of_one_name_that_differ_in_kind_or_unit_are_said():
    x = np.random.default_rng(0).normal(50, 9, size=60).round(1)
    words = np.where(x > 50, "male", "female")
    target = make(age=x, sex=(x > 50).astype(int), weight=[f"{v} kg" for v in x], town=words)
    source = make(age=x, Sex=words, weight=[f"{v} lb" for v in x], town=words)
    lines = [
        "column 'Sex' holds categories, that of t numbers: they do not match",
        "column 'weight' is in lb, that of t in kg: convert one",
    ]
    with pytest.warns(UserWarning) as caught:
        found, matches = align(source, target)
    assert [m.source for m in matches] == ["age", "weight", "town"] and list(found.notes[-2:]) == lines
    assert [str(w.message) for w in caught] == [f"{source.name}: {line}" for line in lines]
