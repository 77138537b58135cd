"""Columns as numbers or categories: in which notation a column of texts is read, and what is said of it.

Every decision that a user may not expect is a `Reading`: it is said, kept with the table, and used again for other rows
of the same columns.
"""

import logging
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from transmeter.tables import dates
from transmeter.tables.labels import EMPTY, FEW, text_of
from transmeter.util.suggestions import did_you_mean

LOG = logging.getLogger(__name__)
LARGEST = 1e100  # squares of what is larger overflow
SHARE = 0.95  # of the cells that are not missing must be numbers in one notation, or dates
HALF = 0.5  # where so many are numbers, it is said that the others keep the column a text
LONGEST = 60  # characters of a number with its unit
EXAMPLES = 3  # cells that a message names
# an empty cell among numbers, in lower case; among categories such a word may mean something
_MISSING = {w.lower() for w in EMPTY} | set("none unknown missing nil n.a. #n/a #na <na> - -- . ..".split())
_CURRENCY = r"[$€£¥₩₹]|USD|EUR|GBP"
_UNIT = rf"{_CURRENCY}|%|°?[^\W\d_]{{1,12}}[²³]?(?:/[^\W\d_]{{1,12}}[²³]?)?"  # kg, m², mg/l
_NUMBER = re.compile(rf"([+-]?)\s*({_CURRENCY})?\s*([+-]?[\d.,]*\d[.,]?(?:[eE][+-]?\d+)?)\s*({_UNIT})?")
_GROUPED = re.compile(r"(?<![\d.,])[1-9]\d{0,2}([ '’\u00a0\u2009\u202f])\d{3}(?:\1\d{3})*(?!\d|\1\d)")  # 1 234 567
_BRACKETS = re.compile(r"\(([^()+-]*\d[^()+-]*)\)")  # (1.50), which is below zero in accounts
_NOTATIONS = {
    "plain": re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"),
    "thousands commas": re.compile(r"[+-]?(\d+|[1-9]\d{0,2}(,\d{3})+)(\.\d*)?"),
    "decimal comma": re.compile(r"[+-]?(\d+|[1-9]\d{0,2}(\.\d{3})+)(,\d+)?([eE][+-]?\d+)?"),
}
BOOLEAN = "true and false"  # a notation too
_BY_DECIMAL = {",": "decimal comma", ".": "thousands commas"}
_CODE = re.compile(r"[+-]?0\d+")
_INDEX = re.compile(r"(Unnamed: 0(\.\d+)*)?")  # what pandas calls the index that it wrote
_UNNAMED = re.compile(r"Unnamed: \d+")  # what it calls columns without a name


@dataclass(frozen=True)
class Reading:
    """How the cells of one column are read.

    Attributes
    ----------
    kind
        "numbers", "days" (since the first date), "text", or "left out".
    notation
        Of numbers "plain", "thousands commas", "decimal comma" or "true and false"; of days the order of the parts, as
        in `dates`.
    unit
        The currency, percent sign or other unit of every number, "" for none.
    first
        The date that days count from, in ISO format.
    line
        What is said of it.
    """

    kind: str
    notation: str = ""
    unit: str = ""
    first: str = ""
    line: str = ""


PLAIN = Reading("numbers", "plain")
TEXT = Reading("text")


def clean(name: str, features: pd.DataFrame, decimal: str | None = None) -> tuple[pd.DataFrame, dict[str, Reading]]:
    """Columns as floats, or as text with None for a missing cell.

    A column of lists of one length becomes one column per place; columns without any value are left out.

    Parameters
    ----------
    name
        What messages call the table.
    features
        (n, columns) cells of any kind.
    decimal
        Decimal mark of texts such as "1,234", which may be 1234 or 1.234; None: such a column stays text.

    Returns
    -------
    tuple
        The columns, and the reading of those of which there is something to say.

    Raises
    ------
    ValueError
        For infinite values, nested cells other than such lists, two columns of one name, and where no column varies.
    """
    cleaned: dict[str, pd.Series] = {}
    readings: dict[str, Reading] = {}
    for column, cells in features.reset_index(drop=True).items():
        for part, values in _parts(name, str(column), _unboxed(cells)).items():
            if part in cleaned:
                raise ValueError(f"{name} has two columns called '{part}': rename one")
            if _is_index(part, values):
                readings[part] = Reading("left out", line=f"column '{part}' is left out: it numbers the rows")
                continue
            cleaned[part], reading = _column(name, part, values, decimal)
            if reading.line:
                readings[part] = reading
    for column in [c for c, values in cleaned.items() if not _has_values(values)]:
        del cleaned[column]
        if not _UNNAMED.fullmatch(column):  # what separators at the end of rows make
            readings[column] = Reading("left out", line=f"column '{column}' is left out: it holds no value")
    if not any(values.nunique(dropna=False) > 1 for values in cleaned.values()):
        raise ValueError(f"{name} has no column that varies: nothing can be learned from it")
    say(name, [reading.line for reading in readings.values()])
    return pd.DataFrame(cleaned).reset_index(drop=True), readings


