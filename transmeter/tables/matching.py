"""What two tables have in common: columns of one name or meaning, and classes of the same name or place."""

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

from transmeter.tables.columns import numeric_columns
from transmeter.tables.data import Table
from transmeter.tables.encoding import Encoder
from transmeter.tables.names import likeness, same_numbers, telling, words

THRESHOLD = 0.6  # confidence from which columns match by meaning
MARGIN = 0.05  # by which the best candidate must beat the next, on either side
KIN = 0.6  # share of the narrower table's columns matched from which the two are taken to record the same things,
LIFT = 0.6  # so that their other columns need this much less likeness of names
MAX_COLUMNS = 200  # telling columns of a table left after names; with more, meaning is not looked at
SEEN = 2000  # about so many values of a column are compared
CODES = 10  # most different whole numbers of a column that holds codes, not amounts


def _normalise(name: str) -> str:
    """A column name without case, spaces and punctuation; the category behind `=` stays as it is."""
    column, equals, category = name.partition("=")
    return (re.sub(r"[\W_]+", "", column.casefold()) or column) + equals + category


def shared_features(source: Sequence[str], target: Sequence[str]) -> list[tuple[int, int]]:
    """Features of one name, but for case, spaces and punctuation.

    Parameters
    ----------
    source, target
        Names; one that is not unique on a side matches its first.

    Returns
    -------
    list
        (source index, target index) pairs.
    """
    index: dict[str, int] = {}
    for i, name in enumerate(source):
        index.setdefault(_normalise(name), i)
    pairs: dict[int, int] = {}
    for j, name in enumerate(target):
        i = index.get(_normalise(name))
        if i is not None:
            pairs.setdefault(i, j)
    return list(pairs.items())


def common_features(source: Table, target: Table) -> tuple[np.ndarray, np.ndarray] | None:
    """The columns of one name and kind, in units of the target's standard deviation.

    Parameters
    ----------
    source, target
        Tables of n_s and n_t rows.

    Returns
    -------
    tuple or None
        (n_s, d) and (n_t, d) float32; None where there is no such column.
    """
    (names_s, kinds_s), (names_t, kinds_t) = ((t.columns, list(t.features.dtypes)) for t in (source, target))
    pairs = [(names_s[i], names_t[j]) for i, j in shared_features(names_s, names_t) if kinds_s[i] == kinds_t[j]]
    if not pairs:
        return None
    there = target.features[[j for _, j in pairs]]
    encoder = Encoder(there)
    here = source.features[[i for i, _ in pairs]].set_axis(there.columns, axis=1)
    return encoder(here), encoder(there)


def match_classes(
    source: Sequence[str], target: Sequence[str], means_s: np.ndarray | None, means_t: np.ndarray | None
) -> np.ndarray:
    """Which class of a source each class of a target is.

    Same names map to each other. Without any, the classes are assigned so that the summed distance of their means is
    least; where that cannot be done (fewer source classes, or no means), none maps.

    Parameters
    ----------
    source, target
        Names of classes.
    means_s, means_t
        (source classes, h) and (target classes, h) class means; None: they are not known.

    Returns
    -------
    numpy.ndarray
        (target classes,) index of the source class, or -1.
    """
    named = np.array([source.index(c) if c in source else -1 for c in target])
    if (named >= 0).any() or means_s is None or means_t is None or len(source) < len(target):
        return named
    distance = np.linalg.norm(means_t[:, None] - means_s[None], axis=2)
    rows, columns = linear_sum_assignment(distance)
    named[rows] = columns
    return named


@dataclass(frozen=True)
class Match:
    """A source column and the target column that it stands for.

    Attributes
    ----------
    source, target
        Names of the columns.
    confidence
        0..1.
    how
        "name" or "meaning".
    """

    source: str
    target: str
    confidence: float
    how: str


def align(
    source: Table, target: Table, encoder: Callable[[list[str]], np.ndarray] | None = None, meaning: bool = True
) -> tuple[Table, list[Match]]:
    """The source with its matched columns and their categories called as in the target.

    A column that is not matched but would be taken for a column of the target by its name is renamed apart. It is said
    where that is so since one holds numbers, the other categories, and where matched columns are in two units.

    Parameters
    ----------
    source, target, encoder, meaning
        As for `match_columns`.

    Returns
    -------
    tuple
        The source, and its matches.
    """
    matches = match_columns(source, target, encoder, meaning)
    lines = [*_other_kinds(source, target, matches), *_other_units(source, target, matches)]
    for line in lines:
        warnings.warn(f"{source.name}: {line}", stacklevel=3)
    names = {m.source: m.target for m in matches}
    taken = {_normalise(c) for c in target.columns}
    for column in source.columns:
        if column not in names and _normalise(column) in taken:
            names[column] = _apart(f"{column} (of {source.name})", [*source.columns, *names.values()])
    features, numbers = source.features.rename(columns=names), set(numeric_columns(target.features))
    for match in matches:
        if match.target not in numbers:
            known = target.features[match.target].dropna().unique()
            spelled = {_fold(c): c for c in known} | {c: c for c in known}
            mine = [_spelled(c, spelled) for c in features[match.target]]
            features[match.target] = pd.Series(mine, index=features.index, dtype=object)
    return replace(source, features=features, notes=(*source.notes, *lines)), matches


