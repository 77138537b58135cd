"""How columns are read, and what is said of it."""

import datetime
import decimal
import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from transmeter.estimators import TransferClassifier
from transmeter.tables import columns, data

NUMBERS = [str(i) for i in range(40, 80)]


def clean(cells, **options):
    """(values of the column, what is said of it) of one column beside another."""
    frame = pd.DataFrame({"x": cells})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        features, readings = columns.clean("t", frame.assign(y=np.arange(len(frame))), **options)
    lines = [str(w.message) for w in caught if w.category is UserWarning]
    assert lines == [f"t: {reading.line}" for reading in readings.values()]
    return features["x"].tolist(), lines[0] if lines else None


@pytest.mark.parametrize("word", ["n/a", "None", "-", ".", "unknown", "#N/A", "1,234", "$1.50", "12 %", "forty"])
def test_one_other_cell_among_numbers_is_missing_and_said(word):
    found, line = clean([*NUMBERS, word])
    assert found[:-1] == list(range(40, 80)) and np.isnan(found[-1])
    assert line == f"t: column 'x' is read as numbers, 1 cell ('{word}') as missing"


@pytest.mark.parametrize("word", ["NA", "N/A", "NaN", "null", "?", "", " "])
def test_the_usual_words_for_missing_are_read_in_silence(word):
    found, line = clean([*NUMBERS, word])
    assert np.isnan(found[-1]) and line is None


def test_missing_words_are_no_share_of_the_cells():
    found, _ = clean(["1", "2", *["unknown"] * 30])
    assert found[:2] == [1, 2] and np.isnan(found[2:]).all()


@pytest.mark.parametrize(
    "cells, values, form",
    [
        (["1,234", "1,234,567", "12"], [1234, 1234567, 12], "numbers with thousands commas"),
        (["1,234.50", "1000"], [1234.5, 1000], "numbers with thousands commas"),
        (["3,5", "4", "1.234,5"], [3.5, 4, 1234.5], "numbers with decimal comma"),
        (["0,125", "0,250"], [0.125, 0.25], "numbers with decimal comma"),
        (["$1.50", "-$2.00", "$ 3"], [1.5, -2, 3], "numbers in $"),
        (["1.50 €", "2 €"], [1.5, 2], "numbers in €"),
        (["USD 1,200.50", "USD 3"], [1200.5, 3], "numbers with thousands commas in USD"),
        (["12 %", "3%"], [12, 3], "numbers in %"),
        (["2024-01-03", "2024-02-01"], [0, 29], "days since 2024-01-03"),
        (["2024-01-03 12:00", "2024-01-03 18:00"], [0, 0.25], "days since 2024-01-03"),
        (["2020/01/31", "2020/02/01"], [0, 1], "days since 2020-01-31"),
        (["31/1/24", "4/1/24"], [27, 0], "days since 2024-01-04"),
        (["1/31/1999", "1/4/1999"], [27, 0], "days since 1999-01-04"),
        (["1.2.2020", "3.2.2020"], [0, 2], "days since 2020-02-01"),
        (["Jan 01, 2020", "Feb 2, 2020"], [0, 32], "days since 2020-01-01"),
        (["1-Jan-20", "2-Feb-20"], [0, 32], "days since 2020-01-01"),
        (pd.to_datetime(["2024-01-03", "2024-02-01"]), [0, 29], "days since 2024-01-03"),
        (pd.to_datetime(["2024-01-03", "2024-02-01"], utc=True), [0, 29], "days since 2024-01-03"),
        (pd.to_timedelta([12, 24], unit="h"), [0.5, 1], "days"),
        (pd.period_range("2024-01", periods=2, freq="M"), [0, 31], "days since 2024-01-01"),
    ],
)
def test_notations_of_numbers_and_dates(cells, values, form):
    assert clean(cells) == (values, f"t: column 'x' is read as {form}")


@pytest.mark.parametrize(
    "cells, reason",
    [
        (["1,234", "2,345", "12"], "'1,234' may be read in two ways: give the decimal mark"),
        (["01234", "90210"], "it holds codes such as '01234'"),
        (["3/1/24", "4/2/24"], "days and months cannot be told apart"),
        (["12-34-5678", "98-76-5432"], None),
        (["1.2.30", "2.3.30"], None),
        (["$1", "2 €", "3"], "3 of 3 cells are numbers, but in several units or notations"),
        (["1", "2", "3+"], "2 of 3 cells are numbers, but '3+'"),
        (["1", "a", "b"], None),
        ([b"\xff\xfe", b"\xff\xfd"], None),
    ],
)
def test_what_stays_text(cells, reason):
    found, line = clean(cells)
    assert len(set(found)) == len(cells) and all(isinstance(v, str) for v in found)
    assert line is None if reason is None else line.startswith(f"t: column 'x' stays text: {reason}")


def test_the_decimal_mark_decides():
    cells = ["1,234", "2,345", "12"]
    assert clean(cells, decimal=",")[0] == [1.234, 2.345, 12] and clean(cells, decimal=".")[0] == [1234, 2345, 12]
    assert clean(["1.234", "5"], decimal=",")[0] == [1234, 5] and clean(["1.5", "5"], decimal=",")[0] == [1.5, 5]


