"""Forests of decision trees as plain arrays: they predict, average and are saved without scikit-learn's objects."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from sklearn.ensemble import ExtraTreesRegressor, RandomForestClassifier, RandomForestRegressor

CELLS = 8_000_000  # values of leaves that are held at once


@dataclass(frozen=True)
class Trees:
    """Nodes of all trees of a forest, in one list.

    Attributes
    ----------
    roots : ndarray of shape (trees,)
        Number of the first node of every tree.
    left, right : ndarray of shape (nodes,)
        Node that follows where the feature is at most the threshold, and where it is above; -1 at a leaf.
    feature : ndarray of shape (nodes,)
        Column that is looked at.
    threshold : ndarray of shape (nodes,)
        What it is compared with.
    value : ndarray of shape (nodes, classes)
        What a leaf adds to the probabilities; of a quantity (nodes, 1) what it adds to that.
    """

    roots: np.ndarray
    left: np.ndarray
    right: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    value: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything by name, as `restore` takes it."""
        return {f"trees.{f.name}": getattr(self, f.name) for f in fields(self)}

    @classmethod
    def restore(cls, arrays: Mapping[str, np.ndarray]) -> "Trees":
        """Take what `arrays` gave among others. Raises KeyError for a lack."""
        return cls(**{f.name: arrays[f"trees.{f.name}"] for f in fields(cls)})

    def check(self, columns: int) -> None:
        """Raises ValueError for nodes that rows of so many columns cannot pass: numbers out of range, circles."""
        nodes = len(self.value)
        lengths = {len(self.left), len(self.right), len(self.feature), len(self.threshold)}
        if lengths != {nodes} or not self.value.size or not self.roots.size:
            raise ValueError("its trees have nodes without a value")
        if any(numbers.dtype.kind not in "iu" for numbers in (self.roots, self.left, self.right, self.feature)):
            raise ValueError("its trees number nodes by fractions")
        if ((self.left < 0) != (self.right < 0)).any():
            raise ValueError("its trees have nodes with one way on")
        inside = np.flatnonzero(self.left >= 0)
        for children in (self.left[inside], self.right[inside]):
            if (children <= inside).any() or (children >= nodes).any():  # a node stands before those below it
                raise ValueError("its trees have nodes below themselves or nowhere")
        for numbers, end in ((self.roots, nodes), (self.feature, columns)):
            if (numbers < 0).any() or (numbers >= end).any():
                raise ValueError("its trees begin nowhere or look at columns that it lacks")

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        """Sum of the leaves' values over the trees.

        Parameters
        ----------
        x : ndarray of shape (n, d)
            Rows.

        Returns
        -------
        ndarray of shape (n, classes)
        """
        rows = max(1, CELLS // (len(self.roots) * self.value.shape[1]))
        parts = (self.leaves(x[i : i + rows]) for i in range(0, max(len(x), 1), rows))
        return np.concatenate([part.sum(1, dtype=np.float64) for part in parts])

    def leaves(self, x: np.ndarray) -> np.ndarray:
        """Values of the leaves that rows end in.

        Parameters
        ----------
        x : ndarray of shape (n, d)
            Rows.

        Returns
        -------
        ndarray of shape (n, trees, classes)
        """
        x = x.astype(np.float32)  # as scikit-learn compares
        node = np.repeat(self.roots[None], len(x), axis=0)  # (n, trees)
        rows = np.arange(len(x))[:, None]
        while (inside := self.left[node] >= 0).any():
            below = x[rows, self.feature[node]] <= self.threshold[node]
            node = np.where(inside, np.where(below, self.left[node], self.right[node]), node)
        return self.value[node]

    def in_unit_of(self, x: np.ndarray, other: np.ndarray) -> "Trees | None":
        """The forest that is grown on the same rows in other units of the columns: a split depends on order alone.

        Parameters
        ----------
        x : ndarray of shape (n, d)
            Rows that it was grown on.
        other : ndarray of shape (n, d)
            The same rows in the other units.

        Returns
        -------
        Trees or None
            None where the columns differ by more than their units.
        """
        spread = x.std(0)
        slope = np.where(spread > 0, other.std(0) / np.where(spread > 0, spread, 1), 1)
        offset = other.mean(0) - slope * x.mean(0)
        rounding = 1e-6 * max(1.0, np.abs(other).max())  # trees see float32
        if not np.allclose(slope * x + offset, other, rtol=0, atol=rounding):
            return None
        return replace(self, threshold=slope[self.feature] * self.threshold + offset[self.feature])


def predict_each(forests: Sequence[Trees], x: np.ndarray) -> np.ndarray:
    """What every forest predicts; one that is there several times is asked once.

    Parameters
    ----------
    forests : sequence of Trees
        At least one.
    x : ndarray of shape (n, d)
        Rows.

    Returns
    -------
    ndarray of shape (forests, n, classes)
    """
    different = {id(forest): forest for forest in forests}
    predicted = {key: forest.probabilities(x) for key, forest in different.items()}
    return np.stack([predicted[id(forest)] for forest in forests])


def trees_of(forest: RandomForestClassifier, codes: int) -> Trees:
    """The arrays of a fitted forest.

    Parameters
    ----------
    forest : RandomForestClassifier
        Whose classes are numbers below `codes`.
    codes : int
        Number of classes, of which it may have seen fewer.

    Returns
    -------
    Trees
        Whose leaves hold probabilities over the number of trees.
    """
    given = np.concatenate([t.tree_.value[:, 0] for t in forest.estimators_])
    value = np.zeros((len(given), codes))
    value[:, forest.classes_.astype(int)] = given
    return _trees(forest, value / value.sum(1, keepdims=True))


def regression_trees(forest: RandomForestRegressor) -> Trees:
    """The arrays of a fitted forest that predicts a quantity.

    Parameters
    ----------
    forest : RandomForestRegressor
        After its fit.

    Returns
    -------
    Trees
        Whose leaves hold quantities over the number of trees.
    """
    return _trees(forest, np.concatenate([t.tree_.value[:, 0] for t in forest.estimators_]))


def moment_trees(forest: ExtraTreesRegressor) -> Trees:
    """The arrays of a fitted forest that predicts a quantity and its square.

    Parameters
    ----------
    forest : ExtraTreesRegressor
        After its fit.

    Returns
    -------
    Trees
        Whose nodes, those above leaves too, hold the mean and the mean square of the quantity over the number of trees.
    """
    mean = np.concatenate([t.tree_.value[:, 0, 0] for t in forest.estimators_])
    variance = np.concatenate([t.tree_.impurity for t in forest.estimators_])
    return _trees(forest, np.column_stack([mean, mean**2 + variance]))


def _trees(forest: RandomForestClassifier | RandomForestRegressor | ExtraTreesRegressor, value: np.ndarray) -> Trees:
    """The nodes of a forest, each of a value (nodes, k)."""
    trees = [t.tree_ for t in forest.estimators_]
    first = np.cumsum([0, *(t.node_count for t in trees)])
    return Trees(
        roots=first[:-1].astype(np.int32),
        left=np.concatenate([_shifted(t.children_left, start) for t, start in zip(trees, first)]),
        right=np.concatenate([_shifted(t.children_right, start) for t, start in zip(trees, first)]),
        feature=np.concatenate([np.maximum(t.feature, 0) for t in trees]).astype(np.int32),
        threshold=np.concatenate([t.threshold for t in trees]),
        value=(value / len(trees)).astype(np.float32),
    )


def out_of_bag(
    forest: RandomForestClassifier | RandomForestRegressor, trees: Trees, x: np.ndarray, otherwise: float
) -> np.ndarray:
    """What a forest predicts for the rows that it was fitted on, each by the trees that have not seen it.

    Parameters
    ----------
    forest : RandomForestClassifier or RandomForestRegressor
        After its fit.
    trees : Trees
        The same as arrays.
    x : ndarray of shape (n, d)
        All rows that it was fitted on.
    otherwise : float
        Value of a row that every tree has seen.

    Returns
    -------
    ndarray of shape (n, classes)
        Of a quantity (n, 1).
    """
    outside = np.stack([~np.isin(np.arange(len(x)), sample) for sample in forest.estimators_samples_], axis=1)
    unseen = outside.sum(1)[:, None]  # trees that have not seen a row
    mean = (trees.leaves(x) * outside[..., None]).sum(1) * len(trees.roots) / np.maximum(unseen, 1)
    return np.where(unseen > 0, mean, otherwise)


def _shifted(children: np.ndarray, start: int) -> np.ndarray:
    return np.where(children >= 0, children + start, -1).astype(np.int32)


def weighted_sum(forests: Sequence[Trees], weights: Sequence[float]) -> Trees:
    """One forest that predicts the weighted sum of several.

    Parameters
    ----------
    forests : sequence of Trees
        At least one.
    weights : sequence of float
        One per forest.

    Returns
    -------
    Trees
    """
    first = np.cumsum([0, *(len(f.left) for f in forests)])
    return Trees(
        roots=np.concatenate([f.roots + start for f, start in zip(forests, first)]).astype(np.int32),
        left=np.concatenate([_shifted(f.left, start) for f, start in zip(forests, first)]),
        right=np.concatenate([_shifted(f.right, start) for f, start in zip(forests, first)]),
        feature=np.concatenate([f.feature for f in forests]),
        threshold=np.concatenate([f.threshold for f in forests]),
        value=np.concatenate([f.value * np.float32(weight) for f, weight in zip(forests, weights)]),
    )