def amounts(labels: pd.Series | np.ndarray, decimal: str | None = None) -> tuple[pd.Series | np.ndarray, list[str]]:
    """Labels that are many numbers in one notation, such as "$1,234", as numbers.

    Parameters
    ----------
    labels
        (n,) labels of any kind.
    decimal
        As for `clean`.

    Returns
    -------
    tuple
        (n,) floats, or `labels` themselves; and what is said of it, a line each.
    """
    cells = _unboxed(pd.Series(labels)).reset_index(drop=True)
    if pd.api.types.is_numeric_dtype(cells) or dates.is_time(cells) or cells.map(pd.api.types.is_list_like).any():
        return labels, []
    places, texts, counts = _distinct(cells)
    if len(texts) <= FEW or _plain(texts).notna().all():
        return labels, []
    reading = _reading(str(cells.name or "label"), texts, counts, decimal)
    if reading.kind != "numbers":
        return labels, []
    return _spread(_read(texts, reading), places, cells.index), [reading.line] if reading.line else []


def say(name: str, lines: Sequence[str]) -> None:
    """Warn of the first lines in one, and log the others.

    Parameters
    ----------
    name
        What messages call the table.
    lines
        What was decided.
    """
    for line in lines[EXAMPLES:]:
        LOG.info("%s: %s", name, line)
    if lines:
        more = f"; and {len(lines) - EXAMPLES} more, see --verbose" if len(lines) > EXAMPLES else ""
        warnings.warn(f"{name}: {'; '.join(lines[:EXAMPLES])}{more}", stacklevel=3)


def conform(
    name: str,
    features: pd.DataFrame,
    numeric: Sequence[str],
    categorical: Sequence[str],
    readings: Mapping[str, Reading] | None = None,
) -> pd.DataFrame:
    """Other rows of a cleaned table, read in the same way; columns beside those of the table are left out.

    Parameters
    ----------
    name
        What messages call the rows.
    features
        (n, columns) cells of any kind.
    numeric, categorical
        Columns of the table.
    readings
        What `clean` returned for the table; None: all numbers are plain.

    Returns
    -------
    pandas.DataFrame
        (n, numeric + categorical), floats and texts.

    Raises
    ------
    ValueError
        For a column that is not there, and a cell that is no number in a column of numbers.
    """
    cleaned: dict[str, pd.Series] = {}
    for column, cells in features.reset_index(drop=True).items():
        for part, values in _parts(name, str(column), _unboxed(cells)).items():
            if part in numeric:
                cleaned[part] = _numbers_like(name, part, values, (readings or {}).get(part, PLAIN))
            elif part in categorical:
                places, texts, _ = _distinct(values)
                cleaned[part] = _spread(_categories(texts), places, values.index)
    for column in (*numeric, *categorical):
        if column not in cleaned:
            guess = did_you_mean(column, features.columns)
            raise ValueError(f"{name} has no column '{column}'{guess} (columns: {listed(features.columns)})")
    return pd.DataFrame({c: cleaned[c] for c in (*numeric, *categorical)}).reset_index(drop=True)


def numeric_columns(features: pd.DataFrame) -> list[str]:
    """Names of the columns of numbers; by type alone, since tables of hidden states have thousands.

    Parameters
    ----------
    features
        Cleaned columns.

    Returns
    -------
    list
        In the order of the columns.
    """
    return [str(c) for c, kind in zip(features.columns, features.dtypes) if kind.kind == "f"]