def test_an_index_that_pandas_wrote_is_left_out(tmp_path):
    frame = pd.DataFrame({"x": [5.0, 7, 9, 5], "label": ["p", "q"] * 2}, index=[7, 8, 3, 4])
    frame.to_csv(tmp_path / "a.csv")
    with pytest.warns(UserWarning, match="a: column 'Unnamed: 0' is left out: it numbers the rows"):
        found = data.load(str(tmp_path / "a.csv"))
    assert found.columns == ["x"] and found.notes == ("column 'Unnamed: 0' is left out: it numbers the rows",)


def test_codes_in_a_file_keep_their_zeros(tmp_path):
    (tmp_path / "a.csv").write_text("zip,n,label\n01234,0,p\n90210,10,q\n, 2,p\n")
    with pytest.warns(UserWarning, match="column 'zip' stays text: it holds codes such as '01234'"):
        found = data.load(str(tmp_path / "a.csv"))
    assert list(found.features["zip"]) == ["01234", "90210", None] and list(found.features["n"]) == [0, 10, 2]


ARROW = [
    (pa.int64(), [1, None, 3], [1, np.nan, 3]),
    (pa.bool_(), [True, None, False], [1, np.nan, 0]),
    (pa.decimal128(5, 2), [decimal.Decimal("1.5"), None, None], [1.5, np.nan, np.nan]),
    (pa.string(), ["a", None, "b"], ["a", None, "b"]),
    (pa.dictionary(pa.int32(), pa.string()), ["a", None, "b"], ["a", None, "b"]),
    (pa.timestamp("us", "Asia/Seoul"), [datetime.datetime(2020, 1, d) for d in (1, 2, 4)], [0, 1, 3]),
    (pa.date32(), [datetime.date(2020, 1, d) for d in (1, 2, 4)], [0, 1, 3]),
    (pa.duration("s"), [datetime.timedelta(d) for d in (1, 2, 4)], [1, 2, 4]),
    (pa.time64("us"), [datetime.time(1), None, datetime.time(2)], ["01:00:00", None, "02:00:00"]),
]


@pytest.mark.parametrize("kind, cells, values", ARROW, ids=lambda v: str(v))
def test_arrow_columns_are_read_as_those_of_numpy(kind, cells, values):
    found, _ = clean(pd.Series(pa.array(cells, kind), dtype=pd.ArrowDtype(kind)))
    np.testing.assert_equal(found, values)


def test_nullable_and_categorical_columns():
    assert clean(pd.array([1, 2, None], dtype="Int64"))[0][:2] == [1, 2]
    assert clean(pd.Categorical(["a", None, "b"]))[0] == ["a", None, "b"]


@pytest.mark.filterwarnings("ignore:t:UserWarning")
def test_other_rows_are_read_as_those_of_the_table():
    frame = pd.DataFrame({"price": ["$1,000.50", "$2"], "day": ["2024-01-01", "2024-01-03"], "zip": ["01", "02"]})
    table = data.table("t", frame, np.array(["p", "q"]))
    rows = pd.DataFrame({"day": ["2024-02-01", "n/a"], "price": ["$3", "-"], "zip": ["7", None], "other": [1, 2]})
    found = data.rows_like(table, "rows", rows)
    np.testing.assert_equal(found.to_dict("list"), {"price": [3, np.nan], "day": [31, np.nan], "zip": ["7", None]})
    with pytest.raises(ValueError, match="column 'price' of rows holds '3 €', but was learned as numbers"):
        data.rows_like(table, "rows", rows.assign(price=["$3", "3 €"]))
    with pytest.raises(ValueError, match="column 'day' of rows holds 'soon', but was learned as days"):
        data.rows_like(table, "rows", rows.assign(day="soon"))


@pytest.mark.filterwarnings("ignore:X:UserWarning")
def test_a_classifier_reads_new_rows_as_it_learned_them(tmp_path):
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    dates = pd.Timestamp("2024-01-01") + pd.to_timedelta(20 * y + rng.integers(0, 9, 40), unit="D")
    rows = pd.DataFrame({"day": dates.astype(str), "share": [f"{v} %" for v in 50 * y + rng.integers(0, 9, 40)]})
    fitted = TransferClassifier().fit(rows, y)
    fitted.save(tmp_path / "c")
    restored = TransferClassifier.load(tmp_path / "c")
    assert (restored.predict(rows.iloc[30:]) == y[30:]).all() and (fitted.predict(rows.iloc[30:]) == y[30:]).all()


def test_many_notes_are_one_line():
    frame = pd.DataFrame({f"c{i}": [*NUMBERS, "-"] for i in range(5)})
    with pytest.warns(UserWarning) as caught:
        _, readings = columns.clean("t", frame)
    assert len(caught) == 1 and str(caught[0].message).endswith("; and 2 more, see --verbose") and len(readings) == 5
