"""Metrics that gains are measured in."""

from collections.abc import Sequence

import numpy as np
import torch

from transmeter.tables.splits import Split

METRICS = ("balanced_accuracy", "accuracy")  # of classes


def accuracies(probabilities: torch.Tensor, codes: np.ndarray, splits: Sequence[Split], metric: str) -> np.ndarray:
    """Accuracy of several classifiers on the test rows of each split.

    Parameters
    ----------
    probabilities : Tensor of shape (arms, splits, n, classes)
        Of every class, by each classifier and split.
    codes : ndarray of shape (n,)
        Class numbers of the rows.
    splits : sequence of Split
        Whose `test` are places in `codes`.
    metric : str
        One of `METRICS`.

    Returns
    -------
    ndarray of shape (arms, splits)
        In percent.
    """
    classes = probabilities.shape[3]
    weights = torch.zeros(len(splits), len(codes), classes)  # of which class a row is, where the split measures it
    for i, split in enumerate(splits):
        weights[i, split.test, torch.from_numpy(codes[split.test])] = 1
    right = (probabilities.argmax(3)[..., None] == torch.arange(classes)) * weights
    right, there = right.sum(2), weights.sum(1)  # (arms, splits, classes), (splits, classes)
    if metric == "accuracy":
        return (100 * right.sum(2) / there.sum(1)).double().numpy()
    share = right / there.clamp_min(1)
    return (100 * share.sum(2) / (there > 0).sum(1)).double().numpy()


def row_weights(codes: np.ndarray, metric: str) -> np.ndarray:
    """Weights of rows with which the weighted accuracy is the metric.

    Parameters
    ----------
    codes : ndarray of shape (n,)
        Class numbers from 0.
    metric : str
        One of `METRICS`.

    Returns
    -------
    ndarray of shape (n,)
        Of mean 1.
    """
    if metric == "accuracy":
        return np.ones(len(codes))
    counts = np.bincount(codes)
    return len(codes) / ((counts > 0).sum() * counts[codes])