def listed(columns: Sequence[str] | pd.Index) -> str:
    """The first dozen names in one line.

    Parameters
    ----------
    columns
        All names.

    Returns
    -------
    str
        Separated by commas.
    """
    return ", ".join(map(str, columns[:12])) + (", ..." if len(columns) > 12 else "")


def _unboxed(values: pd.Series) -> pd.Series:
    """Arrow-backed, nullable and categorical columns as those of numpy."""
    if isinstance(values.dtype, pd.ArrowDtype):
        values = pd.Series(values.array.__arrow_array__().to_pandas().array, index=values.index)
    if isinstance(values.dtype, pd.PeriodDtype):
        return values.dt.to_timestamp()
    return values.astype(object) if isinstance(values.dtype, pd.CategoricalDtype | pd.IntervalDtype) else values


def _parts(table_name: str, name: str, values: pd.Series) -> dict[str, pd.Series]:
    """The column itself, or `NAME 0`.. where each cell is a list of numbers of one length (or missing)."""
    lists = values[values.map(lambda v: isinstance(v, (list, tuple, np.ndarray)))] if values.dtype == object else values
    if values.dtype != object or lists.empty:
        return {name: values}
    lengths = lists.map(len).unique()
    if len(lengths) > 1 or len(lists) < values.notna().sum():
        held = f"lists of {min(lengths)} to {max(lengths)}" if len(lengths) > 1 else "lists beside other values"
        raise ValueError(f"column '{name}' of {table_name} holds {held}: give lists of one length, or one value a cell")
    try:
        rows = np.stack([np.asarray(v, dtype=np.float64) for v in lists])
    except (TypeError, ValueError):
        rows = np.empty(0)
    if rows.ndim != 2:
        raise ValueError(f"column '{name}' of {table_name} holds lists of other things than numbers: give numbers")
    return {f"{name} {i}": pd.Series(rows[:, i], lists.index).reindex(values.index) for i in range(rows.shape[1])}


def _is_index(name: str, values: pd.Series) -> bool:
    """Whether a column without a name tells rows apart: whole numbers or texts of which most are distinct."""
    if not _INDEX.fullmatch(name):
        return False
    return not pd.api.types.is_float_dtype(values) and values.astype(str).nunique() > len(values) / 2


def _column(table_name: str, name: str, values: pd.Series, decimal: str | None) -> tuple[pd.Series, Reading]:
    """Floats, or text with None for missing; and how it is read."""
    if dates.is_time(values):
        numbers, first = dates.days(values)
        since = f" since {first[:10]}" if first else ""
        return numbers, Reading("days", "stamps", first=first, line=f"column '{name}' is read as days{since}")
    if pd.api.types.is_complex_dtype(values):
        raise ValueError(f"column '{name}' of {table_name} holds complex numbers: give real ones")
    if pd.api.types.is_bool_dtype(values) or pd.api.types.is_numeric_dtype(values):
        return _bounded(table_name, name, values.astype(float)), PLAIN
    if values.dtype == object and values.dropna().map(lambda v: isinstance(v, (dict, set))).any():
        raise ValueError(f"column '{name}' of {table_name} holds nested values: give one number or text a cell")
    places, texts, counts = _distinct(values)
    numbers = _plain(texts)
    grouped = decimal == "," and texts.str.contains(".", regex=False).any()  # 1.234 is a whole number then
    if numbers.notna().all() and not grouped and not _codes(texts):
        return _bounded(table_name, name, _spread(numbers, places, values.index)), PLAIN
    reading = _reading(name, texts, counts, decimal)
    if reading.kind == "text":
        return _spread(_categories(texts), places, values.index), reading
    return _bounded(table_name, name, _spread(_read(texts, reading), places, values.index)), reading


def _has_values(values: pd.Series) -> bool:
    """Whether a cell is neither None nor NaN; most columns begin with one, so that this is quick."""
    return any(v is not None and v == v for v in values.array)


def _bounded(table_name: str, name: str, numbers: pd.Series) -> pd.Series:
    sizes = np.abs(numbers.to_numpy())
    if (sizes > LARGEST).any():
        what = "infinite values" if np.isinf(sizes).any() else f"values beyond {LARGEST:g}"
        raise ValueError(f"column '{name}' of {table_name} holds {what}: replace them or leave them empty")
    return numbers


