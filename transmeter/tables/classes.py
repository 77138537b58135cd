"""Classes of a source that stand for classes of the target: by hand, by the meaning of their names, or by the rows."""

import logging
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.linear_model import RidgeClassifier

from transmeter.tables.data import Table
from transmeter.tables.labels import meaning, text_of
from transmeter.tables.matching import common_features
from transmeter.util.ridge import loo_skill
from transmeter.util.suggestions import did_you_mean

LOG = logging.getLogger(__name__)
ROWS = 2000  # of a source that the check of names looks at
SURE = 2.0  # standard errors by which rows must speak for a map
_BOOLEAN = (("false", "true"), ("no", "yes"), ("n", "y"), ("f", "t"), ("off", "on"))


def align_classes(source: Table, target: Table, by_hand: Mapping[str, str] | None = None) -> Table:
    """The source with the classes that stand for classes of the target called as those.

    Names are compared by meaning: without case, as numbers, and of two classes as no and yes. Where some names are the
    same and others are left on both sides, the rows are asked too: a ridge classifier learned on the source's shared
    columns says which of its classes the target's labelled rows are of. Where the rows contradict the names, the map
    that they support is taken with a warning, or none. A class that stands for none, but is called as one of the
    target's, is renamed apart. Where no class stands for one, a transfer assigns classes by their means.

    Parameters
    ----------
    source, target
        Tables whose columns are aligned.
    by_hand
        Classes of the source with those of the target that they stand for; None: decide by names and rows.

    Returns
    -------
    Table
        With the same codes; `class_map` has the source's own names with the target's.

    Raises
    ------
    ValueError
        For a class in `by_hand` that is not there, or two that stand for one.
    """
    if by_hand is not None:
        chosen, line = _checked(source, target, by_hand), ""
    else:
        chosen, line = _decided(source, target)
    if line:
        warnings.warn(f"{source.name}: {line}", stacklevel=3)
    names = {c: chosen.get(c) or _apart(c, source.name, target.classes) for c in source.classes}
    if any(old != new for old, new in names.items()):
        LOG.info("%s: classes: %s", source.name, _told(chosen))
    labels = np.array([names.get(label) for label in source.labels], dtype=object)
    notes = (*source.notes, line) if line else source.notes
    return replace(source, labels=labels, classes=tuple(names.values()), class_map=chosen, notes=notes)


def meanings(classes: Sequence[str]) -> list[str]:
    """What names of classes mean.

    Parameters
    ----------
    classes
        All names of a table.

    Returns
    -------
    list
        For every class its name without case, as a number, or 0 and 1 where the two classes say no and yes.
    """
    folded = [" ".join(c.casefold().split()) for c in classes]
    for no, yes in _BOOLEAN:
        if set(folded) == {no, yes}:
            return ["1" if c == yes else "0" for c in folded]
    return [meaning(c) for c in classes]


def most_common(tables: Sequence[Table]) -> tuple[str, ...]:
    """The classes of most tables, which stand for those of a target that has no labels.

    Parameters
    ----------
    tables
        At least one, with labels.

    Returns
    -------
    tuple
        As the first of these tables calls them; classes of the same meanings are the same.
    """
    sets = [frozenset(meanings(t.classes)) for t in tables]
    return tables[sets.index(Counter(sets).most_common(1)[0][0])].classes


def _checked(source: Table, target: Table, by_hand: Mapping[str, str]) -> dict[str, str]:
    chosen: dict[str, str] = {}
    for theirs, ours in by_hand.items():
        pair = str(text_of(theirs)), str(text_of(ours))
        for name, table in zip(pair, (source, target)):
            if name not in table.classes:
                guess = did_you_mean(name, table.classes)
                raise ValueError(f"{table.name} has no class '{name}'{guess}: it has {', '.join(table.classes[:12])}")
        if pair[1] in chosen.values():
            raise ValueError(f"two classes of {source.name} stand for '{pair[1]}': give one")
        chosen[pair[0]] = pair[1]
    return chosen


def _decided(source: Table, target: Table) -> tuple[dict[str, str], str]:
    """({class of the source: class of the target}, what is said where the rows contradict the names)."""
    named = _named(source.classes, target.classes)
    partial = 0 < len(named) < min(len(source.classes), len(target.classes))
    if not partial or (seen := _seen(source, target)) is None:
        return named, ""
    predicted, codes = seen
    shares = np.stack([np.bincount(predicted[codes == c], minlength=len(source.classes)) for c in np.unique(codes)])
    rows, columns = linear_sum_assignment(-shares / shares.sum(1, keepdims=True))
    by_rows = {source.classes[s]: target.classes[t] for t, s in zip(np.unique(codes)[rows], columns)}
    if all(by_rows.get(theirs) == ours for theirs, ours in named.items()):
        return named, ""
    lead = _lead(source, target, named, by_rows, predicted, codes)
    if lead < -SURE:
        return named, ""
    conflict = f"names say {_told(named)}, the rows {_told(by_rows)}"
    remedy = "give classes to decide by hand"
    if lead > SURE:
        return by_rows, f"its classes are matched as the rows say: {conflict}: {remedy}"
    return {}, f"its classes are not matched by name: {conflict}: {remedy}"


def _named(source: Sequence[str], target: Sequence[str]) -> dict[str, str]:
    """Classes of equal names, then those of equal meanings."""
    named = {c: c for c in source if c in target}
    left = dict(zip(reversed(meanings(source)), reversed(source)))
    for ours, meant in zip(target, meanings(target)):
        theirs = left.get(meant)
        if theirs and theirs not in named and ours not in named.values():
            named[theirs] = ours
    return named


def _seen(source: Table, target: Table) -> tuple[np.ndarray, np.ndarray] | None:
    """(class of the source, class of the target) of every labelled row of the target.

    None without shared columns, or where they do not tell the source's own classes apart.
    """
    features = common_features(source, target)
    rows = np.flatnonzero(target.codes >= 0)
    if features is None or not len(rows):
        return None
    train = np.random.default_rng(0).permutation(np.flatnonzero(source.codes >= 0))[:ROWS]
    if loo_skill(features[0][train], source.codes[train]) < SURE / np.sqrt(len(train)):
        return None
    model = RidgeClassifier(class_weight="balanced").fit(features[0][train], source.codes[train])
    return model.predict(features[1][rows]), target.codes[rows]


def _lead(
    source: Table,
    target: Table,
    named: Mapping[str, str],
    by_rows: Mapping[str, str],
    predicted: np.ndarray,
    codes: np.ndarray,
) -> float:
    """By how many standard errors more rows of the named classes are where the rows' map has them than the names'."""
    theirs = np.array(source.classes, dtype=object)[predicted]
    right = []
    for chosen in (by_rows, named):
        stands = {ours: c for c, ours in chosen.items()}
        right.append(theirs == [stands.get(target.classes[c]) for c in codes])
    there = np.isin(np.array(target.classes, dtype=object)[codes], list(named.values()))
    difference = right[0][there].astype(float) - right[1][there]
    return float(difference.sum() / max(np.sqrt(np.square(difference).sum()), 1e-9))


def _apart(name: str, table: str, taken: Sequence[str]) -> str:
    """`name`, with that of its table where it is taken."""
    return f"{name} (of {table})" if name in taken else name


def _told(chosen: Mapping[str, str]) -> str:
    return ", ".join(f"{theirs} = {ours}" for theirs, ours in chosen.items()) or "none stands for one of the target"
