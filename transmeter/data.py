"""Tables: reading them from files, and turning mixed columns into numbers."""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from pyarrow import ArrowException
from scipy.io import arff
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, StandardScaler

FORMATS = ".csv, .csv.gz, .tsv, .parquet, .arff or a saved Hugging Face data set folder"
MAX_CATEGORIES = 20  # of one column; rarer ones share a column
MAX_ROWS = 20_000  # of a table that is used; more are sampled
_UNREADABLE = (pd.errors.ParserError, pd.errors.EmptyDataError, ArrowException, OSError)
_ENDINGS = re.compile(r"(\.csv|\.tsv|\.parquet|\.arff|\.txt|\.jsonl)?(\.gz)?$", re.IGNORECASE)
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


def parse(spec: str) -> tuple[str, Path, str | None]:
    """(name, path, label column or None) of `NAME=PATH::column`; name and column may be left out."""
    name, text = None, spec
    if "=" in spec and not Path(spec.partition("::")[0]).exists():
        name, _, text = spec.partition("=")
    path, _, column = text.partition("::")
    return name or _ENDINGS.sub("", Path(path).name), Path(path), column or None


def load(spec: str, label: str | None = None, strict: bool = True) -> Table:
    """Read `[NAME=]PATH[::column]`. The label column: `column`, else `label`, else 'label'.

    strict: `label` must be there; otherwise a file without it may have its labels in 'label'.

    Raises ValueError for a file that is missing, empty, of no known format or without that column, and as `table`.
    """
    name, path, column = parse(spec)
    frame = read(path)
    column = column or (label if label and (strict or label in frame.columns) else "label")
    if column not in frame.columns:
        raise ValueError(
            f"{path} has no label column '{column}': name it with --label or as PATH::column"
            f" (columns: {_listed(frame.columns)})"
        )
    return table(name, frame.drop(columns=column), frame[column])


@dataclass(frozen=True)
class Unusable:
    """A source that could not be read, and why."""

    name: str
    reason: str


def load_all(specs: Sequence[str], label: str | None = None) -> list[Table | Unusable]:
    """`load` every source; what a file holds may make it `Unusable`, so that one bad file does not end the run.

    Sources without the column `label` may have their labels in 'label'.

    Raises ValueError for a path that does not exist and for two sources of one name.
    """
    names = [parse(s)[0] for s in specs]
    for spec, name in zip(specs, names):
        path = parse(spec)[1]
        if not path.exists():
            raise ValueError(f"{path} does not exist: give {FORMATS}")
        if names.count(name) > 1:
            raise ValueError(f"two sources are called '{name}': name them apart as NAME=PATH")
    found: list[Table | Unusable] = []
    for spec, name in zip(specs, names):
        try:
            found.append(load(spec, label, strict=False))
        except ValueError as error:
            found.append(Unusable(name, str(error)))
    return found


def read(path: Path) -> pd.DataFrame:
    """The file as a data frame. Raises ValueError naming the file and the reason."""
    name = path.name.lower()
    if not path.exists():
        raise ValueError(f"{path} does not exist: give {FORMATS}")
    try:
        if path.is_dir():
            frame = _read_folder(path)
        elif name.endswith((".csv", ".csv.gz", ".tsv", ".tsv.gz")):
            frame = pd.read_csv(
                path, sep="\t" if ".tsv" in name else ",", low_memory=False, keep_default_na=False, na_values=[""]
            )
        elif name.endswith(".parquet"):
            frame = pd.read_parquet(path)
        elif name.endswith(".arff"):
            frame = _read_arff(path)
        else:
            raise ValueError(f"{path} is of no known format: give {FORMATS}")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text (byte {error.start}): convert it first") from None
    except (*_UNREADABLE, arff.ArffError, NotImplementedError) as error:
        raise ValueError(f"{path} cannot be read: {str(error).strip().splitlines()[0]}") from None
    frame.columns = [str(c).strip() for c in frame.columns]
    if frame.columns.duplicated().any():
        raise ValueError(f"{path} has two columns called '{frame.columns[frame.columns.duplicated()][0]}': rename one")
    if frame.empty:
        raise ValueError(f"{path} has no rows: at least two classes of labelled rows are needed")
    return frame