def _reading(name: str, texts: pd.Series, counts: pd.Series, decimal: str | None) -> Reading:
    """How a column of texts, not all of which are plain numbers, is read."""
    present: Counter[str] = Counter()
    for text, count in zip(texts, counts):
        if text.lower() not in _MISSING:
            present[text] += count
    if {text.lower() for text in present} == {"true", "false"}:
        return _with_line(Reading("numbers", BOOLEAN), name, texts, counts, "numbers, true as 1 and false as 0")
    unit, notations = _notations(present, decimal)
    if len(notations) > 1:
        example = next(t for t in present if "," in t)
        remedy = "give the decimal mark (--decimal), or write numbers without commas"
        return Reading("text", line=f"column '{name}' stays text: '{example}' may be read in two ways: {remedy}")
    if notations and (codes := _codes(texts)):
        return Reading("text", line=f"column '{name}' stays text: it holds codes such as '{codes[0]}'")
    if notations:
        reading = Reading("numbers", notations[0], unit)
        return _with_line(reading, name, texts, counts, f"numbers{_form(reading, present)}")
    order = dates.order(present, SHARE)
    if order == dates.EITHER:
        line = f"column '{name}' stays text: days and months cannot be told apart: write dates as 2024-01-31"
        return Reading("text", line=line)
    if order is None:
        return _nearly_numbers(name, present)
    first = dates.first(texts, order)
    return _with_line(Reading("days", order, first=first), name, texts, counts, f"days since {first[:10]}")


def _nearly_numbers(name: str, counts: Mapping[str, int]) -> Reading:
    """Text, of which is said where many of its cells are numbers."""
    others = [text for text in counts if not _is_number(text)]
    cells = sum(counts.values())
    numbers = cells - sum(counts[text] for text in others)
    if numbers < HALF * cells or not cells:
        return TEXT
    reason = ", ".join(f"'{text}'" for text in others[:EXAMPLES]) or "in several units or notations"
    return Reading("text", line=f"column '{name}' stays text: {numbers} of {cells} cells are numbers, but {reason}")


def _form(reading: Reading, texts: Iterable[str]) -> str:
    """The notation and unit of numbers in words."""
    form = "" if reading.notation == "plain" else f" with {reading.notation}"
    form += f" in {reading.unit}" if reading.unit else ""
    form += ", digits in groups" if any(_GROUPED.search(text) for text in texts) else ""
    return form + (", in brackets below zero" if any(_BRACKETS.fullmatch(text) for text in texts) else "")


def _with_line(reading: Reading, name: str, texts: pd.Series, counts: pd.Series, what: str) -> Reading:
    """The reading with what is said of it: the cells that are missing by it too."""
    lost = texts[_read(texts, reading).isna()]
    cells = counts[lost.index].sum()
    if what == "numbers" and lost.empty:
        return PLAIN
    examples = ", ".join(f"'{t}'" for t in lost.unique()[:EXAMPLES])
    gaps = f", {cells} cell{'s' * bool(cells > 1)} ({examples}) as missing" if cells else ""
    return Reading(
        reading.kind, reading.notation, reading.unit, reading.first, f"column '{name}' is read as {what}{gaps}"
    )


def _notations(counts: Mapping[str, int], decimal: str | None) -> tuple[str, list[str]]:
    """(unit, notations) in which most of the texts, and at least SHARE of them, are numbers.

    Several notations only where they fit the same texts and give other numbers, and `decimal` does not decide.
    """
    split = {text: parts for text in counts if (parts := _split(text))}
    units: Counter[str] = Counter()
    for text, (unit, _) in split.items():
        units[unit] += counts[text]
    if not units:
        return "", []
    unit = units.most_common(1)[0][0]
    fits = {
        notation: sum(counts[t] for t, (u, number) in split.items() if u == unit and form.fullmatch(number))
        for notation, form in _NOTATIONS.items()
    }
    enough = SHARE * sum(counts.values())
    best = [notation for notation, fit in fits.items() if fit == max(fits.values()) and fit >= enough]
    if decimal and _BY_DECIMAL[decimal] in best:
        best = [_BY_DECIMAL[decimal]]
    elif len(best) > 1 and fits["plain"] >= enough:  # commas stand in few cells, or in none
        best = ["plain"]
    return unit, best


