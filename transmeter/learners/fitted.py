"""A combination after its fit on all labelled rows, as plain arrays that predict without target and sources."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from transmeter.learners import linear
from transmeter.learners.combination import TARGET_PRIOR, log_weights, source_members, target_members
from transmeter.learners.estimator import UserEstimator
from transmeter.learners.member import EstimatorMember, ForestMember, LinearMember
from transmeter.learners.task import shared, task_of
from transmeter.learners.trees import Trees, weighted_sum
from transmeter.network.source import Encoded, Source

ROUNDING = 1e-5  # by which probabilities may miss a sum of 1


class Named(Protocol):
    """A member of classes or of a quantity."""

    @property
    def name(self) -> str: ...


@dataclass(frozen=True)
class Fitted:
    """A weighted average of logistic regressions and trees.

    Attributes
    ----------
    basis : ndarray of shape (features, d)
        That leads from encoded features to those of the members.
    shares : ndarray of shape (members,)
        Weights of the regressions.
    coefficients : ndarray of shape (members, regressions, d + 1)
        Of the regressions, see `linear.probabilities`.
    trees : Trees
        Whose leaves hold what is missing to probabilities of sum 1.
    estimators : tuple of (float, EstimatorMember)
        Of the user, with their shares.
    """

    basis: np.ndarray
    shares: np.ndarray
    coefficients: np.ndarray
    trees: Trees
    estimators: tuple[tuple[float, EstimatorMember], ...] = ()

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        """Average what the members predict.

        Parameters
        ----------
        x : ndarray of shape (n, features)
            Encoded rows.

        Returns
        -------
        ndarray of shape (n, classes)
            Rows sum to 1.
        """
        x = x.astype(np.float64) @ self.basis
        found = self.trees.probabilities(x)
        for share, coefficients in zip(self.shares, self.coefficients):
            found += share * linear.probabilities(coefficients, x)
        for share, member in self.estimators:
            found += share * member.probabilities(x)[0]
        return found

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything by name, as `restore` takes it. Raises ValueError with estimators of the user."""
        check_plain(self.estimators)
        own = {"basis": self.basis, "shares": self.shares, "coefficients": self.coefficients}
        return own | self.trees.arrays()

    @classmethod
    def restore(cls, arrays: Mapping[str, np.ndarray]) -> "Fitted":
        """Take what `arrays` gave. Raises KeyError for a lack, and ValueError for shapes that do not fit."""
        found = cls(
            basis=arrays["basis"],
            shares=arrays["shares"],
            coefficients=arrays["coefficients"],
            trees=Trees.restore(arrays),
        )
        if (found.basis.ndim, found.shares.shape) != (2, found.coefficients.shape[:1]):
            raise ValueError("its regressions and shares do not belong together")
        check_arrays(found.arrays())
        found.trees.check(found.basis.shape[1])
        if abs(found.probabilities(np.zeros((1, len(found.basis)))).sum() - 1) > ROUNDING:
            raise ValueError("its probabilities do not sum to 1")
        return found


def fit_combination(
    target: Encoded, sources: Sequence[Source], seed: int, estimator: UserEstimator | None = None
) -> tuple[Fitted, dict[str, float]]:
    """Fit all learners on all labelled rows.

    Parameters
    ----------
    target : Encoded
        Whose labelled rows are trained on.
    sources : sequence of Source
        With columns named as the target's; none is needed.
    seed : int
        Of the forests.
    estimator : UserEstimator or None
        That joins the learners.

    Returns
    -------
    Fitted
        The average.
    dict
        Share of every member by its name, largest first.
    """
    task = task_of(target, [np.flatnonzero(target.table.codes >= 0)], seed, estimator)
    alone = [m for found in target_members(task).values() for m in found]
    given = [m for s in sources for found in source_members(task, shared(s, target, task)).values() for m in found]
    priors = np.repeat([TARGET_PRIOR, 1.0], [len(alone), len(given)])[:, None]
    shares = shares_of(log_weights([*alone, *given], priors, task)[:, 0])
    members = list(zip(shares, [*alone, *given]))
    regressions = [(share, m.coefficients[0]) for share, m in members if isinstance(m, LinearMember)]
    forests = [(share, m.forests[0]) for share, m in members if isinstance(m, ForestMember)]
    fitted = Fitted(
        basis=task.basis,
        shares=np.array([share for share, _ in regressions]),
        coefficients=np.stack([coefficients for _, coefficients in regressions]),
        trees=weighted_sum([forest for _, forest in forests], [share for share, _ in forests]),
        estimators=tuple((share, m) for share, m in members if isinstance(m, EstimatorMember)),
    )
    return fitted, by_share(members)


def check_plain(estimators: Sequence[tuple[float, Named]]) -> None:
    """Whether a fit can be saved as plain arrays.

    Parameters
    ----------
    estimators : sequence of (float, member)
        Of the user, in the fit.

    Raises
    ------
    ValueError
        For any.
    """
    for _, member in estimators:
        raise ValueError(f"{member.name}: not plain arrays, and no pickle is written: leave learner out to save")


def check_arrays(arrays: Mapping[str, np.ndarray]) -> None:
    """Whether saved numbers can be predicted with.

    Parameters
    ----------
    arrays : mapping
        Of a fit, by name.

    Raises
    ------
    ValueError
        For numbers that are not finite.
    """
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ValueError("it has numbers that are not finite")


def shares_of(log_weights: np.ndarray) -> np.ndarray:
    """Shares of members in their average.

    Parameters
    ----------
    log_weights : ndarray of shape (members,)
        Logarithms of their weights, not normalised.

    Returns
    -------
    ndarray of shape (members,)
        Of sum 1.
    """
    weights = np.exp(log_weights - log_weights.max())
    return weights / weights.sum()


def by_share(members: Sequence[tuple[float, Named]]) -> dict[str, float]:
    """Share of every member by its name.

    Parameters
    ----------
    members : sequence of (float, member)
        Share of each.

    Returns
    -------
    dict
        Largest first.
    """
    return {m.name: float(share) for share, m in sorted(members, key=lambda item: -float(item[0]))}