def _read_folder(path: Path) -> pd.DataFrame:
    from datasets import ClassLabel, Dataset, load_from_disk

    loaded = load_from_disk(str(path))
    if not isinstance(loaded, Dataset):
        raise ValueError(f"{path} holds several splits ({', '.join(loaded)}): give the folder of one of them")
    frame = loaded.to_pandas()
    for column, kind in loaded.features.items():
        if isinstance(kind, ClassLabel):
            frame[column] = [kind.names[i] if i is not None and i >= 0 else None for i in loaded[column]]
    return frame


def _read_arff(path: Path) -> pd.DataFrame:
    with open(path, encoding="utf-8") as file:
        rows, _ = arff.loadarff(file)
    frame = pd.DataFrame(rows)
    text = {c: frame[c].str.decode("utf-8").replace("?", None) for c in frame.columns if frame[c].dtype == object}
    return frame.assign(**text)


def table(name: str, features: pd.DataFrame, labels: pd.Series | np.ndarray) -> Table:
    """A table from a data frame and its labels; columns without any value are left out.

    Labels compare as text (1, 1.0 and '1' are one class); an empty one marks an unlabelled row. Raises ValueError for
    dates, infinite values, nested columns, no usable column, fewer than two classes, or a continuous label.
    """
    cleaned = {str(c): _column(name, str(c), features[c]) for c in features.columns}
    cleaned = {c: values for c, values in cleaned.items() if values.notna().any()}
    if not any(values.nunique(dropna=False) > 1 for values in cleaned.values()):
        raise ValueError(f"{name} has no column that varies: nothing can be learned from it")
    texts = np.array([_text(v) for v in pd.Series(labels).tolist()], dtype=object)
    classes = sorted({t for t in texts if t is not None})
    if len(classes) < 2:
        has = f"only the class '{classes[0]}'" if classes else "no labelled row"
        raise ValueError(f"{name} has {has}: two classes are needed")
    labelled = sum(t is not None for t in texts)
    fractional = sum(bool(re.fullmatch(r"-?\d+\.\d+", c)) for c in classes)
    if len(classes) > 20 and (len(classes) > labelled / 2 or fractional > len(classes) / 2):
        raise ValueError(f"{name} has {len(classes)} different labels in {labelled} rows: give classes, not a quantity")
    return Table(name, pd.DataFrame(cleaned).reset_index(drop=True), texts, tuple(classes))


def from_arrays(name: str, features: np.ndarray, labels: np.ndarray) -> Table:
    """A table of feature vectors (n, d) with labels (n,), columns f0..; one class will do.

    Raises ValueError for values that are not finite.
    """
    if not np.isfinite(features).all():
        raise ValueError(f"{name} has feature values that are not finite: replace them first")
    texts = np.array([_text(v) for v in labels.tolist()], dtype=object)
    frame = pd.DataFrame(features.astype(np.float64), columns=[f"f{i}" for i in range(features.shape[1])])
    return Table(name, frame, texts, tuple(sorted({t for t in texts if t is not None})))


def sample(data: Table, rows: int, seed: int) -> Table:
    """At most `rows` rows, drawn at random; the table itself where it has no more."""
    if len(data) <= rows:
        return data
    return data.take(np.sort(np.random.default_rng(seed).permutation(len(data))[:rows]))


