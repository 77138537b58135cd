"""What a Python user has at hand as tables: data frames, arrays, data sets, paths."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar, Union

import numpy as np
import pandas as pd
import scipy.sparse
from numpy.typing import ArrayLike

from transmeter.tables.data import Table, Unusable, from_frame, load, table
from transmeter.tables.files import from_dataset
from transmeter.tables.formats.delimited import check_names
from transmeter.tables.specs import USUAL, Dialect, check_exists, parse
from transmeter.util.arguments import column_name

if TYPE_CHECKING:
    from datasets import Dataset

# a table, a data frame with its labels in a column, (X, y), a data set, or [NAME=]PATH[::LABEL_COLUMN]
Given: TypeAlias = Union[Table, pd.DataFrame, tuple[ArrayLike, ArrayLike], "Dataset", str, Path]

T = TypeVar("T")
MAX_DENSE = 20_000_000  # cells of a sparse matrix that is made dense
SPLITS = "give one of its splits, such as data['train']"
# what users have at hand that is no table yet, by the names of the types, and what makes it one
UNREAD = {"LazyFrame": "collect it first: frame.collect()", "DatasetDict": SPLITS, "IterableDatasetDict": SPLITS}


def as_table(
    given: Given,
    name: str | None = None,
    label: str | int | None = None,
    key: str | int | None = None,
    strict: bool = True,
    dialect: Dialect = USUAL,
    unlabelled: bool = False,
) -> Table:
    """What a user has at hand as a table.

    Parameters
    ----------
    given
        A table, a data frame, (X, y), a data set or the name of a file. Columns of an array are called f0.. and so
        match by their place.
    name
        What messages call it; None: as its file, or "data".
    label, key, strict
        As for `data.load`, where columns have names.
    dialect
        How text files are written; its decimal mark is that of texts in data frames too.
    unlabelled
        Whether a table without any label will do; of a pair (X, y) y may be None then.

    Returns
    -------
    Table
        `given` itself where it is one.

    Raises
    ------
    ValueError
        As `data.load`, for what is none of these, and for rows and labels that do not fit.
    """
    label, key = column_name("label", label), column_name("key", key)
    if isinstance(given, Table):
        if given.unlabelled and not unlabelled:
            raise ValueError(f"{name or given.name} has no labelled row: two classes are needed")
        return replace(given, name=name) if name else given
    if isinstance(given, str | Path):
        found = load(str(given), label, strict, key, dialect, unlabelled)
        return replace(found, name=name) if name else found
    name = name or "data"
    if isinstance(given, pd.DataFrame):
        return from_frame(name, given, None, label, strict, key, None, dialect.decimal, unlabelled)
    if isinstance(given, tuple) and len(given) == 2:
        if isinstance(given[0], str):
            raise ValueError(f"{name} is a pair that begins with '{given[0]}': give a dict of names and data sets")
        features = columns(name, given[0])
        if given[1] is None and unlabelled:
            given = given[0], np.full(len(features), None, dtype=object)
        labels = pd.Series(np.asarray(given[1], dtype=None if hasattr(given[1], "__array__") else object).ravel())
        if len(labels) != len(features):
            raise ValueError(f"{name} has {len(features)} rows and {len(labels)} labels: give one label a row")
        return table(name, features.reset_index(drop=True), labels, None, dialect.decimal, unlabelled)
    if isinstance(frame := as_pandas(given, name), pd.DataFrame):
        return from_frame(name, frame, None, label, strict, key, None, dialect.decimal, unlabelled)
    wanted = "a data frame with a label column, (X, y), a datasets.Dataset, a path or a Table"
    raise ValueError(f"{name} is a {type(given).__name__}: give {wanted}")


def as_pandas(given: T, name: str) -> T | pd.DataFrame:
    """A data frame of another library, such as polars or pyarrow, or a data set as a data frame of pandas.

    Parameters
    ----------
    given
        Anything.
    name
        What errors call it.

    Returns
    -------
    object
        `given` itself where it is no such data frame; classes of a data set by their names.

    Raises
    ------
    ValueError
        For what is no table yet, such as a LazyFrame.
    """
    kind = type(given).__name__
    if kind in UNREAD:
        raise ValueError(f"{name} is a {kind}: {UNREAD[kind]}")
    if hasattr(given, "to_pandas") and hasattr(given, "features"):  # a data set, which takes a second to import
        return from_dataset(given, name)
    return given.to_pandas() if hasattr(given, "to_pandas") else given


def columns(name: str, features: ArrayLike) -> pd.DataFrame:
    """Features as a data frame whose columns are called by texts.

    Parameters
    ----------
    name
        What errors call them.
    features
        (n, d) data frame, array or sparse matrix, which is made dense.

    Returns
    -------
    pandas.DataFrame
        (n, d); columns of an array are called f0..

    Raises
    ------
    ValueError
        For another shape, two columns of one name, and a sparse matrix of more than MAX_DENSE cells.
    """
    features = as_pandas(features, name)
    if isinstance(features, pd.DataFrame):
        frame = features.set_axis([str(c) for c in features.columns], axis=1)
        check_names(name, frame.columns)
        return frame
    if scipy.sparse.issparse(features):
        features = _dense(name, features)
    try:
        array = np.asarray(features)
    except ValueError:
        raise ValueError(f"{name} has rows of different lengths: give (rows, columns)") from None
    if array.ndim != 2:
        raise ValueError(f"{name} has features of shape {array.shape}: give (rows, columns)")
    return pd.DataFrame(array, columns=[f"f{i}" for i in range(array.shape[1])])


def _dense(name: str, features: scipy.sparse.spmatrix) -> np.ndarray:
    """A sparse matrix with its zeros. Raises ValueError for one that is too large for that."""
    shape = " x ".join(map(str, features.shape))
    if math.prod(features.shape) > MAX_DENSE:
        remedy = "reduce its columns first, for example by sklearn.decomposition.TruncatedSVD"
        raise ValueError(f"{name} is a sparse matrix of {shape} cells, dense at most {MAX_DENSE:,} are taken: {remedy}")
    warnings.warn(f"{name}: the sparse matrix of {shape} cells is made dense", stacklevel=4)
    return features.toarray()


def as_tables(
    given: Mapping[str, Given] | Sequence[Given | Unusable] | Given,
    label: str | int | None = None,
    key: str | int | None = None,
    dialect: Dialect = USUAL,
    strict: bool = False,
) -> list[Table | Unusable]:
    """Every source as a table; what it holds may make it `Unusable`, so that one bad source does not end the run.

    Parameters
    ----------
    given
        A list of sources, a mapping of them by name, or one alone.
    label, key
        As for `data.load`; sources without the column `label` may have their labels in "label", those without `key`
        no keys.
    dialect
        As for `as_table`.
    strict
        Whether every source must have the column `label`.

    Returns
    -------
    list
        Named by the mapping's keys, by their files, or "source 1".. by their place.

    Raises
    ------
    ValueError
        For what is no list and no source, a path that does not exist, and two sources of one name.
    """
    if _is_one(given):
        given = [given]
    if not isinstance(given, Mapping | list | tuple):
        raise ValueError(f"sources is a {type(given).__name__}: give a list of sources, or a dict of them by name")
    named = {str(name): source for name, source in given.items()} if isinstance(given, Mapping) else {}
    items = list(named.items()) or [(_name(g, place), g) for place, g in enumerate(given, 1)]
    names = [name for name, _ in items]
    for name, source in items:
        if isinstance(source, str | Path):
            check_exists(source)
        if names.count(name) > 1:
            raise ValueError(f"two sources are called '{name}': name them apart, as NAME=PATH or in a dict")
    found: list[Table | Unusable] = []
    for name, source in items:
        try:
            usable = not isinstance(source, Unusable)
            found.append(as_table(source, name, label, key, strict, dialect) if usable else source)
        except ValueError as error:
            found.append(Unusable(name, str(error)))
    return found


def all_usable(tables: Sequence[Table | Unusable]) -> list[Table]:
    """The tables, where each can be used.

    Parameters
    ----------
    tables
        Of `as_tables`.

    Returns
    -------
    list of Table

    Raises
    ------
    ValueError
        For one that cannot be used.
    """
    for unusable in (t for t in tables if isinstance(t, Unusable)):
        raise ValueError(unusable.reason)
    return [t for t in tables if isinstance(t, Table)]


def _is_one(given: object) -> bool:
    """Whether sources are one source alone. Of a tuple of two, the second of a pair (X, y) is no source by itself."""
    if isinstance(given, tuple) and len(given) == 2:
        return not _is_one(given[1]) and not (isinstance(given[1], tuple) and len(given[1]) == 2)
    return isinstance(given, str | Path | Table | pd.DataFrame) or hasattr(given, "to_pandas")


def _name(given: Given, place: int) -> str:
    if isinstance(given, str | Path):
        return parse(str(given))[0]
    return given.name if isinstance(given, Table | Unusable) else f"source {place}"


def target_name(target: Given) -> str | None:
    """What a target without a name of its own is called.

    Parameters
    ----------
    target : table
        As in `rank`.

    Returns
    -------
    str or None
        None for one that has a name.
    """
    return None if isinstance(target, str | Path | Table) else "target"
