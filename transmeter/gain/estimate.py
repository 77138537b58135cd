"""From held-out predictions to a gain with its interval: paired differences and their variance."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from transmeter.gain.metric_names import ACCURACIES, BALANCED, LOG_LOSS
from transmeter.gain.metrics import check_splits, positive_classes, row_values, row_weights
from transmeter.gain.prior import Gain, Measurement, PairFeatures, ShortTransfer, combine, explain, load_prior
from transmeter.tables.data import Table
from transmeter.tables.labels import R2
from transmeter.tables.splits import Split
from transmeter.util.intervals import Interval, around, half_width


@dataclass(frozen=True)
class Outcome:
    """How what uses a source differed from the best learner of the target alone.

    Attributes
    ----------
    difference : ndarray of shape (repeats, n)
        On each labelled row, NaN where a repeat did not measure it: of accuracies correct minus correct, of other
        metrics value minus value (`metrics.row_values`), of a quantity squared error less squared error of the baseline
        and the source, over the label's variance.
    codes : ndarray of shape (n,)
        Class of each of these rows.
    metric : str
        Metric of the gain.
    population : int or None
        Rows that the gain is about; None where the measured ones stand for endlessly many.
    baseline : str
        Name of the learner that the source was compared with.
    transfer : ShortTransfer or None
        What the repeats tell beside the gain; None of a quantity.
    features : PairFeatures or None
        Of source and target; None of a quantity, for which no prior is fitted.
    shots : int
        Labelled rows per class, of a quantity in all.
    over_itself : dict
        Learner -> gain over the same learner without the source, in percentage points.
    correct : ndarray of shape (repeats, n) or None
        Correct minus correct, whatever the metric; None of a quantity.
    absolute : ndarray of shape (repeats, n) or None
        By how much the absolute error is smaller, in the unit of a quantity; None of classes.
    unchanged : bool
        Whether it predicts exactly what the target alone does, so that there is nothing to expect.
    """

    difference: np.ndarray
    codes: np.ndarray
    metric: str
    population: int | None
    baseline: str
    transfer: ShortTransfer | None
    features: PairFeatures | None
    shots: int
    over_itself: dict[str, float] = field(default_factory=dict)
    correct: np.ndarray | None = None
    absolute: np.ndarray | None = None
    unchanged: bool = False


class HeldOutRows:
    """The rows that splits measure.

    Parameters
    ----------
    target : Table
        Table that was split.
    splits : sequence of Split
        Its splits.
    metric : str
        Metric of the gain.
    shots : int or None
        Rows per class that train; None means cross-fitting.

    Attributes
    ----------
    rows, codes : ndarray of shape (n,)
        Row numbers in the target, and their classes.
    splits : list of Split
        With `test` as places in `rows`.
    positives : list of int
        As by `metrics.positive_classes`.
    population : int or None
        Rows that a gain is about; None where these stand for endlessly many.
    """

    def __init__(self, target: Table, splits: Sequence[Split], metric: str, shots: int | None):
        self.metric = metric
        self.rows = np.unique(np.concatenate([s.test for s in splits]))
        self.codes = target.codes[self.rows]
        place = np.zeros(len(target), dtype=np.int64)
        place[self.rows] = np.arange(len(self.rows))
        self.splits = [Split(s.train, place[s.test], s.repeat) for s in splits]
        self.positives = positive_classes(target.codes, len(target.classes))
        check_splits(self.codes, self.splits, metric)
        # planning, and cross-fitting beside unlabelled rows, ask about this table's rows
        self.population = len(target) if shots or (target.codes < 0).any() else None


def right_probability(probabilities: torch.Tensor, held_out: HeldOutRows) -> float:
    """Mean probability of the right class on the test rows, with every class weighing the same.

    Parameters
    ----------
    probabilities : Tensor of shape (splits, n, classes)
        Of the held-out rows, by the first splits.
    held_out : HeldOutRows
        These rows.

    Returns
    -------
    float
        In percent.
    """
    right = probabilities[:, np.arange(len(held_out.codes)), held_out.codes].numpy()
    return 100 * balanced_mean(right, held_out)


def balanced_mean(values: np.ndarray, held_out: HeldOutRows) -> float:
    """Mean of values on the test rows, with every class weighing the same.

    Parameters
    ----------
    values : ndarray of shape (splits, n)
        Of the held-out rows, by the first splits.
    held_out : HeldOutRows
        These rows.

    Returns
    -------
    float
    """
    means = []
    for value, split in zip(values, held_out.splits):
        codes, tested = held_out.codes[split.test], value[split.test]
        means.append(np.mean([tested[codes == k].mean() for k in np.unique(codes)]))
    return float(np.mean(means))


def correctness(probabilities: torch.Tensor, held_out: HeldOutRows) -> np.ndarray:
    """Which rows are classified correctly.

    Parameters
    ----------
    probabilities : Tensor of shape (splits, n, classes)
        Of the held-out rows, by the first splits.
    held_out : HeldOutRows
        These rows.

    Returns
    -------
    ndarray of shape (repeats, n)
        1.0 where the likeliest class is the right one, else 0.0; NaN where a repeat did not measure a row.
    """
    codes, splits = torch.from_numpy(held_out.codes), held_out.splits[: len(probabilities)]
    right = (probabilities.argmax(2) == codes).float().numpy()
    return in_repeats(right, splits)


def values(probabilities: torch.Tensor, held_out: HeldOutRows) -> np.ndarray:
    """Values of rows whose weighted mean is the metric.

    Parameters
    ----------
    probabilities : Tensor of shape (splits, n, classes)
        Of the held-out rows, by the first splits.
    held_out : HeldOutRows
        These rows.

    Returns
    -------
    ndarray of shape (repeats, n)
        Of accuracies which rows are classified correctly, else as by `metrics.row_values`; NaN where a repeat did not
        measure a row.
    """
    if held_out.metric in ACCURACIES:
        return correctness(probabilities, held_out)
    splits = held_out.splits[: len(probabilities)]
    found = row_values(probabilities.numpy(), held_out.codes, splits, held_out.metric, held_out.positives)
    return in_repeats(found, splits)


def in_repeats(values: np.ndarray, splits: Sequence[Split]) -> np.ndarray:
    """Values of the rows that splits measure.

    Parameters
    ----------
    values : ndarray of shape (splits, n)
        By split.
    splits : sequence of Split
        With `test` as places among the n rows.

    Returns
    -------
    ndarray of shape (repeats, n)
        NaN where a repeat did not measure a row.
    """
    cells = np.full((splits[-1].repeat + 1, values.shape[1]), np.nan)
    for i, split in enumerate(splits):
        cells[split.repeat, split.test] = values[i, split.test]
    return cells


def measure_gain(outcome: Outcome, other: Outcome | None = None) -> Measurement:
    """The gain as measured, or its lead over another source's.

    Rows and repeats are crossed: the variance is that of row means plus that of repeat means less that of single
    cells, which both contain (two-way clustering). The rows' part is smaller where they are a good share of the
    population.

    Parameters
    ----------
    outcome : Outcome
        Of one source.
    other : Outcome or None
        Of a source on the same splits; None measures the gain itself.

    Returns
    -------
    tuple of float
        Mean and standard error in percentage points, of log loss in hundredths of a nat, and degrees of freedom.

    References
    ----------
    Cameron, Gelbach & Miller, "Robust Inference With Multiway Clustering", 2011.
    """
    difference = outcome.difference
    if other is not None:
        both = min(len(difference), len(other.difference))  # one may have dropped out of the comparison earlier
        difference = difference[:both] - other.difference[:both]
    seen = ~np.isnan(difference).all(0)
    codes = outcome.codes[seen]
    cells = 100 * difference[:, seen] * row_weights(codes, outcome.metric)
    rows = np.nanmean(cells, axis=0)
    mean, (repeats, n) = float(rows.mean()), cells.shape
    # rows of a quantity differ far more than classes, so that which of them a repeat measures must not count
    by_repeat = np.nanmean(cells - rows if outcome.metric == R2 else cells, axis=1).var(ddof=1) / repeats
    by_row, by_cell, row_freedom = _row_variances(cells, codes, outcome.metric)
    by_row = max(by_row - by_cell, 0.0) * (1 - n / outcome.population if outcome.population else 1.0)
    variance = by_row + by_repeat
    freedom = variance**2 / (by_row**2 / max(row_freedom, 1) + by_repeat**2 / (repeats - 1)) if variance else n - 1.0
    return mean, float(variance) ** 0.5, float(freedom)


def _row_variances(cells: np.ndarray, codes: np.ndarray, metric: str) -> tuple[float, float, float]:
    """Variance of the mean by row means and by single cells (repeats, n), and degrees of freedom of the former.

    The mean over the rows of each class is a metric by slopes (`metrics.SLOPED`), so that what a row deviates by
    counts as if its class were all rows; a cell counts by what it deviates from its row.
    """
    rows, (n, measured) = np.nanmean(cells, axis=0), (len(codes), np.count_nonzero(~np.isnan(cells)))
    if metric == R2:
        return float(rows.var(ddof=1)) / n, float(np.nanvar(cells)) / measured, n - 1
    if metric in ACCURACIES:
        by_row, _ = _stratified_variance(rows, codes, row_weights(codes, metric))
        return by_row, float(np.nanvar(cells)) / measured, n - 1
    reach = n / np.bincount(codes)[codes]
    weights = np.ones(n) if metric == LOG_LOSS else row_weights(codes, BALANCED)
    by_row, freedom = _stratified_variance((rows - rows.mean()) * reach, codes, weights)
    return by_row, float(np.nanvar((cells - rows) * reach)) / measured, freedom


def _stratified_variance(values: np.ndarray, codes: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Variance of the mean of `values` with the class sizes given, and its degrees of freedom (Satterthwaite).

    A difference of +1 and one of -1, a quarter of a row each, are added to every class: few rows without any
    difference are no proof that there is none.
    """
    total, squares = 0.0, 0.0
    for c in np.unique(codes):
        inside, weight = values[codes == c], 100 * weights[codes == c][0]
        n = len(inside)
        spread = (((inside - inside.mean()) ** 2).sum() + weight**2 / 2) / (n + 0.5)
        variance = (n / len(values)) ** 2 * spread / n
        total += variance
        squares += variance**2 / max(n - 1, 1)
    return float(total), float(total**2 / squares)