def _other_kinds(source: Table, target: Table, matches: Sequence[Match]) -> list[str]:
    """What is said of columns of one name that do not match, since one is of numbers."""
    matched = {m.source for m in matches}, {m.target for m in matches}
    left = [c for c in source.columns if c not in matched[0]]
    right = {_normalise(c): c for c in target.columns if c not in matched[1]}
    mine, theirs = set(numeric_columns(source.features)), set(numeric_columns(target.features))
    lines = []
    for column in left:
        same = right.get(_normalise(column))
        if same is not None and (column in mine) != (same in theirs):
            kinds = ("numbers", "categories") if column in mine else ("categories", "numbers")
            lines.append(f"column '{column}' holds {kinds[0]}, that of {target.name} {kinds[1]}: they do not match")
    return lines


def _other_units(source: Table, target: Table, matches: Sequence[Match]) -> list[str]:
    """What is said of matched columns that are in two units."""
    lines = []
    for match in matches:
        units = [t.readings[c].unit for t, c in ((source, match.source), (target, match.target)) if c in t.readings]
        if len(units) == 2 and all(units) and units[0] != units[1]:
            lines.append(f"column '{match.source}' is in {units[0]}, that of {target.name} in {units[1]}: convert one")
    return lines


def _spelled(category: object, spelled: dict) -> object:
    return spelled.get(category, spelled.get(_fold(category), category))


def _apart(name: str, taken: Sequence[str]) -> str:
    while name in taken:
        name += " again"
    return name


def match_columns(
    source: Table,
    target: Table,
    encoder: Callable[[list[str]], np.ndarray] | None = None,
    meaning: bool = True,
) -> list[Match]:
    """One-to-one matches: columns of equal names (without case and punctuation), then of like ones.

    Confidence by meaning is the likeness of the names (with `encoder` also that of descriptions such as "age: 63, 41")
    weighed with that of the values. At least THRESHOLD and no close second are asked for: a wrong match carries wrong
    weights over, a missed one carries none. Where most columns match, the others with more than two values must be
    alike in values but hardly in name: thalach and maximum_heart_rate_achieved.

    Parameters
    ----------
    source, target
        Tables.
    encoder
        Makes (n, h) states of n texts; None: names are compared by their letters alone.
    meaning
        Whether columns match by meaning too.

    Returns
    -------
    list
        Matches, those by name first.
    """
    matches = _by_name(source, target)
    if not meaning:
        return matches
    used = {m.source for m in matches}, {m.target for m in matches}
    left, right = ([c for c in t.columns if c not in u and telling(c)] for t, u in zip((source, target), used))
    if not left or not right:
        return matches
    if max(len(left), len(right)) > MAX_COLUMNS:
        warnings.warn(f"{source.name}: more than {MAX_COLUMNS} columns are left, only names are matched", stacklevel=2)
        return matches
    named = np.array([[likeness(a, b) for b in right] for a in left])
    if encoder is not None:
        named = np.maximum(named, _described(source, left, target, right, encoder))
    named[~np.array([[same_numbers(a, b) for b in right] for a in left])] = -np.inf
    found = _assigned(source, target, left, right, named)
    matches += found
    if not _kin(source, target, matches):
        return matches
    rows = [i for i, c in enumerate(left) if _many_valued(source, c) and c not in {m.source for m in found}]
    columns = [j for j, c in enumerate(right) if _many_valued(target, c) and c not in {m.target for m in found}]
    lifted = LIFT + (1 - LIFT) * named[np.ix_(rows, columns)]
    return matches + _assigned(source, target, [left[i] for i in rows], [right[j] for j in columns], lifted)


