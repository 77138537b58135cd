"""Tables: reading them from files, and turning mixed columns into numbers."""

import logging
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from transmeter.tables.files import check_names, listed, read
from transmeter.tables.specs import parse
from transmeter.util.suggestions import did_you_mean

LOG = logging.getLogger(__name__)
LARGEST = 1e100  # squares of what is larger overflow
MAX_ROWS = 20_000  # of a table that is used; more are sampled
_DATE = re.compile(
    r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([ T].*)?|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}( .*)?"
    r"|[A-Za-z]{3,9}\.? \d{1,2},? \d{4}|\d{1,2}\.?[ -][A-Za-z]{3,9}[ -]\d{2,4}"
)
_MISSING = {"", "?", "NA", "N/A", "NaN", "nan", "null", "NULL"}  # in feature columns; a label may well be called so


@dataclass(frozen=True)
class Table:
    """Rows of one data set.

    features (n, columns): floats, or text / None in categorical columns; labels (n,): text, None where unlabelled;
    classes: the distinct labels, sorted; keys (n,): what each row is about, None where nothing says so.
    """

    name: str
    features: pd.DataFrame
    labels: np.ndarray
    classes: tuple[str, ...]
    keys: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.features)

    @property
    def columns(self) -> list[str]:
        """Names of the feature columns."""
        return list(self.features.columns)

    @property
    def codes(self) -> np.ndarray:
        """(n,) index of each label in `classes`, -1 where unlabelled."""
        index = {c: i for i, c in enumerate(self.classes)}
        return np.array([index.get(label, -1) for label in self.labels], dtype=np.int64)

    def take(self, rows: np.ndarray) -> "Table":
        """The given rows, classes unchanged."""
        keys = None if self.keys is None else self.keys[rows]
        features = self.features.iloc[rows].reset_index(drop=True)
        return replace(self, features=features, labels=self.labels[rows], keys=keys)


def load(spec: str, label: str | None = None, strict: bool = True, key: str | None = None) -> Table:
    """Read `[NAME=]PATH[::column]`. The label column: `column`, else `label`, else 'label'.

    key: column of the rows' keys, which is no feature. strict: `label` and `key` must be there; otherwise a file
    without them may have its labels in 'label', and no keys. Of more than MAX_ROWS rows a sample is kept.

    Raises ValueError for a file that is missing, empty, of no known format or without that column, and as `table`.
    """
    name, path, column = parse(spec)
    return from_frame(name, read(path), column, label, strict, key, str(path))


def from_frame(
    name: str,
    frame: pd.DataFrame,
    column: str | None = None,
    label: str | None = None,
    strict: bool = True,
    key: str | None = None,
    where: str | None = None,
) -> Table:
    """The table in a data frame, labels and keys among its columns, as `load` finds them; where: what errors name.

    Raises ValueError as `load`, and for two columns of one name.
    """
    where = where or name
    frame = frame.set_axis([str(c) for c in frame.columns], axis=1)
    check_names(where, frame.columns)
    asked = column or label or "label"
    column = "label" if asked not in frame.columns and not (column or strict) else asked
    if column not in frame.columns:
        neither = "" if column == asked else " and none called 'label'"
        raise ValueError(
            f"{where} has no label column '{asked}'{did_you_mean(asked, frame.columns)}{neither}: name it with --label"
            f" or as PATH::column, in Python with label= (columns: {listed(frame.columns)})"
        )
    if key and (key == column or strict and key not in frame.columns):
        guess = did_you_mean(key, frame.columns) if key != column else ""
        raise ValueError(
            f"{where} has no key column '{key}' beside its label{guess} (columns: {listed(frame.columns)})"
        )
    if len(frame) > MAX_ROWS:  # before the columns are looked at one by one, which takes long
        warnings.warn(f"{name}: {MAX_ROWS} of {len(frame)} rows are used, drawn at random", stacklevel=2)
        frame = frame.iloc[_drawn(frame[column].notna().to_numpy(), MAX_ROWS, seed=0)]
    keys = frame[key] if key in frame.columns else None
    found = table(name, frame.drop(columns=[column] if keys is None else [column, key]), frame[column], keys)
    numbers = len(numeric_columns(found.features))
    labelled = f"{int((found.codes >= 0).sum())} labelled by '{column}' as {listed(pd.Index(found.classes))}"
    LOG.info(
        "%s: %d rows, %s; %d numeric columns, %d others",
        name,
        len(found),
        labelled,
        numbers,
        len(found.columns) - numbers,
    )
    return found


def numeric_columns(features: pd.DataFrame) -> list[str]:
    """Names of the columns of numbers; by type alone, since tables of hidden states have thousands."""
    return [str(c) for c, kind in zip(features.columns, features.dtypes) if kind.kind == "f"]


@dataclass(frozen=True)
class Unusable:
    """A source that could not be read, and why."""

    name: str
    reason: str


