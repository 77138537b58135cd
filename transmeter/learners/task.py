"""What learners see: the rows that splits train on, and a source in the features of the target."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from transmeter.learners import linear
from transmeter.learners.estimator import UserEstimator
from transmeter.network.source import Encoded, Source
from transmeter.tables.encoding import Encoder
from transmeter.tables.matching import match_classes
from transmeter.tables.splits import seed_of

WIDE, FEWEST = 100, 20  # features beyond which the target's leading principal components stand for them: WIDE for two
# classes, fewer for more, so that a fit costs the same
ROWS = 1000  # of a source that are fitted at most
PENALTY = 10.0  # of a model of a source's rows


@dataclass(frozen=True)
class Task:
    """The target's rows that any split trains on.

    Attributes
    ----------
    x
        (n, d) features, or their principal components.
    codes
        (n,) classes.
    weights
        (splits, n) weight of every row: 0 where a split does not train on it, else such that classes count alike and
        the weights sum to the number of rows.
    rows
        (splits, m) numbers of the rows that a split trains on; the first of them again where it has fewer than others.
    row_weights
        (splits, m) their weights; 0 for those that are there again.
    classes
        Number of classes.
    basis
        (features, d) that leads from the encoded features to `x`.
    seed
        Of learners that choose at random on a source.
    seeds
        (splits,) of learners that choose at random on the rows of a split.
    estimator
        That the user adds to the learners; None: none.
    """

    x: np.ndarray
    codes: np.ndarray
    weights: np.ndarray
    rows: np.ndarray
    row_weights: np.ndarray
    classes: int
    basis: np.ndarray
    seed: int
    seeds: tuple[int, ...]
    estimator: UserEstimator | None = None


@dataclass(frozen=True)
class Shared:
    """Rows that a source gives in the features of the target.

    Attributes
    ----------
    name
        What kind of rows they are.
    scales
        Unit of the features -> (n, d).
    memberships
        (splits, n, classes) of the target; zero for a row whose class the target does not have.
    weights
        (splits, n), of every split with sum 1.
    """

    name: str
    scales: dict[str, np.ndarray]
    memberships: np.ndarray
    weights: np.ndarray


def task_of(target: Encoded, training: Sequence[np.ndarray], seed: int, estimator: UserEstimator | None = None) -> Task:
    """The task of a target.

    Parameters
    ----------
    target
        Table whose labelled rows are trained on.
    training
        Row numbers of every split.
    seed
        Of learners that choose at random.
    estimator
        That the user adds to the learners.

    Returns
    -------
    Task
        Rows in the order of the table.
    """
    rows, inside, seen, counted = rows_of(training)
    codes = target.table.codes[rows]
    weights = np.stack([balanced(codes, part) * part.sum() for part in inside])
    row_weights = np.take_along_axis(weights, seen, axis=1) * counted
    classes = len(target.table.classes)
    basis = basis_of(target, most_features(classes))
    x = target.x.numpy()[rows] @ basis
    seeds = tuple(seed_of(seed, part) for part in training)
    return Task(x, codes, weights, seen, row_weights, classes, basis, seed, seeds, estimator)


def rows_of(training: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The rows that any split trains on.

    Parameters
    ----------
    training
        Row numbers of every split.

    Returns
    -------
    tuple
        (n,) row numbers of the table, in order; (splits, n) whether a split trains on a row; (splits, m) places of its
        rows among them, the first again where it has fewer than others; (splits, m) whether one is not there again.
    """
    rows = np.unique(np.concatenate(training))
    inside = np.stack([np.isin(rows, part) for part in training])
    longest = max(map(len, training))
    seen = np.stack([np.resize(np.flatnonzero(part), longest) for part in inside])
    return rows, inside, seen, np.arange(longest) < inside.sum(1, keepdims=True)


def shared(source: Source, target: Encoded, task: Task) -> list[Shared]:
    """The source as the learners of a task take it.

    Parameters
    ----------
    source
        Source whose columns are named as the target's (`tables.prepare`).
    target, task
        The target and its splits.

    Returns
    -------
    list of Shared
        Its labelled rows, where it has a column and a class of the target; and unlabelled target rows with the labels
        that its own model gives to rows of the same key.
    """
    return [s for s in (_labelled(source, target, task), _taught(source, target, task)) if s is not None]


def _labelled(source: Source, target: Encoded, task: Task) -> Shared | None:
    """The labelled rows; features that the source lacks are at the target's mean."""
    labelled = labelled_rows(source)
    scales = in_units(source, target, labelled, task.basis)
    if not scales:
        return None
    codes = source.table.codes[labelled]
    maps = _class_maps(source, target, task, next(iter(scales.values())), codes)
    memberships = np.stack([(codes[:, None] == m) & (m >= 0) for m in maps]).astype(np.float64)
    if memberships.any(1).sum(1).min() < 2:  # rows of one class tell no classes apart, and would draw all to theirs
        return None
    weights = np.stack([balanced(m.argmax(1), m.any(1)) for m in memberships])
    return Shared(source.table.name, scales, memberships, weights)


