"""Data frames of other kinds than pandas' own, and what their files say of classes and indices."""

import datetime
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

import transmeter
from transmeter.tables import data, inputs


def test_the_index_of_a_parquet_file_is_a_feature_or_the_label(tmp_path):
    frame = pd.DataFrame({"x": [1.0, 2, 3, 4], "age": [5.0, 5, 7, 8], "label": ["p", "q"] * 2})
    frame.set_index("age").to_parquet(tmp_path / "a.parquet")
    assert sorted(data.load(str(tmp_path / "a.parquet")).columns) == ["age", "x"]
    frame.set_index("label").to_parquet(tmp_path / "b.parquet")
    assert data.load(str(tmp_path / "b.parquet")).classes == ("p", "q")
    assert data.from_frame("b", frame.set_index("label")).classes == ("p", "q")


@pytest.mark.parametrize("names", [["no", "yes"], {"0": "no", "1": "yes"}])
def test_names_of_classes_beside_lists(tmp_path, names):
    kinds = {"e": [{"dtype": "float32", "_type": "Value"}], "label": {"names": names, "_type": "ClassLabel"}}
    table = pa.table({"e": [[1.0, 2.0], [3.0, 4.0]], "label": [0, 1]})
    about = {"huggingface": json.dumps({"info": {"features": kinds}})}
    pq.write_table(table.replace_schema_metadata(about), tmp_path / "a.parquet")
    assert data.load(str(tmp_path / "a.parquet")).classes == ("no", "yes")


def test_a_data_set_with_a_format_has_all_its_columns(tmp_path):
    kinds = Features({"x": Value("float32"), "e": List(Value("float32")), "label": ClassLabel(names=["no", "yes"])})
    rows = {"x": [0.0, 1.0], "e": [[1.0, 2.0], [3.0, 4.0]], "label": [0, 1]}
    given = Dataset.from_dict(rows, features=kinds).with_format("numpy", columns=["x"])
    given.save_to_disk(tmp_path / "d")
    for found in (data.load(str(tmp_path / "d")), inputs.as_table(given)):
        assert found.columns == ["x", "e 0", "e 1"] and found.classes == ("no", "yes")


class Frame:
    """What polars' data frames have to offer."""

    def __init__(self, frame):
        self.frame = frame

    def to_pandas(self):
        """The pandas data frame."""
        return self.frame


@pytest.mark.parametrize("kind", [Frame, pa.Table.from_pandas])
def test_frames_of_other_libraries(kind):
    frame = pd.DataFrame({"x": [1.0, 2.0], "town": ["a", None], "label": ["p", "q"]})
    found = inputs.as_table(kind(frame), "t")
    assert found.columns == ["x", "town"] and found.classes == ("p", "q")
    pair = inputs.as_table((kind(frame[["x", "town"]]), frame["label"]), "t")
    pd.testing.assert_frame_equal(pair.features, found.features)


def test_arrow_backed_frames_have_the_same_table(frame):
    arrow = frame.convert_dtypes(dtype_backend="pyarrow")
    expected, found = data.from_frame("t", frame), data.from_frame("t", arrow)
    pd.testing.assert_frame_equal(found.features, expected.features)
    assert list(found.labels) == list(expected.labels)


def test_labels_of_a_pair():
    x = np.arange(8.0).reshape(4, 2)
    assert inputs.as_table((x, np.array([0.1, 0.2] * 2, dtype=np.float32))).classes == ("0.1", "0.2")
    assert inputs.as_table((x, ["p", None, "q", None])).classes == ("p", "q")
    keys = np.array([bytes([255, i]) for i in range(12)], dtype=object)
    assert len(set(data.label_texts(keys))) == 12


def test_frames_of_polars_are_those_of_pandas(root):
    polars = pytest.importorskip("polars")
    paths = [root / f"data/tabular/heart_{n}.csv" for n in ("va", "hungarian")]
    target, source = map(polars.read_csv, paths)
    frame = pd.read_csv(paths[0])
    settings = {"scorer": "knn", "seed": 1}
    expected = transmeter.rank(frame, {"s": paths[1]}, **settings).rows[0]
    found = transmeter.rank(target, {"s": source}, **settings).rows[0]
    assert found.score == expected.score and found.matches == expected.matches
    assert transmeter.check(target, [source]).target.columns == transmeter.check(frame).target.columns
    x, y = target.drop("label"), target["label"]
    plain = transmeter.TransferClassifier(paths[1]).fit(frame.drop(columns="label"), frame["label"])
    fitted = transmeter.TransferClassifier(source).fit(x, y)
    np.testing.assert_array_equal(fitted.predict_proba(x), plain.predict_proba(x))
    result = transmeter.transfer(target, source, repeats=2, predict=x[:5])
    assert len(result.predictions) == 5


def test_estimators_take_data_sets_with_classes_by_their_names(frame):
    datasets = pytest.importorskip("datasets")
    frame = frame.dropna()
    town, known = frame["town"].astype(str), frame.drop(columns="label")
    names = sorted(set(town))
    coded = datasets.Dataset.from_pandas(known.assign(town=town.map(names.index)), preserve_index=False)
    coded = coded.cast_column("town", datasets.ClassLabel(names=names))
    plain = transmeter.TransferClassifier().fit(known, frame["label"])
    found = transmeter.TransferClassifier().fit(coded, frame["label"].tolist())
    np.testing.assert_array_equal(found.predict_proba(coded), plain.predict_proba(known))


def test_what_is_no_table_yet_is_refused_with_the_remedy(frame):
    polars, datasets = pytest.importorskip("polars"), pytest.importorskip("datasets")
    lazy = polars.from_pandas(frame).lazy()
    splits = datasets.DatasetDict(train=datasets.Dataset.from_pandas(frame))
    told = r"target is a LazyFrame: collect it first: frame\.collect\(\)$"
    with pytest.raises(ValueError, match=told):
        transmeter.rank(lazy, {"s": frame})
    with pytest.raises(ValueError, match=r"X is a LazyFrame: collect it first"):
        transmeter.TransferClassifier().fit(lazy, frame["label"])
    with pytest.raises(ValueError, match=r"target is a DatasetDict: give one of its splits, such as data\['train'\]$"):
        transmeter.rank(splits, {"s": frame})


@pytest.mark.filterwarnings("ignore")
def test_columns_of_polars():
    polars = pytest.importorskip("polars")
    columns = {
        "number": ([1, None, 3, 4], polars.Int32, [1, np.nan, 3, 4]),
        "yes": ([True, False, None, True], polars.Boolean, [1, 0, np.nan, 1]),
        "word": (["a", "b", None, "a"], polars.Categorical, ["a", "b", None, "a"]),
        "day": ([datetime.date(2024, 1, d) for d in (1, 3, 5, 7)], polars.Date, [0, 2, 4, 6]),
        "price": ([1.5, 2.5, 3.5, 4.5], polars.Decimal(10, 2), [1.5, 2.5, 3.5, 4.5]),
    }
    frame = polars.DataFrame([polars.Series(n, v, dtype=t, strict=False) for n, (v, t, _) in columns.items()])
    found = inputs.as_table((frame, polars.Series(["p", "q"] * 2)), "t")
    expected = {n: pd.Series(v, dtype=object if n == "word" else float) for n, (_, _, v) in columns.items()}
    pd.testing.assert_frame_equal(found.features, pd.DataFrame(expected))
