"""What a Python user has at hand as tables: data frames, arrays, data sets, paths."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from transmeter.data import Table, Unusable, from_frame, load, table
from transmeter.files import FORMATS, check_names, from_dataset
from transmeter.specs import parse
from transmeter.suggest import absent

if TYPE_CHECKING:
    from datasets import Dataset

# a table, a data frame with its labels in a column, (X, y), a data set, or [NAME=]PATH[::LABEL_COLUMN]
Given: TypeAlias = Union[Table, pd.DataFrame, tuple[ArrayLike, ArrayLike], "Dataset", str, Path]


def as_table(
    given: Given, name: str | None = None, label: str | None = None, key: str | None = None, strict: bool = True
) -> Table:
    """What is given as a table called `name` (None: as its file, or "data").

    label, key, strict: as in `data.load`, where columns have names; columns of an array are called f0.. and so match
    by their place. Raises ValueError as `data.load`, and for what is none of these.
    """
    if isinstance(given, Table):
        return replace(given, name=name) if name else given
    if isinstance(given, str | Path):
        found = load(str(given), label, strict, key)
        return replace(found, name=name) if name else found
    name = name or "data"
    if isinstance(given, pd.DataFrame):
        return from_frame(name, given, None, label, strict, key)
    if isinstance(given, tuple) and len(given) == 2:
        features = columns(name, given[0])
        labels = pd.Series(np.asarray(given[1], dtype=object).ravel())
        if len(labels) != len(features):
            raise ValueError(f"{name} has {len(features)} rows and {len(labels)} labels: give one label a row")
        return table(name, features.reset_index(drop=True), labels)
    if hasattr(given, "to_pandas") and hasattr(given, "features"):  # a data set, which takes a second to import
        return from_frame(name, from_dataset(given), None, label, strict, key)
    wanted = "a data frame with a label column, (X, y), a datasets.Dataset, a path or a Table"
    raise ValueError(f"{name} is a {type(given).__name__}: give {wanted}")


def columns(name: str, features: ArrayLike) -> pd.DataFrame:
    """(n, d) features as a data frame with names of text, f0.. for an array. Raises ValueError for another shape."""
    if isinstance(features, pd.DataFrame):
        frame = features.set_axis([str(c) for c in features.columns], axis=1)
        check_names(name, frame.columns)
        return frame
    array = np.asarray(features)
    if array.ndim != 2:
        raise ValueError(f"{name} has features of shape {array.shape}: give (rows, columns)")
    return pd.DataFrame(array, columns=[f"f{i}" for i in range(array.shape[1])])


def as_tables(
    given: Mapping[str, Given] | Sequence[Given], label: str | None = None, key: str | None = None
) -> list[Table | Unusable]:
    """Every source as a table; what it holds may make it `Unusable`, so that one bad source does not end the run.

    Named by the mapping's keys, by their files, or source 1.. by their place. Sources without the column `label` may
    have their labels in 'label', sources without `key` no keys. Raises ValueError for a path that does not exist and
    for two sources of one name.
    """
    if isinstance(given, str | Path | Table | pd.DataFrame):
        given = [given]
    named = given if isinstance(given, Mapping) else {}
    items = list(named.items()) or [(_name(g, place), g) for place, g in enumerate(given, 1)]
    names = [name for name, _ in items]
    for name, source in items:
        if isinstance(source, str | Path) and not parse(str(source))[1].exists():
            raise ValueError(f"{absent(parse(str(source))[1])}: give {FORMATS}")
        if names.count(name) > 1:
            raise ValueError(f"two sources are called '{name}': name them apart, as NAME=PATH or in a dict")
    found: list[Table | Unusable] = []
    for name, source in items:
        try:
            found.append(as_table(source, name, label, key, strict=False))
        except ValueError as error:
            found.append(Unusable(name, str(error)))
    return found


def _name(given: Given, place: int) -> str:
    if isinstance(given, str | Path):
        return parse(str(given))[0]
    return given.name if isinstance(given, Table) else f"source {place}"
