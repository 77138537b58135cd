"""Mixed columns as standardised numbers, by plain figures that can be written to a file."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from transmeter.tables.columns import numeric_columns

MAX_CATEGORIES = 20  # of one column; rarer ones share a column
EMPTY = "(missing)"  # the category of an empty cell


@dataclass(frozen=True)
class Categories:
    """The encoded features of one column of categories.

    Attributes
    ----------
    places
        Number of the encoded feature of each category.
    other
        That of rare and unknown categories; None: they have none.
    """

    places: dict[str, int]
    other: int | None


class Encoder:
    """Medians, and what scikit-learn's scaler and one-hot encoder have learned from the given rows, and only those.

    Parameters
    ----------
    features
        (n, columns) floats and texts, as in a table.

    Attributes
    ----------
    numeric, categorical
        Names of columns.
    names
        Of the d encoded features.
    """

    def __init__(self, features: pd.DataFrame):
        self.numeric = numeric_columns(features)
        self.categorical = [str(c) for c in features.columns.difference(self.numeric, sort=False)]
        self.names: list[str] = []
        self.missing: list[int] = []  # numbers of the numeric columns that have gaps
        self.medians, self.means, self.scales = np.zeros(0), np.zeros(0), np.zeros(0)
        self.categories: list[Categories] = []
        if self.numeric:
            numbers = features[self.numeric].astype(np.float64)
            self.missing = np.flatnonzero(numbers.isna().any()).tolist()
            self.medians = numbers.median().fillna(0.0).to_numpy()  # in a fourth of SimpleImputer's time
            scaler = StandardScaler().fit(self._filled(numbers.to_numpy()))
            self.means, self.scales = scaler.mean_, scaler.scale_
            self.names += self.numeric + [f"{self.numeric[i]} is missing" for i in self.missing]
        if self.categorical:
            onehot = OneHotEncoder(
                handle_unknown="infrequent_if_exist",
                max_categories=MAX_CATEGORIES,
                min_frequency=0.01,
                feature_name_combiner=lambda column, category: f"{column}={category}",
            ).fit(features[self.categorical].fillna(EMPTY))
            first = 0
            for known, rare in zip(onehot.categories_, onehot.infrequent_categories_):
                kept = [c for c in known if rare is None or c not in set(rare)]
                other = None if rare is None else first + len(kept)
                self.categories.append(Categories({c: first + i for i, c in enumerate(kept)}, other))
                first += len(kept) + (rare is not None)
            self.names += [str(n) for n in onehot.get_feature_names_out(self.categorical)]

    def __call__(self, features: pd.DataFrame) -> np.ndarray:
        """(n, d) float32, clipped to 10 standard deviations."""
        parts = []
        if self.numeric:
            filled = self._filled(features[self.numeric].to_numpy(dtype=np.float64))
            parts.append((filled - self.means) / self.scales)
        if self.categorical:
            onehot = np.zeros((len(features), len(self.names) - len(self.means)))
            for column, categories in zip(self.categorical, self.categories):
                texts = features[column].fillna(EMPTY)
                place = np.array([categories.places.get(t, -1) for t in texts])
                if categories.other is not None:
                    place[place < 0] = categories.other
                rows = np.flatnonzero(place >= 0)
                onehot[rows, place[rows]] = 1
            parts.append(onehot)
        return np.clip(np.concatenate(parts, axis=1), -10, 10).astype(np.float32)

    def _filled(self, values: np.ndarray) -> np.ndarray:
        """(n, numeric + missing): medians in the gaps of (n, numeric), and which of the columns with gaps had one."""
        gaps = np.isnan(values)
        return np.concatenate([np.where(gaps, self.medians, values), gaps[:, self.missing]], axis=1)

    def state(self) -> dict[str, Any]:
        """All that `restore` needs, as numbers, texts and lists."""
        figures = {name: getattr(self, name).tolist() for name in ("medians", "means", "scales")}
        known = {name: getattr(self, name) for name in ("numeric", "categorical", "names", "missing")}
        return known | figures | {"categories": [asdict(c) for c in self.categories]}

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> "Encoder":
        """The encoder of a `state`. Raises KeyError, TypeError or ValueError for what is none."""
        found = cls.__new__(cls)
        for name in ("numeric", "categorical", "names", "missing"):
            setattr(found, name, list(state[name]))
        for name in ("medians", "means", "scales"):
            setattr(found, name, np.array(state[name], dtype=np.float64))
        found.categories = [Categories(**c) for c in state["categories"]]
        return found
