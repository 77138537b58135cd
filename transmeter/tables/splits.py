"""Splits of a table's labelled rows into those that train and those that measure."""

from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import KFold, StratifiedKFold

from transmeter.tables.data import Table
from transmeter.util.counts import counted

FOLDS = 5
TEST_ROWS = 2000  # rows that measure where there are many more
LEAST_TEST_ROWS = 50  # of a class among them, where it has so many
LEAST_ROWS = 3  # of a quantity that train, and that measure


@dataclass(frozen=True)
class Split:
    """Rows of a table to train on and to measure on.

    Attributes
    ----------
    train, test : ndarray of int
        Row numbers.
    repeat : int
        Number of the repeat that the split belongs to; the folds of one cross-fitting are one repeat.
    """

    train: np.ndarray
    test: np.ndarray
    repeat: int


def default_repeats(shots: int | None) -> int:
    """Number of repeats of a comparison with the target alone.

    Parameters
    ----------
    shots : int or None
        Labelled rows per class that train; None means cross-fitting.

    Returns
    -------
    int
        40 samples of shots, or 10 times the folds, where labels limit what more repeats would tell.
    """
    return 40 if shots else 10


def make_splits(target: Table, shots: int | None, repeats: int, seed: int) -> list[Split]:
    """Repeated splits of the labelled rows.

    Parameters
    ----------
    target : Table
        Table to split.
    shots : int or None
        Rows per class that train, of a quantity rows in all, sampled at random, while the rest measures; None means
        cross-fitting, in which every labelled row measures once per repeat.
    repeats : int
        At least 2, for an interval.
    seed : int
        Seed of the random samples.

    Returns
    -------
    list of Split
        One per repeat with `shots`, else one per fold, in the order of repeats.

    Raises
    ------
    ValueError
        Where a class has too few labelled rows, and for fewer than 2 repeats.
    """
    if repeats < 2:
        raise ValueError(f"repeats {repeats} is too few: at least 2 are needed for an interval")
    if target.quantity is not None:
        return _quantity_splits(target, shots, repeats, np.random.default_rng(seed))
    codes = target.codes
    rows = np.flatnonzero(codes >= 0)
    least = _check_counts(target, 2 if shots is None else shots + 1, shots)
    rng = np.random.default_rng(seed)
    measuring = rows if len(rows) <= 2 * TEST_ROWS else _sample(codes, rows, rng)
    splits = []
    for repeat in range(repeats):
        if shots is None:
            folds = StratifiedKFold(min(FOLDS, least), shuffle=True, random_state=int(rng.integers(2**31)))
            splits += [Split(rows[a], rows[b], repeat) for a, b in folds.split(rows, codes[rows])]
        else:
            classes = range(len(target.classes))
            train = np.concatenate([rng.permutation(np.flatnonzero(codes == c))[:shots] for c in classes])
            splits.append(Split(train, np.setdiff1d(measuring, train), repeat))
    return splits


def _quantity_splits(target: Table, shots: int | None, repeats: int, rng: np.random.Generator) -> list[Split]:
    """As `make_splits`, of rows without classes."""
    rows = np.flatnonzero(np.isfinite(target.quantity))
    if len(rows) < 2 * LEAST_ROWS or (shots is not None and not LEAST_ROWS <= shots <= len(rows) - LEAST_ROWS):
        needed = f"{2 * LEAST_ROWS} are needed" if shots is None else f"--shots {shots} has to leave {LEAST_ROWS}"
        raise ValueError(
            f"{target.name} has {counted(len(rows), 'labelled row')}: at least {needed}, and {LEAST_ROWS} have to train"
        )
    measuring = rows if len(rows) <= 2 * TEST_ROWS else np.sort(rng.permutation(rows)[:TEST_ROWS])
    splits = []
    for repeat in range(repeats):
        if shots is None:
            folds = KFold(min(FOLDS, len(rows)), shuffle=True, random_state=int(rng.integers(2**31)))
            splits += [Split(rows[a], rows[b], repeat) for a, b in folds.split(rows)]
        else:
            train = rng.permutation(rows)[:shots]
            splits.append(Split(train, np.setdiff1d(measuring, train), repeat))
    return splits


def half_splits(target: Table, seed: int) -> list[Split]:
    """Two splits that train on one half of the labelled rows and measure on the other, both ways.

    Parameters
    ----------
    target : Table
        Table to split.
    seed : int
        Seed of the halves.

    Returns
    -------
    list of Split
        Two splits, with classes in equal shares.

    Raises
    ------
    ValueError
        Where a class has fewer than 4 labelled rows, so that one half has fewer than two.
    """
    codes = target.codes
    rows = np.flatnonzero(codes >= 0)
    _check_counts(target, 4)
    folds = StratifiedKFold(2, shuffle=True, random_state=seed)
    return [Split(rows[a], rows[b], i) for i, (a, b) in enumerate(folds.split(rows, codes[rows]))]


def _check_counts(target: Table, needed: int, shots: int | None = None) -> int:
    """Labelled rows of the smallest class. Raises ValueError where these are fewer than `needed`."""
    counts = np.bincount(target.codes[target.codes >= 0], minlength=len(target.classes))
    least = int(counts.argmin())
    if (shots is not None and shots < 1) or counts[least] < needed:
        what = f"class '{target.classes[least]}' of {target.name} has {counted(counts[least], 'labelled row')}"
        raise ValueError(f"{what}: at least {max(needed, 2)} are needed" + (f" for --shots {shots}" if shots else ""))
    return int(counts[least])


def _sample(codes: np.ndarray, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """About TEST_ROWS of the rows, in the classes' proportions but for small classes."""
    share = TEST_ROWS / len(rows)
    classes = [rng.permutation(rows[codes[rows] == c]) for c in np.unique(codes[rows])]
    return np.sort(np.concatenate([c[: max(round(share * len(c)), LEAST_TEST_ROWS)] for c in classes]))


def seed_of(seed: int, rows: np.ndarray) -> int:
    """Seed of what is fitted at random on some rows: another for other rows, so that repeats average that chance too.

    Parameters
    ----------
    seed : int
        Of the comparison.
    rows : ndarray of int
        Row numbers of the table, in any order.

    Returns
    -------
    int
        From 0 to 2**32 - 1.
    """
    return int(np.random.SeedSequence([seed, *np.sort(rows).tolist()]).generate_state(1)[0])