def _assigned(source: Table, target: Table, left: list[str], right: list[str], named: np.ndarray) -> list[Match]:
    """The pairs of the best assignment that are sure enough by names (left, right) and values, with no close second."""
    confidence = np.zeros_like(named)
    for i, j in np.argwhere(named >= THRESHOLD):
        confidence[i, j] = named[i, j] * _value_weight(source.features[left[i]], target.features[right[j]])
    return [
        Match(left[i], right[j], round(float(confidence[i, j]), 3), "meaning")
        for i, j in zip(*linear_sum_assignment(-confidence))
        if confidence[i, j] >= THRESHOLD and confidence[i, j] - _second(confidence, i, j) >= MARGIN
    ]


def _kin(source: Table, target: Table, matches: Sequence[Match]) -> bool:
    """Whether the tables record the same things; a numbered series, such as the dimensions of a text, counts once."""
    known = len({words(m.target)[0] for m in matches})
    all_words = ({words(c)[0] for c in t.columns} for t in (source, target))
    return known >= max(3, KIN * min(map(len, all_words)))


def _many_valued(table: Table, column: str) -> bool:
    """Two values are too little to know a column by."""
    return table.features[column].nunique() > 2


def _by_name(source: Table, target: Table) -> list[Match]:
    """Exactly equal names first, so that 'Age' and 'age' of one table stay apart; then normalised ones."""
    matches: list[Match] = []
    numbers_s, numbers_t = (set(numeric_columns(t.features)) for t in (source, target))
    for spell in (str, _normalise):
        used = {m.source for m in matches}, {m.target for m in matches}
        index: dict[str, str] = {}
        for column in source.columns:
            if column not in used[0]:
                index.setdefault(spell(column), column)
        for column in target.columns:
            mine = index.get(spell(column)) if column not in used[1] else None
            if mine is not None and (mine in numbers_s) == (column in numbers_t):
                matches.append(Match(mine, column, 1.0, "name"))
                del index[spell(column)]
    return matches


def _second(confidence: np.ndarray, i: int, j: int) -> float:
    """The best other candidate of row i or column j."""
    return max(np.delete(confidence[i], j).max(initial=0.0), np.delete(confidence[:, j], i).max(initial=0.0))


def _described(source: Table, left: list[str], target: Table, right: list[str], encoder: Callable) -> np.ndarray:
    """(left, right) cosines of the descriptions of columns, about their mean, which an encoder gives to any text."""
    texts = [_description(t.features[c], c) for t, names in ((source, left), (target, right)) for c in names]
    states = np.asarray(encoder(texts), dtype=np.float64)
    states -= states.mean(0)
    states /= np.maximum(np.linalg.norm(states, axis=1, keepdims=True), 1e-12)
    return states[: len(left)] @ states[len(left) :].T


def _description(values: pd.Series, name: str) -> str:
    examples = ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values.dropna().unique()[:3])
    spoken = re.sub(r"[\W_]+", " ", name).strip().lower()
    return f"{spoken}: {examples}"


def _value_weight(a: pd.Series, b: pd.Series) -> float:
    """0 for columns that cannot be the same quantity, else 0.6 to 1 by the likeness of their values.

    Numbers: one minus the largest difference of the cumulative distributions, at least 0.3; two values on both sides:
    the same two; codes and categories: half of the shorter list in the other; then the overlap of their shares.
    """
    a, b = (v.dropna() for v in (a, b))
    a, b = (v.iloc[:: max(1, len(v) // SEEN)] for v in (a, b))
    if _is_numeric(a) != _is_numeric(b) or min(len(a), len(b)) < 5:
        return 0.0
    if not _is_numeric(a):
        a, b = a.map(_fold), b.map(_fold)
    x, y = np.unique(a), np.unique(b)
    if min(len(x), len(y)) < 2 or (len(x) == 2) != (len(y) == 2):
        return 0.0
    common = np.intersect1d(x, y)
    listed = [not _is_numeric(a) or len(v) <= CODES and bool((v == v.round()).all()) for v in (x, y)]
    if listed[0] != listed[1]:
        return 0.0
    if listed[0]:
        if len(common) < (2 if len(x) == 2 else 0.5 * min(len(x), len(y))):
            return 0.0
        shares = [v.value_counts(normalize=True).reindex(common).to_numpy() for v in (a, b)]
        return 0.6 + 0.4 * float(np.minimum(*shares).sum())
    grid = np.union1d(x, y)
    shares = [np.searchsorted(np.sort(v.to_numpy()), grid, side="right") / len(v) for v in (a, b)]
    alike = 1 - np.abs(shares[0] - shares[1]).max()
    return 0.6 + 0.4 * alike if alike >= 0.3 else 0.0


def _is_numeric(values: pd.Series) -> bool:
    return pd.api.types.is_float_dtype(values)


def _fold(category: object) -> object:
    return re.sub(r"\s+", " ", category.strip().casefold()) if isinstance(category, str) else category