def _is_number(text: str) -> bool:
    """Whether a text is a number in some notation and unit."""
    parts = _split(text)
    return parts is not None and any(form.fullmatch(parts[1]) for form in _NOTATIONS.values())


def _split(text: str) -> tuple[str, str] | None:
    """(unit, number) of a text such as "$1.50", "12 %" or "1 234"; None for what is no number in any notation."""
    if len(text) > LONGEST:
        return None
    if below_zero := _BRACKETS.fullmatch(text):
        text = f"-{below_zero[1]}"
    text = _GROUPED.sub(lambda group: group[0].replace(group[1], ""), text)
    match = _NUMBER.fullmatch(text.replace("\N{MINUS SIGN}", "-"))
    if not match or match[2] and match[4]:
        return None
    return match[2] or match[4] or "", match[1] + match[3]


def _read(texts: pd.Series, reading: Reading) -> pd.Series:
    """Floats of what is not missing, NaN for what cannot be read so."""
    if reading.kind == "days":
        return dates.days_since(texts, reading.notation, reading.first)
    return texts.map(lambda text: _number(text, reading)).astype(float)


def _number(text: str, reading: Reading) -> float:
    if reading.notation == BOOLEAN:
        return {"true": 1.0, "false": 0.0}.get(text.lower(), np.nan)
    unit, number = _split(text) or ("", "")
    if unit != reading.unit or not _NOTATIONS[reading.notation].fullmatch(number):
        return np.nan
    if reading.notation == "decimal comma":
        return float(number.replace(".", "").replace(",", "."))
    return float(number.replace(",", ""))


def _numbers_like(table_name: str, name: str, values: pd.Series, reading: Reading) -> pd.Series:
    """Floats of a column that is read as another one was. Raises ValueError for a cell that is no such number."""
    if reading.kind == "days" and dates.is_time(values):
        return dates.days(values, reading.first)[0]
    if pd.api.types.is_bool_dtype(values) or pd.api.types.is_numeric_dtype(values):
        return _bounded(table_name, name, values.astype(float))
    places, texts, _ = _distinct(values)
    texts = texts[~texts.map(str.lower).isin(_MISSING)]
    numbers = _plain(texts) if reading == PLAIN else _read(texts, reading)
    if numbers.isna().any():
        example = texts[numbers.isna()].iloc[0]
        raise ValueError(f"column '{name}' of {table_name} holds '{example}', but was learned as {reading.kind}")
    return _bounded(table_name, name, _spread(numbers, places, values.index))


def _plain(texts: pd.Series) -> pd.Series:
    """Floats of plain numbers, and of a column of True and False."""
    lower = texts.map(str.lower)
    if lower.isin(["true", "false"]).all():
        return (lower == "true").astype(float)
    return pd.to_numeric(texts, errors="coerce").astype(float)


def _codes(texts: pd.Series) -> list[str]:
    """Those that begin with a zero which a number would lose, such as 01234."""
    return [t for t in texts if _CODE.fullmatch(t)]


def _distinct(values: pd.Series) -> tuple[np.ndarray, pd.Series, pd.Series]:
    """(n,) the place of every cell, -1 for a missing one; and by place the text, unless empty, and how many cells have
    it. Most columns of texts repeat a few."""
    if values.dtype == object:  # 1 and True are equal there, so that their texts are told apart first
        values = values.map(lambda v: v.strip() if isinstance(v, str) else text_of(v))
    places, cells = pd.factorize(values)
    texts = pd.Series([str(cell).strip() for cell in cells], dtype=object)
    texts = texts[~texts.isin(EMPTY)]
    return places, texts, pd.Series(np.bincount(places + 1, minlength=len(cells) + 1)[1:])[texts.index]


def _spread(values: pd.Series, places: np.ndarray, index: pd.Index) -> pd.Series:
    """What the texts are, for every cell; NaN or None for the others."""
    lookup = np.full(places.max(initial=-1) + 2, None if values.dtype == object else np.nan, dtype=values.dtype)
    lookup[values.index] = values
    return pd.Series(lookup[places], index=index, dtype=lookup.dtype)


def _categories(texts: pd.Series) -> pd.Series:
    return pd.Series([text_of(text) for text in texts], index=texts.index, dtype=object)