def table(
    name: str,
    features: pd.DataFrame,
    labels: pd.Series | np.ndarray,
    keys: pd.Series | np.ndarray | None = None,
) -> Table:
    """A table from a data frame, its labels and, if given, its keys; columns without any value are left out.

    A column of lists of one length becomes one column a place. Labels compare as text (1, 1.0 and '1' are one class);
    an empty one marks an unlabelled row; a quantity is cut into classes with a warning. Raises ValueError for dates,
    infinite values, other nested columns, no usable column, fewer than two classes, or nearly as many as rows.
    """
    frame = clean(name, features)
    texts = _classes(name, label_texts(labels))
    classes = tuple(sorted({t for t in texts if t is not None}))
    return Table(name, frame, texts, classes, None if keys is None else label_texts(keys))


def clean(name: str, features: pd.DataFrame) -> pd.DataFrame:
    """The columns as floats, or as text with None for missing; `name` is what errors name. Raises ValueError as
    `table`."""
    cleaned: dict[str, pd.Series] = {}
    for column in map(str, features.columns):
        for part, values in _parts(name, column, features[column]).items():
            if part in cleaned:
                raise ValueError(f"{name} has two columns called '{part}': rename one")
            cleaned[part] = _column(name, part, values)
    cleaned = {c: values for c, values in cleaned.items() if values.notna().any()}
    if not any(values.nunique(dropna=False) > 1 for values in cleaned.values()):
        raise ValueError(f"{name} has no column that varies: nothing can be learned from it")
    return pd.DataFrame(cleaned).reset_index(drop=True)


def conform(name: str, features: pd.DataFrame, numeric: Sequence[str], categorical: Sequence[str]) -> pd.DataFrame:
    """Other rows of a cleaned table, whose columns are known to be numbers or texts; columns beside them are left out.

    Raises ValueError for a column that is not there and for a text in a column of numbers.
    """
    found: dict[str, pd.Series] = {}
    for column in features.columns:
        for part, values in _parts(name, column, features[column]).items():
            if part in numeric:
                found[part] = _column(name, part, values)
                if not pd.api.types.is_float_dtype(found[part]):
                    example = found[part].dropna().iloc[0]
                    raise ValueError(f"column '{part}' of {name} holds '{example}', but was learned as numbers")
            elif part in categorical:
                found[part] = _categories(values)
    for column in (*numeric, *categorical):
        if column not in found:
            guess = did_you_mean(column, features.columns)
            raise ValueError(f"{name} has no column '{column}'{guess} (columns: {listed(features.columns)})")
    return pd.DataFrame({c: found[c] for c in (*numeric, *categorical)}).reset_index(drop=True)


def rows_like(known: Table, name: str, frame: pd.DataFrame) -> pd.DataFrame:
    """The feature columns of `known` in another data frame, whose other columns are left out. Raises ValueError as
    `conform`."""
    numeric = numeric_columns(known.features)
    found = conform(name, frame, numeric, [c for c in known.columns if c not in numeric])
    return found[known.columns]


def label_texts(values: pd.Series | np.ndarray) -> np.ndarray:
    """(n,) labels or keys as text, None for an empty one. Raises ValueError for lists."""
    given = pd.Series(values).tolist()
    if any(isinstance(v, (list, dict, tuple, np.ndarray)) for v in given):
        raise ValueError("a label is a list: give one class a row")
    return np.array([_text(v) for v in given], dtype=object)


def _parts(table_name: str, name: str, values: pd.Series) -> dict[str, pd.Series]:
    """The column itself, or `NAME 0`.. where each cell is a list of numbers of one length (or missing)."""
    lists = values[values.map(lambda v: isinstance(v, (list, tuple, np.ndarray)))] if values.dtype == object else values
    if values.dtype != object or lists.empty:
        return {name: values}
    lengths = lists.map(len).unique()
    if len(lengths) > 1 or len(lists) < values.notna().sum():
        found = f"lists of {min(lengths)} to {max(lengths)}" if len(lengths) > 1 else "lists beside other values"
        raise ValueError(
            f"column '{name}' of {table_name} holds {found}: give lists of one length, or one value a cell"
        )
    try:
        rows = np.stack([np.asarray(v, dtype=np.float64) for v in lists])
    except (TypeError, ValueError):
        rows = np.empty(0)
    if rows.ndim != 2:
        raise ValueError(f"column '{name}' of {table_name} holds lists of other things than numbers: give numbers")
    return {f"{name} {i}": pd.Series(rows[:, i], lists.index).reindex(values.index) for i in range(rows.shape[1])}