def labelled_rows(source: Source) -> np.ndarray:
    """Labelled rows of a source, of many a random sample.

    Parameters
    ----------
    source
        Any.

    Returns
    -------
    np.ndarray
        (n,) row numbers, n at most ROWS.
    """
    labelled = np.flatnonzero(source.table.codes >= 0)
    return np.sort(np.random.default_rng(source.seed).permutation(labelled)[:ROWS])


def in_units(source: Source, target: Encoded, rows: np.ndarray, basis: np.ndarray) -> dict[str, np.ndarray]:
    """Rows of a source in the features of the target; those that the source lacks are at the target's mean.

    Parameters
    ----------
    source
        Source whose columns are named as the target's.
    target
        Target.
    rows
        (n,) row numbers of the source.
    basis
        (features, d) that leads from the target's encoded features to those of learners.

    Returns
    -------
    dict
        Unit of the features -> (n, d); empty where no column is common.
    """
    common, known = _in_features_of(target.encoder, source, rows)
    if not known.any():
        return {}
    numbers = known & (np.arange(len(known)) < len(target.encoder.means))
    spread = common.std(0)
    own = np.where(numbers & (spread > 0), (common - common.mean(0)) / np.where(spread > 0, spread, 1), common)
    return {"the target's units": common @ basis, "its own units": own @ basis}


def _taught(source: Source, target: Encoded, task: Task) -> Shared | None:
    """The unlabelled target rows that the source has seen, labelled by a model of all its columns; None without any."""
    classes = match_classes(source.table.classes, target.table.classes, None, None)
    if source.table.keys is None or target.table.keys is None or (classes < 0).any():
        return None
    place = {key: i for i, key in enumerate(source.table.keys) if key is not None}
    rows = np.array([i for i in np.flatnonzero(target.table.codes < 0) if target.table.keys[i] in place], dtype=int)
    if not len(rows):
        return None
    codes = source.table.codes
    seen = np.flatnonzero(codes >= 0)[:ROWS]
    x = source.x.numpy()
    weights = len(seen) * balanced(codes[seen], np.full(len(seen), True))
    labels = np.eye(len(source.table.classes))[codes[seen]]
    model = linear.fit(x[seen], labels[None], weights[None], PENALTY, seen[None, :0])
    theirs = np.array([place[target.table.keys[i]] for i in rows])
    given = linear.probabilities(model.coefficients, x[theirs])[0][:, classes]
    splits = len(task.weights)
    return Shared(
        f"rows seen by {source.table.name}",
        {"the target's units": target.x.numpy()[rows] @ task.basis},
        np.tile(given / given.sum(1, keepdims=True), (splits, 1, 1)),
        np.full((splits, len(rows)), 1 / len(rows)),
    )


def balanced(codes: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Weights of rows such that every class has the same sum.

    Parameters
    ----------
    codes
        (n,) classes.
    inside
        (n,) whether a row counts.

    Returns
    -------
    np.ndarray
        (n,) that sum to 1; all 0 where no row counts.
    """
    counts = np.bincount(codes[inside], minlength=1)
    if not inside.any():
        return np.zeros(len(codes))
    return np.where(inside, 1 / ((counts > 0).sum() * np.maximum(counts, 1))[np.minimum(codes, len(counts) - 1)], 0.0)


def most_features(classes: int) -> int:
    """Number of features that a learner of so many classes takes at most.

    Parameters
    ----------
    classes
        Number of classes.

    Returns
    -------
    int
        WIDE for two classes, fewer for more.
    """
    return max(FEWEST, int(WIDE / max(classes - 1, 1) ** 0.5))


def basis_of(target: Encoded, most: int) -> np.ndarray:
    """What leads from encoded features to those of learners.

    Parameters
    ----------
    target
        Target.
    most
        Number of features that learners take at most.

    Returns
    -------
    np.ndarray
        (features, d) of the leading principal directions, the identity where there are few features.
    """
    features = target.x.shape[1]
    return np.eye(features) if features <= most else target.directions[:, :most]


def _in_features_of(encoder: Encoder, source: Source, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, features) of the source's rows by the target's encoder, and which of the features the source has."""
    features = source.table.features.iloc[rows]
    frame = features.reindex(columns=[*encoder.numeric, *encoder.categorical])
    there = [c for c in frame.columns if c in set(features.columns)]
    names = {n for c in there for n in (c, f"{c} is missing")}
    known = np.array([n in names or n.partition("=")[0] in names for n in encoder.names])
    return np.where(known, encoder(frame.astype({c: object for c in encoder.categorical})), 0.0), known


def _class_maps(source: Source, target: Encoded, task: Task, x: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """(splits, classes) source class of every target class, -1 for none: by name, else by the classes' means."""
    names = source.table.classes, target.table.classes
    theirs = np.stack([x[codes == c].sum(0) / max((codes == c).sum(), 1) for c in range(len(names[0]))])
    maps = []
    for weights in task.weights:
        mine = np.stack([np.average(task.x, axis=0, weights=weights * (task.codes == c)) for c in range(task.classes)])
        maps.append(match_classes(*names, theirs, mine))
    return np.stack(maps)
