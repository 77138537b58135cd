"""Metrics that gains of classes are measured in.

The accuracies are weighted means of rows that are right or not. The others are no means of rows: each is a function
that returns, for the test rows of one split, its value as scikit-learn computes it and the slope of every row, by how
much a row like this more would move the value, times the rows of its class. Value and slopes make values of rows
(`row_values`) whose mean is the metric and whose variance within classes is that of the metric: pseudo-values of the
jackknife, linearised. Of ROC AUC they are DeLong's placement values.

References
----------
Arvesen, "Jackknifing U-Statistics", Annals of Mathematical Statistics 1969.
DeLong, DeLong & Clarke-Pearson, "Comparing the Areas under Two or More Correlated Receiver Operating Characteristic
Curves: A Nonparametric Approach", Biometrics 1988.
Efron, "The Jackknife, the Bootstrap and Other Resampling Plans", SIAM 1982 (chapter 6, the infinitesimal jackknife).
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from transmeter.gain.metric_names import ACCURACIES, BALANCED, ONE_VS_REST
from transmeter.tables.splits import Split

LEAST = float(np.finfo(np.float32).eps)  # probability that log loss counts with, as scikit-learn's of float32

Sloped = tuple[float, np.ndarray]  # value, and (n,) slopes of its rows


def roc_auc(probabilities: np.ndarray, codes: np.ndarray, positives: Sequence[int]) -> Sloped:
    """Area under the ROC curve of every positive class against the rest, the mean of them.

    Parameters
    ----------
    probabilities : ndarray of shape (n, classes)
        Of the test rows of a split.
    codes : ndarray of shape (n,)
        Their class numbers, of two classes at least.
    positives : sequence of int
        Classes that count, as by `positive_classes`; those without a row here do not.

    Returns
    -------
    tuple
        The value, and slopes of shape (n,).
    """
    return _one_vs_rest(_placements, probabilities, codes, positives)


def average_precision(probabilities: np.ndarray, codes: np.ndarray, positives: Sequence[int]) -> Sloped:
    """Average precision of every positive class against the rest, the mean of them.

    Parameters
    ----------
    probabilities, codes, positives
        As of `roc_auc`.

    Returns
    -------
    tuple
        The value, and slopes of shape (n,).

    References
    ----------
    Boyd, Eng & Page, "Area under the Precision-Recall Curve: Point Estimates and Confidence Intervals", ECML 2013.
    """
    return _one_vs_rest(_precisions, probabilities, codes, positives)


def macro_f1(probabilities: np.ndarray, codes: np.ndarray, positives: Sequence[int]) -> Sloped:
    """F1 score of every class, the mean of them; classes that are neither there nor predicted do not count.

    Parameters
    ----------
    probabilities, codes, positives
        As of `roc_auc`; all classes are positive.

    Returns
    -------
    tuple
        The value, and slopes of shape (n,).
    """
    guesses, classes = probabilities.argmax(1), probabilities.shape[1]
    there, predicted = np.bincount(codes, minlength=classes), np.bincount(guesses, minlength=classes)
    right = np.bincount(codes[guesses == codes], minlength=classes)
    total = np.maximum(there + predicted, 1)
    f1 = 2 * right / total
    counted = np.count_nonzero(there + predicted)
    slopes = (2 * (guesses == codes) - f1[guesses]) * there[codes] / total[guesses] / counted
    return float(f1.sum() / counted), slopes


def log_loss(probabilities: np.ndarray, codes: np.ndarray, positives: Sequence[int]) -> Sloped:
    """Mean logarithm of the probability of the right class: the log loss, negative, so that more is better.

    Parameters
    ----------
    probabilities, codes, positives
        As of `roc_auc`; all classes are positive.

    Returns
    -------
    tuple
        The value in nats, and slopes of shape (n,).
    """
    right = np.log(np.clip(probabilities[np.arange(len(codes)), codes], LEAST, 1 - LEAST))
    return float(right.mean()), right * np.bincount(codes)[codes] / len(codes)


SLOPED: dict[str, Callable[[np.ndarray, np.ndarray, Sequence[int]], Sloped]] = {
    f.__name__: f for f in (roc_auc, average_precision, macro_f1, log_loss)
}


def _one_vs_rest(
    of_class: Callable[[np.ndarray, np.ndarray], Sloped],
    probabilities: np.ndarray,
    codes: np.ndarray,
    positives: Sequence[int],
) -> Sloped:
    """Mean over the positive classes that are there; slopes of a side are shared out to the classes on it."""
    counts = np.bincount(codes, minlength=probabilities.shape[1])
    values, slopes = [], []
    for k in (k for k in positives if counts[k]):
        positive = codes == k
        value, slope = of_class(probabilities[:, k], positive)
        values.append(value)
        slopes.append(slope * counts[codes] / np.where(positive, counts[k], len(codes) - counts[k]))
    return float(np.mean(values)), np.mean(slopes, axis=0)


def _placements(scores: np.ndarray, positive: np.ndarray) -> Sloped:
    """ROC AUC of scores (n,), and of every row the share of the other side that it is on the right side of."""
    _, level = np.unique(scores, return_inverse=True)
    there, rest = np.bincount(level, positive), np.bincount(level, ~positive)
    below = (rest.cumsum() - rest / 2) / rest.sum()  # share of the rest below every level; ties count half
    above = 1 - (there.cumsum() - there / 2) / there.sum()
    placements = np.where(positive, below[level], above[level])
    return float((there * below).sum() / there.sum()), placements


def _precisions(scores: np.ndarray, positive: np.ndarray) -> Sloped:
    """Average precision of scores (n,), and the slopes of both sides."""
    _, level = np.unique(scores, return_inverse=True)
    there, all_there = np.bincount(level, positive), np.bincount(level)
    found, taken = (x[::-1].cumsum()[::-1] for x in (there, all_there))  # at or above every level
    precision, total = found / taken, there.sum()
    above = np.cumsum(there * (taken - found) / taken**2)  # what a positive row adds to the precision of lower levels
    below = np.cumsum(there * found / taken**2) / total  # and what another one takes from it
    slopes = np.where(positive, (precision + above)[level], -np.count_nonzero(~positive) * below[level])
    return float((there * precision).sum() / total), slopes


def positive_classes(codes: np.ndarray, classes: int) -> list[int]:
    """The classes that ROC AUC and average precision are of: all, of two the rarer one.

    Parameters
    ----------
    codes : ndarray of shape (n,)
        Class numbers of a table's rows; negative ones are unlabelled.
    classes : int
        Number of classes.

    Returns
    -------
    list of int
        Of two classes with equally many rows the second.
    """
    counts = np.bincount(codes[codes >= 0], minlength=classes)
    return [int(counts[1] <= counts[0])] if classes == 2 else list(range(classes))


def check_splits(codes: np.ndarray, splits: Sequence[Split], metric: str) -> None:
    """Refuse splits on which a metric says nothing.

    Parameters
    ----------
    codes : ndarray of shape (n,)
        Class numbers of the rows.
    splits : sequence of Split
        Whose `test` are places in `codes`.
    metric : str
        One of `metric_names.METRICS`.

    Raises
    ------
    ValueError
        Where ROC AUC or average precision is asked of test rows of one class.
    """
    if metric in ONE_VS_REST and any(len(np.unique(codes[s.test])) < 2 for s in splits):
        raise ValueError(f"metric {metric} needs two classes among the test rows of every split: give fewer --shots")


def reached_by(
    probabilities: torch.Tensor, codes: np.ndarray, splits: Sequence[Split], metric: str, positives: Sequence[int]
) -> np.ndarray:
    """A metric of several classifiers on the test rows of each split.

    Parameters
    ----------
    probabilities : Tensor of shape (arms, splits, n, classes)
        Of every class, by each classifier and split.
    codes : ndarray of shape (n,)
        Class numbers of the rows.
    splits : sequence of Split
        Whose `test` are places in `codes`.
    metric : str
        One of `metric_names.METRICS`.
    positives : sequence of int
        As by `positive_classes`.

    Returns
    -------
    ndarray of shape (arms, splits)
        In percent, of log loss in hundredths of a nat, negative.
    """
    if metric in ACCURACIES:
        return accuracies(probabilities, codes, splits, metric)
    tests = [(i, split.test, codes[split.test]) for i, split in enumerate(splits)]
    by_arm = [
        [SLOPED[metric](p[i, rows], there, positives)[0] for i, rows, there in tests] for p in probabilities.numpy()
    ]
    return 100 * np.array(by_arm)


def row_values(
    probabilities: np.ndarray, codes: np.ndarray, splits: Sequence[Split], metric: str, positives: Sequence[int]
) -> np.ndarray:
    """Values of rows whose mean over the test rows of a split, and over those of each class, is the metric.

    Parameters
    ----------
    probabilities : ndarray of shape (splits, n, classes)
        Of every class.
    codes, splits, positives
        As of `reached_by`.
    metric : str
        One of `SLOPED`.

    Returns
    -------
    ndarray of shape (splits, n)
        A share, of log loss nats; 0 where a split does not measure a row.
    """
    values = np.zeros(probabilities.shape[:2])
    for i, split in enumerate(splits):
        there = codes[split.test]
        value, slopes = SLOPED[metric](probabilities[i, split.test], there, positives)
        means = np.bincount(there, slopes) / np.maximum(np.bincount(there), 1)
        values[i, split.test] = value + slopes - means[there]
    return values


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
        One of `ACCURACIES`.

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
    """Weights of rows with which the mean of their values is the metric: of rows that are right or not the accuracy.

    Parameters
    ----------
    codes : ndarray of shape (n,)
        Class numbers from 0.
    metric : str
        One of `metric_names.METRICS`.

    Returns
    -------
    ndarray of shape (n,)
        Of mean 1.
    """
    if metric != BALANCED:
        return np.ones(len(codes))
    counts = np.bincount(codes)
    return len(codes) / ((counts > 0).sum() * counts[codes])