def _classes(name: str, texts: np.ndarray) -> np.ndarray:
    """The labels, where they are a quantity cut into low, middle and high.

    The cuts are the table's own terciles, so that such classes map across tables whatever their units; where values
    repeat, the cuts lie between two values, as near to the terciles as can be, and two classes may be left.
    """
    classes = {t for t in texts if t is not None}
    if len(classes) < 2:
        has = f"only the class '{classes.pop()}'" if classes else "no labelled row"
        raise ValueError(f"{name} has {has}: two classes are needed")
    labelled = np.array([t is not None for t in texts])
    fractional = sum(bool(re.fullmatch(r"-?\d+\.\d+", c)) for c in classes)
    if len(classes) <= 20 or (len(classes) <= labelled.sum() / 2 and fractional <= len(classes) / 2):
        return texts
    numbers = pd.to_numeric(pd.Series(texts, dtype=object), errors="coerce").to_numpy(dtype=np.float64)
    if not np.isfinite(numbers[labelled]).all():
        raise ValueError(
            f"{name} has {len(classes)} different labels in {labelled.sum()} rows: give classes, not names"
        )
    values, counts = np.unique(numbers[labelled], return_counts=True)
    share = counts.cumsum()[:-1] / counts.sum()  # of the rows up to each value
    low, high = (values[np.abs(share - third).argmin()] for third in (1 / 3, 2 / 3))
    cut = "low and high" if low == high else "low, middle and high"
    warnings.warn(
        f"{name}: the label is a quantity; it is cut at the table's own terciles ({low:g}, {high:g}) into {cut}",
        stacklevel=3,
    )
    found = np.where(numbers <= low, "low", np.where(numbers <= high, "middle", "high")).astype(object)
    found[~labelled] = None
    return found


def from_arrays(name: str, features: np.ndarray, labels: np.ndarray, columns: Sequence[str] | None = None) -> Table:
    """A table of feature vectors (n, d) with labels (n,), columns f0.. if not named; one class will do.

    Raises ValueError for values that are not finite.
    """
    if not np.isfinite(features).all():
        raise ValueError(f"{name} has feature values that are not finite: replace them first")
    texts = label_texts(labels)
    frame = pd.DataFrame(
        features.astype(np.float64), columns=list(columns or (f"f{i}" for i in range(features.shape[1])))
    )
    return Table(name, frame, texts, tuple(sorted({t for t in texts if t is not None})))


def sample(data: Table, rows: int, seed: int) -> Table:
    """At most `rows` rows, drawn at random; the table itself where it has no more."""
    if len(data) <= rows:
        return data
    return data.take(_drawn(data.codes >= 0, rows, seed))


def _drawn(labelled: np.ndarray, rows: int, seed: int) -> np.ndarray:
    """Sorted numbers of `rows` rows; labelled ones (n,) fill half of the places first, lest few of them get lost."""
    order = np.random.default_rng(seed).permutation(len(labelled))
    first = order[labelled[order]][: rows // 2]
    rest = order[~np.isin(order, first, assume_unique=True)]
    return np.sort(np.concatenate([first, rest])[:rows])


def _column(table_name: str, name: str, values: pd.Series) -> pd.Series:
    """Floats, or text with None for missing."""
    if pd.api.types.is_datetime64_any_dtype(values) or pd.api.types.is_timedelta64_dtype(values):
        raise ValueError(_dates(table_name, name, values.dropna().iloc[0] if values.notna().any() else "dates"))
    if pd.api.types.is_bool_dtype(values) or pd.api.types.is_numeric_dtype(values):
        numbers = values.astype("float64")
        if (numbers.abs() > LARGEST).any():
            what = "infinite values" if np.isinf(numbers).any() else f"values beyond {LARGEST:g}"
            raise ValueError(f"column '{name}' of {table_name} holds {what}: replace them or leave them empty")
        return numbers
    if values.dropna().map(lambda v: isinstance(v, (dict, set))).any():
        raise ValueError(f"column '{name}' of {table_name} holds nested values: give one number or text a cell")
    texts = _present(values)
    lower = texts.str.lower() if len(texts) else texts
    if lower.isin(["true", "false"]).all():
        texts = lower.map({"true": "1", "false": "0"})
    numbers = pd.to_numeric(texts, errors="coerce")
    if numbers.notna().all():
        return _column(table_name, name, numbers.astype("float64").reindex(values.index))
    if texts.map(lambda t: bool(_DATE.fullmatch(t))).mean() > 0.9:
        raise ValueError(_dates(table_name, name, texts.iloc[0]))
    return _categories(values)


def _present(values: pd.Series) -> pd.Series:
    """What is not missing, as text."""
    texts = values.dropna().map(lambda v: str(v).strip())
    return texts[~texts.isin(_MISSING)]


def _categories(values: pd.Series) -> pd.Series:
    return _present(values).map(_text).reindex(values.index).astype(object).where(lambda s: s.notna(), None)


def _dates(table_name: str, name: str, example: object) -> str:
    return f"column '{name}' of {table_name} holds dates ({example}): turn it into numbers, such as days, or drop it"


def _text(value: object) -> str | None:
    """A label or category as text, whole numbers without their fraction, None for an empty one."""
    if value is None or (isinstance(value, float) and np.isnan(value)) or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    text = str(value).strip()
    whole = re.fullmatch(r"(-?\d+)\.0*", text)
    return (whole[1] if whole else text) or None
