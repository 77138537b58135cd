"""Small files as people have them, drawn from one seed: each is read as its writer meant it, or refused in one line."""

import gzip
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from datasets import ClassLabel, Dataset, Features, Value

import transmeter
from tests.conftest import DATA
from transmeter.tables import inputs
from transmeter.tables.formats import delimited
from transmeter.tables.labels import text_of
from transmeter.tables.specs import Dialect

ROWS = 40
RNG = np.random.default_rng(18)
X = RNG.normal(50, 20, ROWS).round(2)
N = RNG.integers(1000, 2_000_000, ROWS).astype(float)
TOWN = RNG.choice(["Rom", "Köln", "Łódź"], ROWS).tolist()
DAYS = np.sort(RNG.integers(0, 900, ROWS)).astype(float)
DAYS -= DAYS[0]
DATES = [pd.Timestamp("2021-03-25") + pd.Timedelta(days=d) for d in DAYS]
Y = ["no", "yes"] * (ROWS // 2)
GAP = 7  # the row whose cell is another word than a number


def read(path, dialect=None):
    """(table, lines of warnings) of a file or of what else a user has."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = inputs.as_table(str(path) if isinstance(path, Path) else path, dialect=dialect or Dialect())
    return found, [str(w.message) for w in caught]


def csv(**columns):
    """The text of a csv file with the label last."""
    return pd.DataFrame(columns).assign(label=Y).to_csv(index=False)


def gap(cells, word):
    """The cells, one of them another word."""
    return [word if i == GAP else str(cell) for i, cell in enumerate(cells)]


X_GAP = np.where(np.arange(ROWS) == GAP, np.nan, X)
N_COMMAS = [f"{n:,.0f}" for n in N]
COLUMNS = {
    **{f"'{w}' among numbers": (gap(X, w), X_GAP, f"1 cell ('{w}') as missing") for w in ("n/a", "None", "-", ".")},
    **{f"{w} among numbers": (gap(X, w), X_GAP, f"1 cell ('{w}') as missing") for w in ("unknown", "#N/A", "$1.5")},
    **{f"'{w}' for missing": (gap(X, w), X_GAP, None) for w in ("NA", "N/A", "?", "", "null", "NaN")},
    "thousands commas": (N_COMMAS, N, "numbers with thousands commas"),
    "decimal comma": ([f"{x:.2f}".replace(".", ",") for x in X], X, "numbers with decimal comma"),
    "points and decimal comma": (
        [f"{n + 0.25:,.2f}".translate(str.maketrans(",.", ".,")) for n in N],
        N + 0.25,
        "numbers with decimal comma",
    ),
    "either mark": (["1,234"] * 20 + ["5,678"] * 20, ["1,234"] * 20 + ["5,678"] * 20, "may be read in two ways"),
    "dollars": ([f"${n:,.2f}" for n in N], N, "numbers with thousands commas in $"),
    "euros behind": ([f"{x:.2f} €" for x in X], X, "numbers in €"),
    "percent": ([f"{x} %" for x in X], X, "numbers in %"),
    "spaces between thousands": ([f"{n:,.0f}".replace(",", "\u202f") for n in N], N, "numbers, digits in groups"),
    "spaces and decimal comma": (
        [f"{n + 0.5:,.1f}".translate(str.maketrans(",.", " ,")) for n in N],
        N + 0.5,
        "numbers with decimal comma, digits in groups",
    ),
    "apostrophes of the Swiss": ([f"{n:,.0f}".replace(",", "'") for n in N], N, "numbers, digits in groups"),
    "kilograms": ([f"{x} kg" for x in X], X, "numbers in kg"),
    "milligrams per decilitre": ([f"{x}mg/dl" for x in X], X, "numbers in mg/dl"),
    "square metres": ([f"{x} m²" for x in X], X, "numbers in m²"),
    "brackets of accountants": ([f"(${n:,.0f})" for n in N], -N, "thousands commas in $, in brackets below zero"),
    "limits of detection": (
        [f"<{x}" if i % 10 == 0 else str(x) for i, x in enumerate(X)],
        [f"<{x}" if i % 10 == 0 else text_of(x) for i, x in enumerate(X)],
        "stays text: 36 of 40 cells are numbers, but '<",
    ),
    "true and false with gaps": (["TRUE", "False", "n/a", "true"] * 10, [1, 0, np.nan, 1] * 10, "10 cells ('n/a')"),
    "positions": (["1 2 3", "4 5 6"] * 20, ["1 2 3", "4 5 6"] * 20, None),
    "minus signs of typesetters": ([f"\N{MINUS SIGN}{x}" for x in X], -X, None),
    "exponents": ([f"{x:.6e}" for x in X], X, None),
    "spaces around": ([f"  {x} " for x in X], X, None),
    "true and false": (["TRUE", "false"] * 20, [1, 0] * 20, None),
    "yes and no": (["yes", "No"] * 20, ["yes", "No"] * 20, None),
    "codes": ([f"0{i:04}" for i in range(ROWS)], [f"0{i:04}" for i in range(ROWS)], "codes such as '00000'"),
    "umlauts": (TOWN, TOWN, None),
    "ISO dates": ([f"{d:%Y-%m-%d}" for d in DATES], DAYS, "days since 2021-03-25"),
    "ISO dates with a gap": (
        gap([f"{d:%Y-%m-%d}" for d in DATES], "n/a"),
        np.where(np.arange(ROWS) == GAP, np.nan, DAYS),
        "1 cell ('n/a') as missing",
    ),
    "times": ([f"{d:%Y-%m-%dT12:00:00Z}" for d in DATES], DAYS, "days since 2021-03-25"),
    "German dates": ([f"{d:%d.%m.%Y}" for d in DATES], DAYS, "days since 2021-03-25"),
    "American dates": ([f"{d:%m/%d/%Y}" for d in DATES], DAYS, "days since 2021-03-25"),
    "named months": ([f"{d:%b %d, %Y}" for d in DATES], DAYS, "days since 2021-03-25"),
    "days or months": (["01/02/2024", "03/04/2024"] * 20, ["01/02/2024", "03/04/2024"] * 20, "cannot be told apart"),
    "social security numbers": (["12-34-5678", "98-76-5432"] * 20, ["12-34-5678", "98-76-5432"] * 20, None),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_columns(tmp_path, kind):
    cells, expected, line = COLUMNS[kind]
    (tmp_path / "a.csv").write_text(csv(c=cells, n=N), encoding="utf-8")
    found, lines = read(tmp_path / "a.csv")
    if isinstance(expected[0], str):
        assert found.features["c"].tolist() == expected
    else:
        np.testing.assert_allclose(found.features["c"].to_numpy(dtype=float), expected)
    np.testing.assert_array_equal(found.features["n"], N)
    assert list(found.labels) == Y and len(found.notes) == len(lines) == (line is not None)
    assert line is None or (line in lines[0] and line in found.notes[0])


FRAME = pd.DataFrame({"x": X, "town": TOWN, "label": Y})


def write_text(path, text, encoding="utf-8"):
    """The path of a new file."""
    path.write_bytes(text.encode(encoding))
    return path


def write_arff(path):
    """The frame, with cells that need quotes."""
    head = "@relation r\n@attribute x real\n@attribute town string\n@attribute label {no,yes}\n@data\n"
    return write_text(path, head + "".join(f"{x},'{t}',{y}\n" for x, t, y in zip(X, TOWN, Y)))


def write_parquet(path, frame=FRAME):
    """The path of a new file."""
    frame.to_parquet(path)
    return path


def write_zipped(path):
    """The path of a new file."""
    path.write_bytes(gzip.compress(FRAME.to_csv(index=False).encode()))
    return path


def write_folder(path):
    """A saved data set whose format hides a column."""
    kinds = Features({"x": Value("float64"), "town": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    frame = FRAME.assign(label=[int(y == "yes") for y in Y])
    made = Dataset.from_pandas(frame, features=kinds, preserve_index=False)
    made.with_format("numpy", columns=["x"]).save_to_disk(path)
    return path


def row_names(frame):
    """As R writes a table: no name above the names of rows."""
    return frame.set_index("r" + frame.index.astype(str).to_numpy()).to_csv(index=True).lstrip(",")


SOURCES = {  # what a user has: (it, what is said)
    "csv": (lambda p: write_text(p / "a.csv", FRAME.to_csv(index=False)), None),
    "mark of UTF-8": (lambda p: write_text(p / "a.csv", FRAME.to_csv(index=False), "utf-8-sig"), None),
    "UTF-16": (lambda p: write_text(p / "a.csv", FRAME.to_csv(index=False), "utf-16"), None),
    "lines of Windows": (lambda p: write_text(p / "a.csv", FRAME.to_csv(index=False, lineterminator="\r\n")), None),
    "all in quotes": (lambda p: write_text(p / "a.csv", FRAME.to_csv(index=False, quoting=1)), None),
    "empty lines": (lambda p: write_text(p / "a.csv", "\n" + FRAME.to_csv(index=False).replace("\n", "\n\n")), None),
    "gzip": (lambda p: write_zipped(p / "a.csv.gz"), None),
    "tsv": (lambda p: write_text(p / "a.tsv", FRAME.to_csv(index=False, sep="\t")), None),
    "semicolons": (lambda p: write_text(p / "a.csv", FRAME.to_csv(index=False, sep=";")), "separated by ';'"),
    "bars": (lambda p: write_text(p / "a.csv", FRAME.to_csv(index=False, sep="|")), "separated by '|'"),
    "tabs in csv": (lambda p: write_text(p / "a.csv", FRAME.to_csv(index=False, sep="\t")), r"separated by '\t'"),
    "German": (
        lambda p: write_text(p / "a.csv", FRAME.to_csv(index=False, sep=";", decimal=",")),
        "separated by ';'",
    ),
    "separator in the first line": (
        lambda p: write_text(p / "a.csv", "sep=;\r\n" + FRAME.to_csv(index=False, sep=";"), "utf-8-sig"),
        "separated by ';', as its first line says",
    ),
    "files put together": (
        lambda p: write_text(p / "a.csv", FRAME[:20].to_csv(index=False) + FRAME[20:].to_csv(index=False)),
        "left out are rows that repeat the names of columns: 1",
    ),
    "index of pandas": (lambda p: write_text(p / "a.csv", FRAME.to_csv()), "'Unnamed: 0' is left out"),
    "names of rows of R": (lambda p: write_text(p / "a.csv", row_names(FRAME)), "left out as the name of the row"),
    "separators at the end": (
        lambda p: write_text(p / "a.csv", FRAME.to_csv(index=False).replace("\n", ",\n").replace(",\n", "\n", 1)),
        None,
    ),
    "separators at every end": (
        lambda p: write_text(p / "a.csv", FRAME.to_csv(index=False).replace("\n", ",\n")),
        None,
    ),
    "jsonl": (lambda p: write_text(p / "a.jsonl", FRAME.to_json(orient="records", lines=True)), None),
    "arff": (lambda p: write_arff(p / "a.arff"), None),
    "parquet": (lambda p: write_parquet(p / "a.parquet"), None),
    "label as index": (lambda p: write_parquet(p / "a.parquet", FRAME.set_index("label")), None),
    "categories": (lambda p: write_parquet(p / "a.parquet", FRAME.astype({"town": "category"})), None),
    "data set": (lambda p: write_folder(p / "a"), None),
    "Arrow-backed frame": (lambda _: FRAME.convert_dtypes(dtype_backend="pyarrow"), None),
    "Arrow table": (lambda _: pa.Table.from_pandas(FRAME), None),
    "pair": (lambda _: (FRAME[["x", "town"]], np.array(Y)), None),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_sources(tmp_path, kind):
    make, line = SOURCES[kind]
    found, lines = read(make(tmp_path))
    assert sorted(found.columns) == ["town", "x"] and found.features["town"].tolist() == TOWN
    np.testing.assert_allclose(found.features["x"], X)
    assert list(found.labels) == Y and found.classes == ("no", "yes")
    notes = [note for note in found.notes if "decimal comma" not in note]
    assert len(notes) == (line is not None) and (line is None or (line in notes[0] and line in lines[0]))


LABELS = {  # (labels, classes, what is said)
    "whole numbers": ([1, 2] * 20, ("1", "2"), None),
    "floats": (["1.0", "0.0"] * 20, ("0", "1"), None),
    "booleans": (["True", "False"] * 20, ("False", "True"), None),
    "minus zero": (["-0.0", "1.0"] * 20, ("0", "1"), None),
    "unknown ones": (["p", "q", "?", ""] * 10, ("p", "q"), "10 labels '?' are read as missing"),
    "missing ones among numbers": (["1", "2", "NA", "nan"] * 10, ("1", "2"), "10 labels 'NA' are read as missing"),
    "a missing one among words": (["yes", "no", "N/A", ""] * 10, ("N/A", "no", "yes"), "'N/A' is a class"),
    "two spellings": (["Yes", "yes", "no", "no"] * 10, ("Yes", "no", "yes"), "classes 'Yes' and 'yes' mean the same"),
    "two notations": (["1.50", "1.5", "x", "x"] * 10, ("1.5", "1.50", "x"), "classes '1.5' and '1.50' mean the same"),
    "missing ages": (
        [*map(str, np.resize(np.arange(30, 70), 39)), "NA"],
        ("high", "low", "middle"),
        "a label 'NA' is read as missing",
    ),
    "ages": (RNG.permutation(np.arange(30, 70)), ("high", "low", "middle"), "the label is a quantity"),
}


AMOUNTS = {  # (labels, what is said)
    "dollars": ([f"${n:,.2f}" for n in N], "column 'label' is read as numbers with thousands commas in $"),
    "shares": ([f"{x} %" for x in X], "column 'label' is read as numbers in %"),
    "decimal comma": (
        [f"{x:.2f}".replace(".", ",") for x in X],
        "column 'label' is read as numbers with decimal comma",
    ),
    "a missing one": (gap(X, "unknown"), "column 'label' is read as numbers, 1 cell ('unknown') as missing"),
}


@pytest.mark.parametrize("kind", AMOUNTS)
def test_amounts_as_labels(tmp_path, kind):
    labels, line = AMOUNTS[kind]
    pd.DataFrame({"x": X, "label": labels}).to_csv(tmp_path / "a.csv", index=False)
    found, lines = read(tmp_path / "a.csv")
    assert found.classes == ("high", "low", "middle") and found.notes[0] == line and lines[0] == f"a: {line}"
    numbers = N if kind == "dollars" else X
    assert (found.labels == "high").tolist()[:GAP] == (numbers > np.sort(numbers)[26]).tolist()[:GAP]


@pytest.mark.parametrize("kind", LABELS)
def test_labels(tmp_path, kind):
    labels, classes, line = LABELS[kind]
    pd.DataFrame({"x": X, "label": labels}).to_csv(tmp_path / "a.csv", index=False)
    found, lines = read(tmp_path / "a.csv")
    assert found.classes == classes and lines == [f"a: {note}" for note in found.notes]
    assert bool(lines) == (line is not None) and (line is None or line in lines[0])


BAD = {
    "NUL bytes": ("a.csv", "x,label\n1,p\n\0,q\n", "holds NUL bytes"),
    "a quote left open": ("a.csv", 'x,label\n1,p\n"2,q\n3,p\n', "a quote that is not closed, after row"),
    "a cell too many in all rows": (
        "a.csv",
        "x,label\n5,1,p\n5,2,q\n",
        "has 2 cells in its first line and 3 in a row: name every column",
    ),
    "two cells too many": ("a.csv", "x,label\na,b,1,p\nc,d,2,q\n", "has 2 cells in its first line and 4 in a row"),
    "a cell too many behind separators at the ends": (
        "a.csv",
        "x,label\n" + "1,p,\n2,q,\n" * 30 + "1,p,2\n",
        "has rows with more cells than the header has names",
    ),
    "a cell too many in one row": ("a.csv", "x,label\n1,p\n2,3,q\n", "Expected 2 fields in line 3, saw 3"),
    "two columns of one name": ("a.csv", "x,x,label\n1,2,p\n3,4,q\n", "two columns called 'x'"),
    "names alone": ("a.csv", "x,label\n", "has no rows"),
    "very many names alone": ("a.csv", ",".join(f"c{i}" for i in range(200_000)) + "\n", "has no rows"),
    "no number is so large": ("a.csv", "x,label\n1,p\ninf,q\n", "infinite values"),
    "nested values": ("a.jsonl", '{"x": {"y": 1}, "label": 1}\n{"x": {"y": 2}, "label": 0}\n', "holds nested values"),
    "one JSON array": ("a.jsonl", ' [{"x": 1, "label": 1}, {"x": 2, "label": 0}]', "holds one JSON array: give one"),
    "gzip by another name": ("a.csv", gzip.compress(b"x,label\n1,p\n2,q\n"), "is compressed by gzip: name it .csv.gz"),
    "a spreadsheet by another name": ("a.csv", b"PK\3\4....", "is a zip archive: unpack it, or save as csv"),
    "half a line of JSON": ("a.jsonl", '{"x": 1, "label": 1}\n{"x": ', "cannot be read"),
    "one class": ("a.csv", "x,label\n1,p\n2,p\n", "only the class 'p'"),
    "another encoding": ("a.csv", "größe,label\n1,p\n2,q\n".encode("latin-1"), "is not UTF-8 text (byte 2)"),
}


@pytest.mark.parametrize("kind", BAD)
def test_refusals(tmp_path, kind):
    name, text, message = BAD[kind]
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError) as error:
        read(tmp_path / name)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_rows_with_too_few_cells_are_said(tmp_path):
    lines = csv(x=X, town=TOWN).splitlines()
    lines[12], lines[20] = "1,Rom", "2"
    found, warned = read(write_text(tmp_path / "a.csv", "\n".join(lines) + "\n"))
    said = "2 rows have fewer cells than the header, the first in line 13: the rest of it is missing"
    assert list(found.notes) == [said] and said in warned[0]
    assert found.labels[11] is None and found.features["town"][19] is None and len(found) == ROWS
    lines = ["sep=,", *csv(x=X, town=TOWN).splitlines()]
    lines[13] = "1,Rom"
    found, warned = read(write_text(tmp_path / "c.csv", "\n".join(lines) + "\n"))
    assert list(found.notes) == [
        "a row has fewer cells than the header, the first in line 14: the rest of it is missing"
    ]
    lines = csv(x=X, town=TOWN).splitlines()
    lines[12] = "1,Rom,"  # an unlabelled row, which lacks nothing
    lines[20] = '1,"Rom, Italien",'
    found, warned = read(write_text(tmp_path / "b.csv", "\n".join(lines) + "\n"))
    assert not warned and found.features["town"][19] == "Rom, Italien" and list(found.labels[[11, 19]]) == [None] * 2


def test_columns_without_a_value_are_left_out_and_said(tmp_path):
    found, warned = read(write_text(tmp_path / "a.csv", csv(x=X, empty=[""] * ROWS, words=["n/a", "?"] * 20)))
    assert found.columns == ["x", "words"] and "column 'empty' is left out: it holds no value" in warned[0]
    assert found.notes == ("column 'empty' is left out: it holds no value",)


@pytest.mark.parametrize("quoting", [0, 1])
@pytest.mark.parametrize("last", ["007", "00340434161094042557", "0" * 30 + "1"])
def test_codes_behind_the_first_bytes_of_a_file_stay_text(tmp_path, monkeypatch, quoting, last):
    monkeypatch.setattr(delimited, "HEAD", 200)
    monkeypatch.setattr(delimited, "PART", 100)
    codes = [f"{i + 12:02}" for i in range(ROWS - 1)] + [last]
    frame = pd.DataFrame({"x": X, "n": range(ROWS), "code": codes, "label": Y})
    frame.to_csv(tmp_path / "a.csv", index=False, quoting=quoting)
    found, warned = read(tmp_path / "a.csv")
    assert found.features["code"].tolist() == codes and found.features["n"].tolist() == list(range(ROWS))
    assert found.notes == (f"column 'code' stays text: it holds codes such as '{last}'",) and len(warned) == 1


def test_a_quote_that_is_closed_some_rows_later_is_said(tmp_path):
    lines = csv(x=X, town=TOWN).splitlines()
    lines[10] = lines[10].replace(",", ',"', 1)
    lines[13] = lines[13].replace(",no", '",no').replace(",yes", '",yes')
    found, warned = read(write_text(tmp_path / "a.csv", "\n".join(lines) + "\n"))
    said = "the cell of column 'town' in row 10 holds 3 line breaks, and as many separators as 3 rows"
    assert len(found) == ROWS - 3 and said in found.notes[0] and said in warned[0]
    texts = [f"{t},\nand\nso, on" if i % 9 == 0 else t for i, t in enumerate(TOWN)]
    found, warned = read(write_text(tmp_path / "b.csv", csv(x=X, town=texts)))
    assert len(found) == ROWS and found.features["town"].tolist() == texts and not warned + list(found.notes)


def write_arrays(frame, path):
    """The frame as an npz archive."""
    features, labels = frame.drop(columns="label"), np.array(frame["label"].tolist())
    np.savez(path, features=features, labels=labels, columns=np.array(list(features)))


def write_numbers(frame, path):
    """The frame, numbers but for the label, as ARFF."""
    head = "".join(f"@attribute {c} numeric\n" for c in frame.columns[:-1])
    rows = frame.to_csv(header=False, index=False, na_rep="?")
    path.write_text(f"@relation r\n{head}@attribute label string\n@data\n{rows}")


WRITERS = {  # by ending; and how the file is read where that cannot be guessed
    "csv": (lambda f, p: f.to_csv(p, index=False), {}),
    "tsv": (lambda f, p: f.to_csv(p, index=False, sep="\t"), {}),
    "csv.gz": (lambda f, p: f.to_csv(p, index=False), {}),
    "german.csv": (lambda f, p: f.to_csv(p, index=False, sep=";", decimal=","), {"sep": ";", "decimal": ","}),
    "parquet": (lambda f, p: f.to_parquet(p), {}),
    "jsonl": (lambda f, p: f.to_json(p, orient="records", lines=True), {}),
    "npz": (write_arrays, {}),
    "arff": (write_numbers, {}),
}
WORDS = [(0, 1), (False, True), ("no", "yes"), ("No", "YES"), ("0.0", "1.0"), ("f", "t"), ("N", "Y"), (0.0, 1.0)]


@pytest.mark.filterwarnings("ignore")
def test_the_same_data_in_eight_notations_gives_the_same_ranking(tmp_path):
    def written(site, place, words):
        """The file of a heart site with `words` as labels."""
        frame = pd.read_csv(DATA / f"tabular/heart_{site}.csv")
        frame["label"] = [words[label] for label in frame["label"]]
        path = tmp_path / f"{site}{place}.{endings[place]}"
        WRITERS[endings[place]][0](frame, path)
        return f"{site}={path}"

    endings, rankings = list(WRITERS), []
    for place, words in enumerate(WORDS):
        target, source = written("va", place, words), written("hungarian", place, WORDS[-place])
        options = WRITERS[endings[place]][1]
        found = transmeter.rank(target, [source], shots=5, repeats=2, **options).rows[0]
        assert set(found.class_map) == {text_of(word) for word in WORDS[-place]}
        rankings.append((found.source, found.verdict, *np.round((found.gain_pp, found.ci_low, found.ci_high), 6)))
    assert rankings == [rankings[0]] * 8
