"""Reading tables and encoding their columns."""

import gzip

import numpy as np
import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from transmeter.tables import data, encoding, inputs, specs


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
    assert specs.parse(f"mine={path}::outcome") == ("mine", path, "outcome")
    assert data.load(f"mine={path}::outcome").name == "mine"
    assert data.load(str(path), "outcome").name == "b"
    with pytest.raises(ValueError, match="no label column 'label'.*--label.*outcome"):
        data.load(str(path))
    with pytest.raises(ValueError, match="no label column 'lable'"):
        data.load(str(path), "lable")
    with pytest.raises(
        ValueError, match="has no label column 'outcme', did you mean 'outcome'.* and none called 'label'"
    ):
        data.load(str(path), "outcme", strict=False)
    assert data.load(str(write(frame, tmp_path / "c.csv")), "outcome", strict=False).classes == ("no", "yes")


def test_labels_compare_as_text():
    features = pd.DataFrame({"x": range(6)})
    floats = data.table("a", features, np.array([0.0, 1.0, np.nan, 1.0, 0.0, 1.0]))
    texts = data.table("a", features, np.array(["0", "1", "", "1.0", " 0", "1"], dtype=object))
    assert floats.classes == texts.classes == ("0", "1")
    assert list(floats.codes) == list(texts.codes) == [0, 1, -1, 1, 0, 1]


@pytest.mark.parametrize(
    "column, message",
    [
        ([1.0, np.inf, 2.0, 3.0], "infinite"),
        (["1", "inf", "2", "3"], "infinite"),
        ([[1], [2, 3], [3], [4]], "lists of 1 to 2: give lists of one length"),
        ([[1], [2], "3", [4]], "lists beside other values"),
        ([["a"], ["b"], ["c"], ["d"]], "lists of other things than numbers"),
        ([[[1, 2]], [[3, 4]], [[5, 6]], [[7, 8]]], "lists of other things than numbers"),
        ([{"a": 1}, {"a": 2}, {"a": 3}, {"a": 4}], "nested"),
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
        ([f"patient {i}" for i in range(50)], "50 different labels in 50 rows: give classes, not names"),
    ],
)
def test_labels_that_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        data.table("a", pd.DataFrame({"x": range(50)}), np.array(labels, dtype=object))


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.csv", b"", "no rows"),
        ("a.csv", b"x,label\n", "no rows"),
        ("a.csv", "x,label\n\xe9,1\n".encode("latin-1"), "not UTF-8"),
        ("a.xlsx", b"PK", "no known format"),
        ("a.csv.gz", b"no gzip", "cannot be read"),
        ("a.arff", b"@relation r\n@attribute d date\n@data\n", "a.arff"),
        ("a.parquet", b"nothing", "cannot be read"),
        ("a.jsonl", b"", "no rows"),
        ("a.jsonl", b'{"x": 1, "label": 0}\n{"x": ', "a.jsonl cannot be read"),
        ("a.jsonl", '{"x": "\xe9", "label": 0}\n'.encode("latin-1"), "a.jsonl"),
        ("a.npz", b"", "no npz archive"),
        ("a.npz", b"PK\x03\x04 nothing", "no npz archive"),
        ("a.csv", b"x,y,label\n,,1\n,,0\n", "no column that varies"),
        ("a.csv", b"x,y\n1,2\n", "no label column 'label'"),
    ],
)
def test_files_that_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        data.load(str(tmp_path / name))


def test_a_bad_source_among_good_ones_is_listed_a_missing_one_refused(frame, tmp_path):
    good = write(frame, tmp_path / "good.csv")
    (tmp_path / "empty.csv").write_bytes(b"")
    found = inputs.as_tables([str(good), str(tmp_path / "empty.csv")])
    assert isinstance(found[0], data.Table) and found[1].name == "empty"
    with pytest.raises(ValueError, match="does not exist"):
        inputs.as_tables([str(tmp_path / "none.csv")])
    with pytest.raises(ValueError, match="two sources are called 'good'"):
        inputs.as_tables([str(good), str(good)])


