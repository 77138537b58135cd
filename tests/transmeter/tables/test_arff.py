"""ARFF as Weka and others write it: every cell has the value that the format gives it, or an error names the line."""

import numpy as np
import pytest

from transmeter.tables import data
from transmeter.tables.files import read
from transmeter.tables.formats.arff import read_arff
from transmeter.tables.formats.delimited import NOTES

HEAD = "@relation r\n@attribute age numeric\n@attribute 'home town' string\n@attribute y {no,'oh yes'}\n@data\n"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("1.5,Rome,no", [1.5, "Rome", "no"]),
        ("1.5 , 'St. John\\'s' , \"oh yes\"", [1.5, "St. John's", "oh yes"]),
        ('-2e3,"a, b",no', [-2000, "a, b", "no"]),
        ("1,'it\\n\\\"is\\\\',no", [1, 'it\n"is\\', "no"]),
        ("1,O'Brien,no", [1, "O'Brien", "no"]),
        ("1\tRome\tno", [1, "Rome", "no"]),
        ("?,?,?", [None, None, None]),
        ("1,'',no", [1, "", "no"]),
        ("1,Rome,no,{0.5}", [1, "Rome", "no"]),
        ("{}", [0, None, "no"]),
        ("{0 7, 2 'oh yes'}", [7, None, "oh yes"]),
        ("{1 'a, b',2 ?}, {3}", [0, "a, b", None]),
    ],
)
def test_rows(tmp_path, row, expected):
    (tmp_path / "a.arff").write_text(f"% about\n{HEAD}\n{row}\n3,x,no\n", encoding="utf-8")
    frame = read_arff(tmp_path / "a.arff")
    found = [None if cell is None or cell != cell else cell for cell in frame.iloc[0]]
    assert list(frame.columns) == ["age", "home town", "y"] and found == expected
    assert frame.attrs[NOTES] == (["weights of rows are not used"] if row.count("{") > row.startswith("{") else [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + "1,Rome\n", "line 6: 2 cells for 3 attributes"),
        (HEAD + "1,Rome,no\nx,Rome,no\n", "line 7: 'x' is not a number"),
        (HEAD + "1,Rome,maybe\n", "line 6: 'maybe' is not one of no, oh yes"),
        (HEAD + "1,'Rome,no\n", "line 6: a quote is not closed"),
        (HEAD + "{0 1\n", "line 6: a sparse row does not end"),
        (HEAD + "{9 1}\n", "line 6: '9 1' is not NUMBER VALUE"),
        (HEAD.replace("string", "relational"), "line 3: type 'relational' is not one of"),
        (HEAD.replace("@attribute age", "age"), "line 2: 'age numeric' is none of"),
        (HEAD.replace("'home town'", "age"), "line 3: a second attribute is called 'age'"),
        ("@relation r\n@attribute age numeric\n", "it has no @data"),
        (HEAD, "has no rows"),
    ],
)
def test_errors_name_the_file_and_the_line(tmp_path, text, message):
    (tmp_path / "a.arff").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.arff") as error:
        read(tmp_path / "a.arff")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_headers_in_other_hands(tmp_path):
    text = "\ufeff@RELATION 'a b'\r\n@Attribute x REAL % metres\r\n@ATTRIBUTE d date 'yyyy-MM-dd'\r\n"
    text += "@attribute y{ 1 , 0 } % the class\r\n@DATA\r\n1,2024-01-31,1\r\n2,'2024-02-01',0\r\n3,?,?\r\n"
    (tmp_path / "a.arff").write_text(text, encoding="utf-8", newline="")
    found = data.load(f"{tmp_path / 'a.arff'}::y")
    np.testing.assert_array_equal(found.features.to_numpy(dtype=float), [[1, 0], [2, 1], [3, np.nan]])
    assert found.classes == ("0", "1") and list(found.labels) == ["1", "0", None]
