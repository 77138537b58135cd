"""Reading tables and encoding their columns."""

import gzip

import numpy as np
import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from transmeter import data


def write(frame, path):
    """Write `frame` in the format that the name of `path` says."""
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".arff":
        lines = [
            "@relation r",
            "@attribute age numeric",
            "@attribute town {Seoul,Busan}",
            "@attribute member {True,False}",
            "@attribute label {yes,no}",
            "@data",
        ]
        rows = frame.astype(object).where(frame.notna(), "?").astype(str).agg(",".join, axis=1)
        path.write_text("\n".join([*lines, *rows]))
    else:
        frame.to_csv(path, index=False, sep="\t" if ".tsv" in path.name else ",")
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.tsv", "a.parquet", "a.arff"])
def test_every_format_gives_the_same_table(frame, tmp_path, name):
    expected = data.table("a", frame.drop(columns="label"), frame["label"])
    found = data.load(str(write(frame, tmp_path / name)))
    assert found.name == "a"
    assert found.classes == ("no", "yes")
    assert list(found.labels) == list(expected.labels)
    assert found.columns == ["age", "town", "member"]
    np.testing.assert_allclose(found.features["age"], expected.features["age"], rtol=1e-12)
    assert list(found.features["town"]) == list(expected.features["town"])


def test_saved_data_set_folder_with_class_labels(frame, tmp_path):
    plain = frame[["age", "town"]].assign(label=(frame["label"] == "yes").astype(int))
    features = Features({"age": Value("float64"), "town": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    Dataset.from_pandas(plain, features=features, preserve_index=False).save_to_disk(tmp_path / "d")
    found = data.load(str(tmp_path / "d"))
    assert found.name == "d" and found.classes == ("no", "yes")


def test_names_and_label_columns(frame, tmp_path):
    path = write(frame.rename(columns={"label": "outcome"}), tmp_path / "b.csv.gz")
    assert data.parse(f"mine={path}::outcome") == ("mine", path, "outcome")
    assert data.load(f"mine={path}::outcome").name == "mine"
    assert data.load(str(path), "outcome").name == "b"
    with pytest.raises(ValueError, match="no label column 'label'.*--label.*outcome"):
        data.load(str(path))
    with pytest.raises(ValueError, match="no label column 'lable'"):
        data.load(str(path), "lable")


def test_labels_compare_as_text():
    features = pd.DataFrame({"x": range(6)})
    floats = data.table("a", features, np.array([0.0, 1.0, np.nan, 1.0, 0.0, 1.0]))
    texts = data.table("a", features, np.array(["0", "1", "", "1.0", " 0", "1"], dtype=object))
    assert floats.classes == texts.classes == ("0", "1")
    assert list(floats.codes) == list(texts.codes) == [0, 1, -1, 1, 0, 1]


@pytest.mark.parametrize(
    "column, message",
    [
        (pd.to_datetime(["2024-01-03", "2024-02-01", "2024-03-01", "2024-04-01"]), "dates"),
        (["2024-01-03", "2024-02-01", "2024-03-01", "2024-04-01"], "dates"),
        (["3/1/24", "4/1/24", "5/1/24", "6/1/24"], "dates"),
        (["2020/01/31", "2020/02/01", "2020/03/01", ""], "dates"),
        (["Jan 01, 2020", "Feb 2, 2020", "Mar 3, 2020", None], "dates"),
        ([1.0, np.inf, 2.0, 3.0], "infinite"),
        (["1", "inf", "2", "3"], "infinite"),
        ([[1], [2], [3], [4]], "lists"),
        ([7, 7, 7, 7], "no column that varies"),
        ([None] * 4, "no column that varies"),
    ],
)
def test_columns_that_are_refused(column, message):
    with pytest.raises(ValueError, match=message):
        data.table("a", pd.DataFrame({"x": column}), np.array(["p", "q", "p", "q"]))


@pytest.mark.parametrize(
    "labels, message",
    [
        (["p"] * 50, "only the class 'p'"),
        ([None] * 50, "no labelled row"),
        (np.linspace(0, 1, 50), "give classes, not a quantity"),
    ],
)
def test_labels_that_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        data.table("a", pd.DataFrame({"x": range(50)}), np.array(labels, dtype=object))


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.csv", b"", "cannot be read"),
        ("a.csv", b"x,label\n", "no rows"),
        ("a.csv", "x,label\n\xe9,1\n".encode("latin-1"), "not UTF-8"),
        ("a.xlsx", b"PK", "no known format"),
        ("a.csv.gz", b"no gzip", "cannot be read"),
        ("a.arff", b"@relation r\n@attribute d date\n@data\n", "a.arff"),
        ("a.parquet", b"nothing", "cannot be read"),
    ],
)
def test_files_that_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        data.load(str(tmp_path / name))