def measure_mae(outcome: Outcome) -> Interval | None:
    """By how much the mean absolute error is smaller with the source.

    Parameters
    ----------
    outcome : Outcome
        Of one source.

    Returns
    -------
    Interval or None
        In the unit of the quantity; None of classes.
    """
    if outcome.absolute is None:
        return None
    return around(*measure_gain(replace(outcome, difference=outcome.absolute / 100)))


def estimate_gain(outcome: Outcome) -> Gain:
    """The measured gain, combined with what was expected where there is something to expect.

    No prior is fitted for metrics other than accuracies.

    Parameters
    ----------
    outcome : Outcome
        Of one source.

    Returns
    -------
    Gain
        The posterior.
    """
    if outcome.unchanged:
        return Gain.from_error(0.0, 0.0)  # of no row could it be otherwise
    if outcome.metric not in ACCURACIES:
        return Gain.from_error(*measure_gain(outcome))
    return combine(load_prior(), outcome.features, outcome.shots, outcome.transfer, measure_gain(outcome))


def explain_gain(outcome: Outcome) -> dict[str, float] | None:
    """What the estimated gain is made of, where it is combined with what was expected.

    Parameters
    ----------
    outcome : Outcome
        Of one source of classes.

    Returns
    -------
    dict or None
        As by `prior.explain`; None where the gain is the measured one.
    """
    if outcome.metric not in ACCURACIES or outcome.unchanged:
        return None
    return explain(load_prior(), outcome.features, outcome.shots, outcome.transfer, measure_gain(outcome))


def class_gains(outcome: Outcome) -> dict[int, float]:
    """How many more rows of every class were right with the source.

    Parameters
    ----------
    outcome : Outcome
        Of one source.

    Returns
    -------
    dict
        Class number -> percentage points, for the classes that were measured.
    """
    seen = ~np.isnan(outcome.correct).all(0)
    rows, codes = 100 * np.nanmean(outcome.correct[:, seen], axis=0), outcome.codes[seen]
    return {int(c): float(rows[codes == c].mean()) for c in np.unique(codes)}


def is_better(leader: Outcome, other: Outcome) -> bool:
    """Whether a gain is larger than another beyond the 95 % interval of the paired lead.

    Parameters
    ----------
    leader, other : Outcome
        Of two sources on the same splits.

    Returns
    -------
    bool
        False also where the other leads.
    """
    mean, error, freedom = measure_gain(leader, other)
    return mean > half_width(error, freedom)