def write_json(content: dict, path: Path) -> None:
    """Write JSON under a temporary name, then rename."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    partial.rename(path)


def _column(table_name: str, name: str, values: pd.Series) -> pd.Series:
    """Floats, or text with None for missing."""
    if pd.api.types.is_datetime64_any_dtype(values) or pd.api.types.is_timedelta64_dtype(values):
        raise ValueError(_dates(table_name, name, values.dropna().iloc[0] if values.notna().any() else "dates"))
    if pd.api.types.is_bool_dtype(values) or pd.api.types.is_numeric_dtype(values):
        numbers = values.astype("float64")
        if np.isinf(numbers).any():
            raise ValueError(f"column '{name}' of {table_name} holds infinite values: replace them or leave them empty")
        return numbers
    present = values.dropna()
    if present.map(lambda v: isinstance(v, (list, dict, tuple, np.ndarray))).any():
        raise ValueError(f"column '{name}' of {table_name} holds lists: give one number or text a cell")
    texts = present.map(lambda v: str(v).strip())
    texts = texts[~texts.isin(_MISSING)]
    lower = texts.str.lower() if len(texts) else texts
    if lower.isin(["true", "false"]).all():
        texts = lower.map({"true": "1", "false": "0"})
    numbers = pd.to_numeric(texts, errors="coerce")
    if numbers.notna().all():
        return _column(table_name, name, numbers.astype("float64").reindex(values.index))
    if texts.map(lambda t: bool(_DATE.fullmatch(t))).mean() > 0.9:
        raise ValueError(_dates(table_name, name, texts.iloc[0]))
    return texts.map(_text).reindex(values.index).astype(object).where(lambda s: s.notna(), None)


def _dates(table_name: str, name: str, example: object) -> str:
    return f"column '{name}' of {table_name} holds dates ({example}): turn it into numbers, such as days, or drop it"


def _text(value: object) -> str | None:
    """A label or category as text, whole numbers without their fraction, None for an empty one."""
    if value is None or (isinstance(value, float) and np.isnan(value)) or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, bytes):
        value = value.decode("utf-8")
    text = str(value).strip()
    whole = re.fullmatch(r"(-?\d+)\.0*", text)
    return (whole[1] if whole else text) or None


def _listed(columns: pd.Index) -> str:
    return ", ".join(map(str, columns[:12])) + (", ..." if len(columns) > 12 else "")


class Encoder:
    """Mixed columns to standardised numbers, by scikit-learn's imputer, scaler and one-hot encoder.

    Fitted on the given rows only. names: of the d encoded features; mean, scale (d,): encoded = (value - mean) / scale.
    """

    def __init__(self, features: pd.DataFrame):
        self.numeric = [c for c in features if pd.api.types.is_float_dtype(features[c])]
        self.categorical = [c for c in features if c not in self.numeric]
        self._imputer = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
        self._scaler = StandardScaler()
        self._onehot = OneHotEncoder(
            handle_unknown="infrequent_if_exist",
            max_categories=MAX_CATEGORIES,
            min_frequency=0.01,
            sparse_output=False,
            dtype=np.float32,
            feature_name_combiner=lambda column, category: f"{column}={category}",
        )
        self.names: list[str] = []
        if self.numeric:
            self._scaler.fit(self._imputer.fit_transform(features[self.numeric].to_numpy(dtype=np.float64)))
            missing = [self.numeric[i] for i in self._imputer.indicator_.features_]
            self.names += self.numeric + [f"{c} is missing" for c in missing]
        if self.categorical:
            self._onehot.fit(features[self.categorical].fillna("(missing)"))
            self.names += [str(n) for n in self._onehot.get_feature_names_out(self.categorical)]
        plain = len(self.names) - (len(self._scaler.mean_) if self.numeric else 0)
        self.mean = np.concatenate([self._scaler.mean_ if self.numeric else [], np.zeros(plain)])
        self.scale = np.concatenate([self._scaler.scale_ if self.numeric else [], np.ones(plain)])

    def __call__(self, features: pd.DataFrame) -> np.ndarray:
        """(n, d) float32, clipped to 10 standard deviations."""
        parts = []
        if self.numeric:
            filled = self._imputer.transform(features[self.numeric].to_numpy(dtype=np.float64))
            parts.append(self._scaler.transform(filled))
        if self.categorical:
            parts.append(self._onehot.transform(features[self.categorical].fillna("(missing)")))
        return np.clip(np.concatenate(parts, axis=1), -10, 10).astype(np.float32)
