"""What a Python user has at hand as tables: data frames, arrays, data sets, paths."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

import numpy as np
import pandas as pd
import scipy.sparse
from numpy.typing import ArrayLike

from transmeter.tables.data import Table, Unusable, from_frame, load, table
from transmeter.tables.delimited import check_names
from transmeter.tables.files import from_dataset
from transmeter.tables.specs import check_exists, parse
from transmeter.util.arguments import column_name

if TYPE_CHECKING:
    from datasets import Dataset

# a table, a data frame with its labels in a column, (X, y), a data set, or [NAME=]PATH[::LABEL_COLUMN]
Given: TypeAlias = Union[Table, pd.DataFrame, tuple[ArrayLike, ArrayLike], "Dataset", str, Path]


MAX_DENSE = 20_000_000  # cells of a sparse matrix that is made dense


def as_table(
    given: Given,
    name: str | None = None,
    label: str | int | None = None,
    key: str | int | None = None,
    strict: bool = True,
) -> Table:
    """What is given as a table called `name` (None: as its file, or "data").

    label, key, strict: as in `data.load`, where columns have names; columns of an array are called f0.. and so match
    by their place. Raises ValueError as `data.load`, and for what is none of these.
    """
    label, key = column_name("label", label), column_name("key", key)
    if isinstance(given, Table):
        return replace(given, name=name) if name else given
    if isinstance(given, str | Path):
        found = load(str(given), label, strict, key)
        return replace(found, name=name) if name else found
    name = name or "data"
    if isinstance(given, pd.DataFrame):
        return from_frame(name, given, None, label, strict, key)
    if isinstance(given, tuple) and len(given) == 2:
        if isinstance(given[0], str):
            raise ValueError(f"{name} is a pair that begins with '{given[0]}': give a dict of names and data sets")
        features = columns(name, given[0])
        labels = pd.Series(np.asarray(given[1], dtype=None if hasattr(given[1], "__array__") else object).ravel())
        if len(labels) != len(features):
            raise ValueError(f"{name} has {len(features)} rows and {len(labels)} labels: give one label a row")
        return table(name, features.reset_index(drop=True), labels)
    if hasattr(given, "to_pandas") and hasattr(given, "features"):  # a data set, which takes a second to import
        return from_frame(name, from_dataset(given), None, label, strict, key)
    if hasattr(given, "to_pandas"):  # of polars or pyarrow
        return from_frame(name, given.to_pandas(), None, label, strict, key)
    wanted = "a data frame with a label column, (X, y), a datasets.Dataset, a path or a Table"
    raise ValueError(f"{name} is a {type(given).__name__}: give {wanted}")


def columns(name: str, features: ArrayLike) -> pd.DataFrame:
    """(n, d) features as a data frame with names of text, f0.. for an array. Raises ValueError for another shape."""
    features = features.to_pandas() if hasattr(features, "to_pandas") else features  # of polars or pyarrow
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
) -> list[Table | Unusable]:
    """Every source as a table; what it holds may make it `Unusable`, so that one bad source does not end the run.

    One that stands alone, in no list, is the only one. Named by the mapping's keys, by their files, or source 1.. by
    their place. Sources without the column `label` may have their labels in 'label', sources without `key` no keys.
    Raises ValueError for what is no list and no source, a path that does not exist, and two sources of one name.
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
            found.append(source if isinstance(source, Unusable) else as_table(source, name, label, key, strict=False))
        except ValueError as error:
            found.append(Unusable(name, str(error)))
    return found


def _is_one(given: object) -> bool:
    """Whether sources are one source alone. Of a tuple of two, the second of a pair (X, y) is no source by itself."""
    if isinstance(given, tuple) and len(given) == 2:
        return not _is_one(given[1]) and not (isinstance(given[1], tuple) and len(given[1]) == 2)
    return isinstance(given, str | Path | Table | pd.DataFrame) or hasattr(given, "to_pandas")


def _name(given: Given, place: int) -> str:
    if isinstance(given, str | Path):
        return parse(str(given))[0]
    return given.name if isinstance(given, Table | Unusable) else f"source {place}"