def test_a_bad_source_among_good_ones_is_listed_a_missing_one_refused(frame, tmp_path):
    good = write(frame, tmp_path / "good.csv")
    (tmp_path / "empty.csv").write_bytes(b"")
    found = data.load_all([str(good), str(tmp_path / "empty.csv")])
    assert isinstance(found[0], data.Table) and found[1].name == "empty"
    with pytest.raises(ValueError, match="does not exist"):
        data.load_all([str(tmp_path / "none.csv")])
    with pytest.raises(ValueError, match="two sources are called 'good'"):
        data.load_all([str(good), str(good)])


def test_encoder_looks_at_its_rows_only_and_keeps_its_width(frame):
    table = data.table("a", frame.drop(columns="label"), frame["label"])
    encoder = data.Encoder(table.features.iloc[:30])
    changed = table.features.copy()
    changed.loc[30:, "age"], changed.loc[30:, "town"] = 1e6, "Daegu"
    np.testing.assert_array_equal(encoder(table.features)[:30], encoder(changed)[:30])
    assert encoder(changed).shape == (60, len(encoder.names))
    assert np.isfinite(encoder(changed)).all() and encoder(changed).max() <= 10
    column = encoder(table.features.iloc[:30])[:, encoder.names.index("age")]
    assert abs(column.mean()) < 1e-5 and abs(column.std() - 1) < 1e-5


def test_many_categories_share_a_column():
    features = pd.DataFrame({"id": [f"row {i}" for i in range(500)], "x": np.arange(500.0)})
    table = data.table("a", features, np.arange(500) % 2)
    assert len(data.Encoder(table.features).names) <= data.MAX_CATEGORIES + 1


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.floats(-1e9, 1e9), st.integers(-5, 5)),
            st.one_of(st.none(), st.text(max_size=8), st.booleans()),
            st.sampled_from(["a", "b", 1, 1.0, "", None]),
        ),
        min_size=4,
        max_size=40,
    )
)
def test_any_mixed_table_is_encoded_or_refused_in_words(rows):
    frame = pd.DataFrame(rows, columns=["x", "y", "label"])
    try:
        table = data.table("t", frame[["x", "y"]], frame["label"])
    except ValueError as error:
        assert len(str(error).splitlines()) == 1
        return
    encoded = data.Encoder(table.features)(table.features)
    assert encoded.shape[0] == len(rows) and np.isfinite(encoded).all()


def test_gzip_is_really_read(frame, tmp_path):
    path = tmp_path / "z.csv.gz"
    path.write_bytes(gzip.compress(frame.to_csv(index=False).encode()))
    assert len(data.load(str(path))) == 60


def test_words_for_missing_are_labels_in_the_label_column_and_missing_elsewhere(tmp_path):
    rows = [
        f"{x},{flag},{label}"
        for x, flag, label in zip(
            "1 2 NA 4 ? 6".split(), "true  true false false true".split(" "), ["None", "NA", "mild"] * 2
        )
    ]
    (tmp_path / "a.csv").write_text("\n".join(["x,flag,label", *rows]))
    found = data.load(str(tmp_path / "a.csv"))
    assert found.classes == ("NA", "None", "mild")
    assert found.features["x"].isna().sum() == 2 and found.features["flag"].dtype == float
    assert found.features["flag"].isna().sum() == 1


def test_two_columns_of_one_name_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("a ,a,label\n1,2,x\n3,4,y\n")
    with pytest.raises(ValueError, match="two columns called 'a'"):
        data.load(str(tmp_path / "a.csv"))


def test_columns_match_by_name_and_categories_exactly():
    from transmeter.matching import shared_features

    assert shared_features(["Chest Pain=4", "возраст"], ["chest_pain=4", "давление"]) == [(0, 0)]
    assert shared_features(["x=<200", "a=-1"], ["x=>=200", "a=1"]) == []
