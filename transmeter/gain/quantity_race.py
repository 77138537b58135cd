"""The race of sources for a target whose label is a quantity: gains are in R2 points.

The rounds are those of classes. No prior is fitted for quantities: a gain is the measured one, with an interval by
Student's t distribution, and every source gets into the first round.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from transmeter.gain.estimate import HeldOutRows, Outcome, in_repeats
from transmeter.gain.race import UNKNOWN, Race
from transmeter.gain.transfers import Network, Transfers, by_regression
from transmeter.learners.estimator import Learner, user_estimator
from transmeter.learners.regression.baseline import boosting
from transmeter.network.source import Source
from transmeter.tables.data import Table
from transmeter.tables.labels import R2, in_unit, unit_of
from transmeter.tables.splits import Split

BASELINES = {"target_ridge": "ridge", "target_forest": "random forest"}  # learners, and their names as baselines
BOOSTING = "gradient boosting"


class QuantityRows(HeldOutRows):
    """The rows that splits measure, of one stratum.

    Attributes
    ----------
    values : ndarray of shape (n,)
        Their quantity, less the mean and over the standard deviation of all labelled rows.
    deviation : float
        That standard deviation, in the quantity's unit.
    """

    def __init__(self, target: Table, splits: Sequence[Split], shots: int | None):
        super().__init__(target, splits, R2, shots)
        unit = unit_of(target.quantity)
        self.codes = np.zeros(len(self.rows), dtype=np.int64)
        self.values, self.deviation = in_unit(target.quantity[self.rows], unit), unit[1]

    def errors(self, predicted: np.ndarray) -> np.ndarray:
        """(..., n) errors of predictions (..., n, 1), in standard deviations of the quantity."""
        return predicted[..., 0].astype(np.float64) - self.values


class QuantityRace(Race):
    """As `Race`, of a quantity.

    Attributes
    ----------
    held_out : QuantityRows
        Rows that splits measure.
    """

    held_out: QuantityRows

    def _look(self, target: Table, metric: str, shots: int | None) -> None:
        if self.network:
            raise ValueError(f"the network tells classes apart, {target.name} has a quantity: leave learner out")
        self.held_out = QuantityRows(target, self.splits, shots)
        self.shots = shots or int(np.isfinite(target.quantity).sum())
        self.features = [None] * len(self.sources)
        self.predicted = [UNKNOWN] * len(self.sources)

    def promising(self) -> list[int]:
        """All sources."""
        return list(range(len(self.sources)))

    def _fit(
        self, sources: Sequence[Source], part: Sequence[Split], number: int
    ) -> tuple[Transfers, dict[str, Tensor]]:
        rows = self.held_out.rows
        found = by_regression(sources, self.target, part, rows, self.seed, self.estimator)
        alone = {name: found.by_learner[learner].probabilities for learner, name in BASELINES.items()}
        alone[BOOSTING] = boosting(self.target, part, rows, self.seed)
        alone |= found.by_estimator(self.estimator)
        return found, {name: torch.from_numpy(predicted) for name, predicted in alone.items()}

    def reached(self, predicted: Tensor, splits: Sequence[Split]) -> np.ndarray:
        """(arms, splits) R2 in percent of predictions (arms, splits, rows, 1)."""
        return r2(self.held_out.errors(predicted.numpy()), splits)

    def cells(self, predicted: Tensor) -> np.ndarray:
        """(repeats, rows) values whose mean is R2, of predictions (splits so far, rows, 1)."""
        return 1 - in_repeats(self.held_out.errors(predicted.numpy()) ** 2, self._done(predicted))

    def likelihoods(self, predicted: Tensor) -> np.ndarray:
        """(1, splits, rows) squared errors, negative, of predictions (splits, rows, 1)."""
        return -(self.held_out.errors(predicted.numpy())[None] ** 2)

    def outcome_of(self, probabilities: Tensor, i: int) -> Outcome:
        """Of predictions (splits so far, rows, 1), with the absolute errors as well."""
        outcome = super().outcome_of(probabilities, i)
        alone = self.alone[outcome.baseline][: len(probabilities)]
        before, after = (np.abs(self.held_out.errors(predicted.numpy())) for predicted in (alone, probabilities))
        smaller = in_repeats(before - after, self._done(probabilities))
        return replace(outcome, correct=None, absolute=self.held_out.deviation * smaller)

    def _transfer(self, probabilities: Tensor) -> None:
        return None

    def _done(self, predicted: Tensor) -> list[Split]:
        return self.held_out.splits[: len(predicted)]


def r2(errors: np.ndarray, splits: Sequence[Split]) -> np.ndarray:
    """R2 on the test rows of each split, over the variance of all labelled rows.

    Parameters
    ----------
    errors : ndarray of shape (arms, splits, n)
        In standard deviations of the quantity.
    splits : sequence of Split
        Whose `test` are places among the n rows.

    Returns
    -------
    ndarray of shape (arms, splits)
        In percent.
    """
    squares = [(errors[:, i, split.test] ** 2).mean(1) for i, split in enumerate(splits)]
    return 100 * (1 - np.stack(squares, axis=1))


def start_race(
    sources: Sequence[Source],
    target: Table,
    metric: str,
    seed: int,
    shots: int | None,
    repeats: int | None,
    independent: bool = False,
    network: Network | None = None,
    learner: Learner = None,
) -> Race:
    """The race for a target, by its metric.

    Parameters
    ----------
    sources, target, metric, seed, shots, repeats, independent, network
        As of `Race`; the metric is "r2" where source and target have quantities.
    learner : str, BaseEstimator, UserEstimator or None
        An estimator that joins the combination, as `user_estimator` takes it.

    Returns
    -------
    Race
        Before the first round.

    Raises
    ------
    ValueError
        As by `Race` and `user_estimator`.
    """
    kind = QuantityRace if metric == R2 else Race
    estimator = user_estimator(learner, metric == R2)
    return kind(sources, target, metric, seed, shots, repeats, independent, network, estimator)