def test_encoder_looks_at_its_rows_only_and_keeps_its_width(frame):
    table = data.table("a", frame.drop(columns="label"), frame["label"])
    encoder = encoding.Encoder(table.features.iloc[:30])
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
    assert len(encoding.Encoder(table.features).names) <= encoding.MAX_CATEGORIES + 1


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
    encoded = encoding.Encoder(table.features)(table.features)
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


@pytest.mark.parametrize("head", ["a,a,label", "a ,a,label"])
def test_two_columns_of_one_name_are_refused(head, tmp_path):
    (tmp_path / "a.csv").write_text(f"{head}\n1,2,x\n3,4,y\n")
    with pytest.raises(ValueError, match="two columns called 'a'"):
        data.load(str(tmp_path / "a.csv"))


def test_columns_match_by_name_and_categories_exactly():
    from transmeter.tables.matching import shared_features

    assert shared_features(["Chest Pain=4", "возраст"], ["chest_pain=4", "давление"]) == [(0, 0)]
    assert shared_features(["x=<200", "a=-1"], ["x=>=200", "a=1"]) == []


def test_lines_of_json_with_texts_numbers_and_embeddings(tmp_path):
    lines = [
        '{"text": "001", "n": 1.5, "e": [1, 2], "label": "p"}',
        '{"text": "b", "n": null, "e": [3, 4], "label": "q"}',
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    found = data.load(str(tmp_path / "a.jsonl"))
    assert found.name == "a" and found.columns == ["text", "n", "e 0", "e 1"] and found.classes == ("p", "q")
    assert list(found.features["text"]) == ["001", "b"] and list(found.features["e 1"]) == [2, 4]


@pytest.mark.parametrize("kind", ["parquet", "folder"])
def test_embeddings_become_columns(tmp_path, kind):
    frame = pd.DataFrame({"e": [[1.0, 2.0], None, [5.0, 6.0]], "label": ["p", "q", "p"]})
    if kind == "parquet":
        frame.to_parquet(tmp_path / "a.parquet")
    else:
        Dataset.from_pandas(frame).save_to_disk(tmp_path / "a.parquet")
    found = data.load(str(tmp_path / "a.parquet"))
    np.testing.assert_array_equal(found.features.to_numpy(), [[1, 2], [np.nan, np.nan], [5, 6]])
    with pytest.raises(ValueError, match="two columns called 'e 0'"):
        data.table("a", pd.DataFrame({"e 0": [1, 2], "e": [[1], [2]]}), np.array(["p", "q"]))


def test_arrays_are_read_and_pickles_refused(tmp_path):
    path, x, y = tmp_path / "a.npz", np.arange(8.0).reshape(4, 2), np.array(["p", "q", "p", "q"])
    np.savez(path, features=x, labels=y)
    assert data.load(str(path)).columns == ["f0", "f1"]
    np.savez_compressed(path, features=x, labels=y, columns=np.array(["width", "height"]))
    found = data.load(f"b={path}")
    assert found.name == "b" and found.columns == ["width", "height"] and found.classes == ("p", "q")
    for arrays, message in (
        ({"features": x.astype(object), "labels": y}, "pickled objects, which are not opened"),
        ({"features": x}, "lacks the array features or labels"),
        ({"features": x, "labels": y[:3]}, r"do not fit .*labels \(3,\)"),
        ({"features": x[0], "labels": y}, "do not fit"),
        ({"features": x, "labels": y, "columns": np.array(["a"])}, "do not fit"),
    ):
        np.savez(path, **arrays)
        with pytest.raises(ValueError, match=message):
            data.load(str(path))


def test_a_quantity_is_kept_and_cut_at_its_own_terciles():
    def cut(values):
        with pytest.warns(UserWarning, match=r"a: the label is a quantity of \d+ values from 0 to 1; where classes"):
            return data.table("a", pd.DataFrame({"x": range(len(values))}), np.array(values, dtype=object))

    found = cut([*np.linspace(0, 1, 60), None])
    assert found.classes == ("high", "low", "middle") and found.codes[-1] == -1
    assert [(found.labels == c).sum() for c in ("low", "middle", "high")] == [20, 20, 20]
    assert found.labels[0] == "low" and found.labels[59] == "high"
    np.testing.assert_allclose(found.quantity, [*np.linspace(0, 1, 60), np.nan])
    np.testing.assert_allclose(found.take(np.array([60, 1])).quantity, [np.nan, 1 / 59])
    repeated = cut([0.0] * 70 + list(np.linspace(0.1, 1, 30)))
    assert set(repeated.labels[:70]) == {"low"} and repeated.classes == ("high", "low")
    assert (cut([*np.linspace(0, 0.9, 30), *[1.0] * 70]).labels == "high").sum() == 70


def test_keys_are_no_features_and_stay_with_their_rows(frame, tmp_path):
    path = write(frame.assign(patient=np.arange(60.0)), tmp_path / "a.csv")
    found = data.load(str(path), key="patient")
    assert found.columns == ["age", "town", "member"] and list(found.keys[:3]) == ["0", "1", "2"]
    assert list(found.take(np.array([4, 2])).keys) == ["4", "2"]
    plain = str(write(frame, tmp_path / "b.csv"))
    assert inputs.as_tables([plain], key="patient")[0].keys is None
    with pytest.raises(ValueError, match="no key column 'patient'"):
        data.load(plain, key="patient")


@pytest.mark.filterwarnings("error::pandas.errors.PerformanceWarning")  # of columns that are put in one by one
def test_many_columns_are_read(tmp_path):
    rng = np.random.default_rng(0)
    genes = pd.DataFrame(rng.normal(size=(40, 1600)).round(3)).add_prefix("gene ")
    levels = pd.DataFrame(rng.choice(["low", "high"], (40, 400))).add_prefix("level ")
    path = write(pd.concat([genes, levels], axis=1).assign(label=np.arange(40) % 2), tmp_path / "wide.csv")
    table = data.load(str(path))
    assert list(table.columns) == [*genes, *levels]
    np.testing.assert_allclose(table.features[genes.columns].to_numpy(), genes.to_numpy())


def test_a_long_table_is_sampled_before_its_columns_are_parsed(tmp_path):
    n = 1_000_000
    frame = pd.DataFrame({"x": np.arange(n), "town": np.where(np.arange(n) % 3, "Seoul", "Busan"), "label": None})
    frame["label"] = frame["label"].astype(object)
    frame.loc[::100_000, "label"] = ["p", "q"] * 5
    frame.to_parquet(tmp_path / "long.parquet")
    with pytest.warns(UserWarning, match="long: 20000 of 1000000 rows are used"):
        found = data.load(str(tmp_path / "long.parquet"))
    assert len(found) == 20_000 and (found.codes >= 0).sum() == 10  # the few labelled rows are kept
    assert found.features["x"].is_monotonic_increasing


def test_what_unpacks_to_more_than_fits_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    frame = pd.DataFrame({"x": np.arange(3000) % 7, "label": np.arange(3000) % 2})
    frame.to_csv(tmp_path / "a.csv.gz", index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    np.savez_compressed(tmp_path / "a.npz", features=np.zeros((3000, 4)), labels=frame["label"])
    for name in ("a.csv.gz", "a.parquet", "a.npz"):
        with monkeypatch.context() as limit:
            limit.setattr("transmeter.tables.files.UNPACKED", 5000)
            with pytest.raises(ValueError, match="holds more than 5,000 bytes when unpacked: give a sample"):
                data.load(str(tmp_path / name))
    assert len(data.load(str(tmp_path / "a.csv.gz"))) == 3000
