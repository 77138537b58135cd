"""Tables: reading them from files, and their classes and rows."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from transmeter.tables.columns import Reading, amounts, clean, conform, listed, numeric_columns, say
from transmeter.tables.files import read
from transmeter.tables.formats.delimited import NOTES, check_names
from transmeter.tables.labels import label_texts, read_labels
from transmeter.tables.specs import USUAL, Dialect, parse
from transmeter.util.counts import counted
from transmeter.util.suggestions import did_you_mean

LOG = logging.getLogger(__name__)
MAX_ROWS = 20_000  # of a table that is used; more are sampled


@dataclass(frozen=True)
class Table:
    """Rows of one data set.

    Attributes
    ----------
    name
        What messages and results call it.
    features
        (n, columns) floats, or text / None in categorical columns.
    labels
        (n,) text, None where unlabelled.
    classes
        The distinct labels, sorted.
    keys
        (n,) what each row is about; None where nothing says so.
    class_map
        The source's own names of classes with those of the target that they stand for; empty before they are aligned.
    readings
        How columns are read of which there is something to say.
    notes
        What was decided of its columns, rows and labels, a line each.
    quantity
        (n,) label as a number, NaN where unlabelled, of which `labels` are then the terciles; None: the label is a
        class.
    """

    name: str
    features: pd.DataFrame
    labels: np.ndarray
    classes: tuple[str, ...]
    keys: np.ndarray | None = None
    class_map: Mapping[str, str] = field(default_factory=dict)
    readings: Mapping[str, Reading] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    quantity: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.features)

    @property
    def columns(self) -> list[str]:
        """Names of the feature columns."""
        return list(self.features.columns)

    @property
    def unlabelled(self) -> bool:
        """Whether no row has a label."""
        return all(label is None for label in self.labels)

    @property
    def codes(self) -> np.ndarray:
        """(n,) index of each label in `classes`, -1 where unlabelled."""
        index = {c: i for i, c in enumerate(self.classes)}
        return np.array([index.get(label, -1) for label in self.labels], dtype=np.int64)

    def take(self, rows: np.ndarray) -> "Table":
        """The rows of these numbers, classes unchanged."""
        keys = None if self.keys is None else self.keys[rows]
        features = self.features.iloc[rows].reset_index(drop=True)
        quantity = None if self.quantity is None else self.quantity[rows]
        return replace(self, features=features, labels=self.labels[rows], keys=keys, quantity=quantity)


@dataclass(frozen=True)
class Unusable:
    """A source that could not be read, and why.

    Attributes
    ----------
    name
        What results call it.
    reason
        The message, one line.
    """

    name: str
    reason: str


def load(
    spec: str,
    label: str | None = None,
    strict: bool = True,
    key: str | None = None,
    dialect: Dialect = USUAL,
    unlabelled: bool = False,
) -> Table:
    """Read a table from a file.

    Parameters
    ----------
    spec
        `[NAME=]PATH[::column]`.
    label
        Label column where `spec` names none; None: "label".
    strict
        Whether `label` and `key` must be there; otherwise a file without them may have its labels in "label", and no
        keys.
    key
        Column of the rows' keys, which is no feature; None: none.
    dialect
        How text files are written.
    unlabelled
        Whether a file without a label column or without any label will do.

    Returns
    -------
    Table
        Of more than MAX_ROWS rows a sample.

    Raises
    ------
    ValueError
        For a file that is missing, empty, of no known format or without that column, and as `table`.
    """
    name, path, column = parse(spec)
    frame = read(path, dialect=dialect)
    found = from_frame(name, frame, column, label, strict, key, str(path), dialect.decimal, unlabelled)
    return replace(found, notes=(*frame.attrs.get(NOTES, ()), *found.notes))


def from_frame(
    name: str,
    frame: pd.DataFrame,
    column: str | None = None,
    label: str | None = None,
    strict: bool = True,
    key: str | None = None,
    where: str | None = None,
    decimal: str | None = None,
    unlabelled: bool = False,
) -> Table:
    """The table in a data frame, with labels and keys among its columns or in its index.

    Parameters
    ----------
    name
        What messages call it.
    frame
        (n, columns).
    column
        Label column that must be there.
    label, strict, key
        As for `load`.
    where
        What errors name; None: `name`.
    decimal
        As for `columns.clean`.
    unlabelled
        Whether labels may be missing altogether: a label column that `column` does not name may be missing then, unless
        a column is called much like it.

    Returns
    -------
    Table
        Of more than MAX_ROWS rows a sample.

    Raises
    ------
    ValueError
        As `load`, and for two columns of one name.
    """
    where = where or name
    asked = column or label or "label"
    levels = [n for n in frame.index.names if n is not None and str(n) in (asked, key)]
    frame = frame.reset_index(level=levels) if levels else frame
    frame = frame.set_axis([str(c) for c in frame.columns], axis=1)
    check_names(where, frame.columns)
    notes: tuple[str, ...] = ()
    if unlabelled and not column and _is_without(asked, frame):
        frame, notes = frame.assign(**{asked: None}), (f"no label column '{asked}': no row is labelled",)
        warnings.warn(f"{name}: {notes[0]} (columns: {listed(frame.columns.drop(asked))})", stacklevel=2)
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
        notes += (f"{MAX_ROWS} of {len(frame)} rows are used, drawn at random",)
        warnings.warn(f"{name}: {notes[-1]}", stacklevel=2)
        frame = frame.iloc[_drawn(frame[column].notna().to_numpy(), MAX_ROWS, seed=0)]
    keys = frame[key] if key in frame.columns else None
    features = frame.drop(columns=[column] if keys is None else [column, key])
    read = table(name, features, frame[column], keys, decimal, unlabelled)
    if not read.unlabelled:
        LOG.info("%s: labels are in column '%s'", name, column)
    return replace(read, notes=notes + read.notes)


def _is_without(label: str, frame: pd.DataFrame) -> bool:
    """Whether a table has no label column, and none that is called much like it, which may be a slip."""
    like = (word in c.casefold() for c in frame.columns for word in (label.casefold(), "label"))
    return not any(like) and not did_you_mean(label, frame.columns)


def table(
    name: str,
    features: pd.DataFrame,
    labels: pd.Series | np.ndarray,
    keys: pd.Series | np.ndarray | None = None,
    decimal: str | None = None,
    unlabelled: bool = False,
) -> Table:
    """A table from a data frame and its labels.

    Parameters
    ----------
    name
        What messages call it.
    features
        (n, columns), which are read as by `columns.clean`.
    labels
        (n,) of any kind, which are read as by `labels.read_labels`: 1, 1.0 and "1" are one class, an empty one marks an
        unlabelled row, a quantity is kept beside classes.
    keys
        (n,) what each row is about; None: nothing says so.
    decimal
        As for `columns.clean`.
    unlabelled
        Whether all labels may be missing.

    Returns
    -------
    Table
        All rows.

    Raises
    ------
    ValueError
        As `columns.clean` and `labels.read_labels`.
    """
    frame, readings = clean(name, features, decimal)
    labels, said = amounts(labels, decimal)
    say(name, said)
    texts, quantity, lines = read_labels(name, labels, unlabelled)
    classes = tuple(sorted({t for t in texts if t is not None}))
    notes = (*(reading.line for reading in readings.values()), *said, *lines)
    return Table(
        name=name,
        features=frame,
        labels=texts,
        classes=classes,
        keys=None if keys is None else label_texts(keys),
        readings=readings,
        notes=notes,
        quantity=quantity,
    )


def rows_like(known: Table, name: str, frame: pd.DataFrame) -> pd.DataFrame:
    """The feature columns of a table in another data frame, whose other columns are left out.

    Parameters
    ----------
    known
        The table.
    name
        What errors call the rows.
    frame
        (n, columns).

    Returns
    -------
    pandas.DataFrame
        (n, columns of the table).

    Raises
    ------
    ValueError
        As `columns.conform`.
    """
    numeric = numeric_columns(known.features)
    categorical = [c for c in known.columns if c not in numeric]
    return conform(name, frame, numeric, categorical, known.readings)[known.columns]


def from_arrays(name: str, features: np.ndarray, labels: np.ndarray, columns: Sequence[str] | None = None) -> Table:
    """A table of feature vectors; one class will do.

    Parameters
    ----------
    name
        What messages call it.
    features
        (n, d) numbers.
    labels
        (n,) of any kind.
    columns
        d names; None: f0..

    Returns
    -------
    Table
        All rows.

    Raises
    ------
    ValueError
        For values that are not finite.
    """
    if not np.isfinite(features).all():
        raise ValueError(f"{name} has feature values that are not finite: replace them first")
    texts = label_texts(labels)
    frame = pd.DataFrame(
        features.astype(np.float64), columns=list(columns or (f"f{i}" for i in range(features.shape[1])))
    )
    return Table(name, frame, texts, tuple(sorted({t for t in texts if t is not None})))


def sample(data: Table, rows: int, seed: int) -> Table:
    """At most so many rows, drawn at random.

    Parameters
    ----------
    data
        A table.
    rows
        The most that are kept; labelled ones fill half of the places first.
    seed
        Of the draw.

    Returns
    -------
    Table
        `data` itself where it has no more.
    """
    if len(data) <= rows:
        return data
    return data.take(_drawn(data.codes >= 0, rows, seed))


def in_order(data: Table) -> Table:
    """The rows in an order that follows from what is in them, so that draws of rows do not depend on the file's.

    Parameters
    ----------
    data
        A table.

    Returns
    -------
    Table
        Rows in the same order whatever the order of rows and columns, and whatever the columns' names.
    """
    hashed = [pd.util.hash_array(data.features[c].to_numpy()) for c in data.columns]
    hashed.sort(key=lambda column: int(column.sum()))  # by what is in them, so that no name counts
    others = [data.codes if data.quantity is None else data.quantity]
    others += [] if data.keys is None else [data.keys]
    rows = pd.util.hash_pandas_object(pd.DataFrame(dict(enumerate([*hashed, *others]))), index=False)
    return data.take(np.argsort(rows.to_numpy(), kind="stable"))


def drop_small_classes(data: Table, rows: int) -> Table:
    """A table without the rows of classes that have too few.

    Parameters
    ----------
    data
        A table.
    rows
        The fewest of a class that stays.

    Returns
    -------
    Table
        `data` itself where all classes have so many, and of a quantity; unlabelled rows stay.

    Raises
    ------
    ValueError
        Where fewer than two classes are left.
    """
    counts = np.bincount(data.codes[data.codes >= 0], minlength=len(data.classes))
    if data.quantity is not None or (counts >= rows).all():
        return data
    classes = tuple(c for c, n in zip(data.classes, counts) if n >= rows)
    if len(classes) < 2:
        few = counted(len(classes), "class", "classes")
        raise ValueError(f"{data.name} has {few} of {rows} rows or more: two classes are needed")
    small = [c for c in data.classes if c not in classes]
    left = np.array([label not in small for label in data.labels])
    out = int((~left).sum())
    are = "is" if out == 1 else "are"
    note = f"{counted(out, 'row')} of classes of fewer than {rows} rows {are} left out: {listed(small)}"
    warnings.warn(f"{data.name}: {note}", stacklevel=2)
    return replace(data.take(np.flatnonzero(left)), classes=classes, notes=(*data.notes, note))


def _drawn(labelled: np.ndarray, rows: int, seed: int) -> np.ndarray:
    """Sorted numbers of `rows` rows; labelled ones (n,) fill half of the places first, lest few of them get lost."""
    order = np.random.default_rng(seed).permutation(len(labelled))
    if labelled.all():
        return np.sort(order[:rows])
    first = order[labelled[order]][: rows // 2]
    left = np.ones(len(order), dtype=bool)
    left[first] = False
    rest = order[left[order]]
    return np.sort(np.concatenate([first, rest])[:rows])
