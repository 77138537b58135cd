"""What two tables have in common: features of the same name, and classes of the same name or place."""

import re
from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from transmeter.data import Encoder, Table


def normalise(name: str) -> str:
    """A column name without case, spaces and punctuation; the category behind `=` stays as it is."""
    column, equals, category = name.partition("=")
    return (re.sub(r"[\W_]+", "", column.casefold()) or column) + equals + category


def shared_features(source: Sequence[str], target: Sequence[str]) -> list[tuple[int, int]]:
    """(source index, target index) of the features whose normalised names are equal; a name that is not unique on a
    side matches its first."""
    index: dict[str, int] = {}
    for i, name in enumerate(source):
        index.setdefault(normalise(name), i)
    pairs: dict[int, int] = {}
    for j, name in enumerate(target):
        i = index.get(normalise(name))
        if i is not None:
            pairs.setdefault(i, j)
    return list(pairs.items())


def common_features(source: Table, target: Table) -> tuple[np.ndarray, np.ndarray] | None:
    """(n_s, d) and (n_t, d) float32: the columns of one name and kind, in units of the target's standard deviation.

    None where there is no such column.
    """
    pairs = [
        (source.columns[i], target.columns[j])
        for i, j in shared_features(source.columns, target.columns)
        if source.features.dtypes.iloc[i] == target.features.dtypes.iloc[j]
    ]
    if not pairs:
        return None
    there = target.features[[j for _, j in pairs]]
    encoder = Encoder(there)
    here = source.features[[i for i, _ in pairs]].set_axis(there.columns, axis=1)
    return encoder(here), encoder(there)


def match_classes(
    source: Sequence[str], target: Sequence[str], means_s: np.ndarray | None, means_t: np.ndarray | None
) -> np.ndarray:
    """For every target class the index of its source class, or -1; (target classes,).

    Same names map to each other. Without any, the classes are assigned so that the summed distance of their means
    (classes, h) is least; where that cannot be done (fewer source classes, or no means), none maps.
    """
    named = np.array([source.index(c) if c in source else -1 for c in target])
    if (named >= 0).any() or means_s is None or means_t is None or len(source) < len(target):
        return named
    distance = np.linalg.norm(means_t[:, None] - means_s[None], axis=2)
    rows, columns = linear_sum_assignment(distance)
    named[rows] = columns
    return named
