"""A combination of a quantity after its fit on all labelled rows, as plain arrays: one plane, and trees beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from transmeter.learners.estimator import UserEstimator
from transmeter.learners.fitted import by_share, check_arrays, check_plain, shares_of
from transmeter.learners.linear import with_intercept
from transmeter.learners.regression.combination import log_weights, source_members, target_members
from transmeter.learners.regression.member import EstimatorMember, Member
from transmeter.learners.regression.task import shared, task_of
from transmeter.learners.trees import Trees, weighted_sum
from transmeter.network.source import Encoded, Source


@dataclass(frozen=True)
class FittedQuantity:
    """The weighted sum of regressions and trees: sums of linear models are one.

    Attributes
    ----------
    basis : ndarray of shape (features, d)
        That leads from encoded features to those of the members.
    coefficients : ndarray of shape (d + 1,)
        Of these, the intercept last.
    trees : Trees
        Whose leaves hold what is added to that.
    estimators : tuple of (float, EstimatorMember)
        Of the user, with their shares in the label's unit.
    """

    basis: np.ndarray
    coefficients: np.ndarray
    trees: Trees
    estimators: tuple[tuple[float, EstimatorMember], ...] = ()

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Average what the members predict.

        Parameters
        ----------
        x : ndarray of shape (n, features)
            Encoded rows.

        Returns
        -------
        ndarray of shape (n,)
            In the unit of the label.
        """
        x = x.astype(np.float64) @ self.basis
        plain = with_intercept(x) @ self.coefficients + self.trees.probabilities(x)[:, 0]
        return plain + sum(share * member.predict(x)[0] for share, member in self.estimators)

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything by name, as `restore` takes it. Raises ValueError with estimators of the user."""
        check_plain(self.estimators)
        own = {"basis": self.basis, "coefficients": self.coefficients}
        return own | self.trees.arrays()

    @classmethod
    def restore(cls, arrays: Mapping[str, np.ndarray]) -> "FittedQuantity":
        """Take what `arrays` gave. Raises KeyError for a lack, and ValueError for shapes that do not fit."""
        found = cls(basis=arrays["basis"], coefficients=arrays["coefficients"], trees=Trees.restore(arrays))
        check_arrays(found.arrays())
        found.trees.check(found.basis.shape[1])
        found.predict(np.zeros((1, len(found.basis))))
        return found


def fit_quantity(
    target: Encoded, sources: Sequence[Source], seed: int, estimator: UserEstimator | None = None
) -> tuple[FittedQuantity, dict[str, float]]:
    """Fit all learners on all labelled rows.

    Parameters
    ----------
    target : Encoded
        With a quantity, whose labelled rows are trained on.
    sources : sequence of Source
        With a quantity and columns named as the target's; none is needed.
    seed : int
        Of the forests.
    estimator : UserEstimator or None
        That joins the learners.

    Returns
    -------
    FittedQuantity
        The average.
    dict
        Share of every member by its name, largest first.
    """
    task = task_of(target, [np.flatnonzero(np.isfinite(target.table.quantity))], seed, estimator)
    alone = [m for found in target_members(task).values() for m in found]
    given = [m for s in sources for found in source_members(task, shared(s, target, task)).values() for m in found]
    shares = shares_of(log_weights([*alone, *given])[:, 0])
    members = list(zip(shares, [*alone, *given]))
    plain = [(share, m) for share, m in members if isinstance(m, Member)]
    mean, deviation = task.unit
    coefficients = deviation * sum(share * m.coefficients[0] for share, m in plain)
    coefficients[-1] += mean
    grown = {id(m.forests[0]): m.forests[0] for _, m in plain if m.forests}  # a forest serves several members
    slopes = dict.fromkeys(grown, 0.0)
    for share, member in plain:
        for forest in member.forests:
            slopes[id(forest)] += deviation * share * member.slopes[0]
    fitted = FittedQuantity(
        basis=task.basis,
        coefficients=coefficients,
        trees=weighted_sum(list(grown.values()), list(slopes.values())),
        estimators=tuple((deviation * share, m) for share, m in members if isinstance(m, EstimatorMember)),
    )
    return fitted, by_share(members)
