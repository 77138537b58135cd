"""Which classes of a source stand for which of the target."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest

from transmeter import ranking
from transmeter.tables import data
from transmeter.tables.classes import align_classes, meanings


def make(labels, name="s", seed=0, shift=3.0):
    """A table whose first column tells the classes apart in their sorted order."""
    labels = np.array(labels, dtype=object)
    rng = np.random.default_rng(seed)
    order = {c: i for i, c in enumerate(sorted(set(labels)))}
    x = np.array([shift * order[v] for v in labels]) + rng.normal(size=len(labels))
    return data.table(name, pd.DataFrame({"x": x, "noise": rng.normal(size=len(labels))}), labels)


def aligned(source, target, **options):
    """({class of the source: class of the target}, warnings) of two tables."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = align_classes(source, target, **options)
    assert list(found.codes) == list(source.codes) and len(set(found.classes)) == len(source.classes)
    return dict(found.class_map), [str(w.message) for w in caught]


TARGET = make(["0", "1"] * 40, "t", seed=1)


@pytest.mark.parametrize(
    "pair", [(0, 1), (False, True), ("no", "yes"), ("No", "YES"), ("0.0", "1.0"), ("f", "t"), ("n", "y"), (0.0, 1.0)]
)
def test_names_that_mean_the_same_match_in_both_directions(pair):
    source = make(["0", "1"] * 40)
    labels = np.array([pair[int(v)] for v in source.labels], dtype=object)
    source = data.table("s", source.features, labels)
    no, yes = (data.label_texts(np.array(pair, dtype=object))).tolist()
    assert aligned(source, TARGET) == ({no: "0", yes: "1"}, [])
    assert aligned(TARGET, source) == ({"0": no, "1": yes}, [])


def test_meanings_of_names():
    assert meanings(["Mild ", "SEVERE", "1.50"]) == ["mild", "severe", "1.5"]
    assert meanings(["yes", "no", "unsure"]) == ["yes", "no", "unsure"]
    found, _ = aligned(make(["Yes", "yes", "no"] * 20), make(["yes", "no"] * 20, "t"))
    assert found == {"yes": "yes", "no": "no"}  # the very name goes first


def test_names_that_say_nothing_are_left_to_the_class_means():
    assert aligned(make(["absent", "present"] * 40), TARGET) == ({}, [])


def test_a_partial_overlap_is_checked_against_the_rows():
    found, lines = aligned(make(["1", "2"] * 40), TARGET)
    assert found == {"1": "0", "2": "1"}
    assert lines == [
        "s: its classes are matched as the rows say: names say 1 = 1, the rows 1 = 0, 2 = 1: "
        "give classes to decide by hand"
    ]
    found, lines = aligned(make(["0", "1", "2"] * 40), make(["0", "1", "3"] * 30, "t", seed=1))
    assert found == {"0": "0", "1": "1"} and not lines
    kept = [aligned(make(["1", "2"] * 40, seed=s, shift=0.0), TARGET) == ({"1": "1"}, []) for s in range(20)]
    assert sum(kept) >= 18  # rows of a source that cannot be learned say nothing


def test_a_class_that_stands_for_none_is_renamed_apart():
    found = align_classes(make(["1", "2"] * 40), TARGET, {"2": "0"})
    assert found.classes == ("1 (of s)", "0") and found.class_map == {"2": "0"}


def test_classes_by_hand():
    assert aligned(make(["1", "2"] * 40), TARGET, by_hand={1: 1, 2: 0}) == ({"1": "1", "2": "0"}, [])
    assert aligned(make(["1", "2"] * 40), TARGET, by_hand={}) == ({}, [])
    with pytest.raises(ValueError, match="s has no class '3': it has 1, 2"):
        align_classes(make(["1", "2"] * 40), TARGET, {"3": "0"})
    with pytest.raises(ValueError, match="t has no class '2': it has 0, 1"):
        align_classes(make(["1", "2"] * 40), TARGET, {"1": "2"})
    with pytest.raises(ValueError, match="two classes of s stand for '0': give one"):
        align_classes(make(["1", "2"] * 40), TARGET, {"1": "0", "2": "0"})


@pytest.mark.filterwarnings("ignore")
def test_the_same_rows_in_eight_notations_give_the_same_ranking(heart, tmp_path):
    source = heart["hungarian"]
    codes = (source.labels == "1").astype(int)
    notations = [(0, 1), (1, 2), (False, True), ("no", "yes"), ("No", "Yes"), ("0.0", "1.0"), ("n", "y"), (0.0, 1.0)]
    tables = [
        data.table(f"s{i}", source.features, np.array([pair[c] for c in codes], dtype=object))
        for i, pair in enumerate(notations)
    ]
    settings = {"shots": 5, "repeats": 2}
    found = ranking.rank(heart["va"], tables, **settings)
    assert len({round(row.score, 6) for row in found.rows}) == 1
    maps = {row.source: row.class_map for row in found.rows}
    assert maps["s1"] == {"1": "0", "2": "1"} and maps["s3"] == {"no": "0", "yes": "1"}
    assert any("its classes are matched as the rows say" in note for note in found.notes)
    found.save(tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text())["notes"] == found.notes
    with pytest.raises(ValueError, match="classes are given of 'x': name one of s0"):
        ranking.rank(heart["va"], tables, classes={"x": {}}, **settings)


@pytest.mark.filterwarnings("ignore")
def test_a_quantity_as_label_is_no_set_of_classes():
    ages = np.random.default_rng(0).integers(29, 78, 400)
    features = pd.DataFrame({"x": range(400)})
    assert set(data.table("a", features, ages).classes) == {"low", "middle", "high"}
    numbered = np.arange(400) % 30
    assert [len(data.table("a", features, numbered + first).classes) for first in (0, 1)] == [30, 30]


def test_a_question_mark_as_label_is_missing_and_said():
    found = data.table("a", pd.DataFrame({"x": range(6)}), np.array(["p", "q", "?"] * 2))
    assert found.classes == ("p", "q") and found.notes == ("2 labels '?' are read as missing",)


@pytest.mark.parametrize(
    "values, classes",
    [
        (np.array([-0.0, 1.0] * 3), ("0", "1")),
        (np.array([0.1, 0.2] * 3, dtype=np.float32), ("0.1", "0.2")),
        (np.array([b"\xff\xfe", b"\xff\xfd"] * 3, dtype=object), ("fffd", "fffe")),
        (np.array([b"no", b"yes"] * 3, dtype=object), ("no", "yes")),
    ],
)
def test_labels_of_other_types(values, classes):
    assert data.table("a", pd.DataFrame({"x": range(6)}), values).classes == classes


def test_classes_of_few_rows_are_left_out():
    table = data.table("a", pd.DataFrame({"x": range(9)}), np.array([*"ppppqqqr", None], dtype=object))
    with pytest.warns(UserWarning, match="a: 1 row of classes of fewer than 2 rows is left out: r"):
        found = data.drop_small_classes(table, 2)
    assert found.classes == ("p", "q") and len(found) == 8 and found.labels[-1] is None
    assert data.drop_small_classes(table, 1) is table
    with pytest.raises(ValueError, match="a has 1 class of 4 rows or more: two classes are needed"):
        data.drop_small_classes(table, 4)
