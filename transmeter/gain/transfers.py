"""What the ways to use a source predict, beside what each predicts without one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from transmeter.learners.combination import COMBINATION, NO_WEIGHT, Part, average, learn, learners
from transmeter.learners.estimator import UserEstimator
from transmeter.learners.regression import combination as regression
from transmeter.network.source import WIDTH, Encoded, Source
from transmeter.network.training import Schedule, Terms
from transmeter.network.transfer import train
from transmeter.tables.splits import Split

OWN_ESTIMATOR = "target_estimator"  # learner of the user's estimator on the target alone
NETWORK = "network"  # its name among learners
SCRATCH = "scratch network"  # and without a source
STACK = 160  # networks that train as one batch, so that memory is flat in sources and repeats
WEIGHTS = 30_000_000  # of the first and last layers of one batch, so that wide tables do not fill the memory


@dataclass(frozen=True)
class Network:
    """How Transmeter's network is trained.

    Attributes
    ----------
    terms : Terms
        Weights of the loss.
    schedule : Schedule
        Steps and rates.
    seed : int
        Of fresh layers and batches.
    """

    terms: Terms
    schedule: Schedule
    seed: int


@dataclass(frozen=True)
class Transfers:
    """Predictions of the same rows on the same splits.

    Attributes
    ----------
    alone : Part
        By all learners of the target alone.
    given : list of Part
        By all learners that use a source, one per source.
    with_and_without : list of dict
        Per source by learner: what it predicts with the source, and without one.
    by_learner : dict
        Learner of the target alone -> what it predicts; empty of the network.
    """

    alone: Part
    given: list[Part]
    with_and_without: list[dict[str, tuple[np.ndarray, np.ndarray]]]
    by_learner: dict[str, Part] = field(default_factory=dict)

    def by_estimator(self, estimator: UserEstimator | None) -> dict[str, np.ndarray]:
        """(splits, n, classes) by the user's estimator on the target alone, by its name; empty without any."""
        return {estimator.name: self.by_learner[OWN_ESTIMATOR].probabilities} if estimator else {}


def by_combination(
    sources: Sequence[Source],
    target: Encoded,
    splits: Sequence[Split],
    rows: np.ndarray,
    seed: int,
    estimator: UserEstimator | None = None,
) -> Transfers:
    """Fit the combination of learners.

    Parameters
    ----------
    sources : sequence of Source
        None is needed.
    target : Encoded
        Target.
    splits : sequence of Split
        Whose `train` rows are trained on.
    rows : ndarray of int
        To predict.
    seed : int
        Of the forests.
    estimator : UserEstimator or None
        That joins the learners.

    Returns
    -------
    Transfers
    """
    mine, given = learn(target, sources, [s.train for s in splits], rows, seed, estimator)
    return _combined(mine, given, {name: m.COUNTERPART for name, m in learners().items() if m.NEEDS_SOURCE})


def by_regression(
    sources: Sequence[Source],
    target: Encoded,
    splits: Sequence[Split],
    rows: np.ndarray,
    seed: int,
    estimator: UserEstimator | None = None,
) -> Transfers:
    """Fit the combination of learners of a quantity.

    Parameters
    ----------
    sources, target, splits, rows, seed, estimator
        As of `by_combination`, all with quantities.

    Returns
    -------
    Transfers
    """
    mine, given = regression.learn(target, sources, [s.train for s in splits], rows, seed, estimator)
    return _combined(mine, given, regression.counterparts())


def _combined(mine: dict[str, Part], given: list[dict[str, Part]], counterparts: Mapping[str, str]) -> Transfers:
    """What all learners predict together, and each beside its counterpart of the target alone."""
    alone, theirs = average(list(mine.values())), [average(list(parts.values())) for parts in given]
    pairs = []
    for parts, all_of_them in zip(given, theirs):
        there = {name: p for name, p in parts.items() if (p.log_weight > NO_WEIGHT).any()}  # has a member
        both = {name: (p.probabilities, mine[counterparts[name]].probabilities) for name, p in there.items()}
        pairs.append({COMBINATION: (average([alone, all_of_them]).probabilities, alone.probabilities), **both})
    return Transfers(alone, theirs, pairs, mine)


def by_network(
    sources: Sequence[Source], target: Encoded, splits: Sequence[Split], rows: np.ndarray, network: Network
) -> Transfers:
    """Train a network from every source.

    Parameters
    ----------
    sources, target, splits, rows
        As of `by_combination`.
    network : Network
        How it is trained.

    Returns
    -------
    Transfers
        A set of sources is the average of their networks.
    """
    widest = max(target.x.shape[1], *(s.x.shape[1] for s in sources), 1)
    arms = max(1, min(STACK // len(splits) - 1, WEIGHTS // (len(splits) * widest * WIDTH * 2)))
    given, pairs = [], []
    for first in range(0, max(len(sources), 1), arms):
        trained = train(sources[first : first + arms], target, splits, network.terms, network.schedule, network.seed)
        *by_source, alone = trained.probabilities(target.x[rows]).numpy()
        given += [Part(np.zeros(len(splits)), p) for p in by_source]
        pairs += [{NETWORK: (p, alone)} for p in by_source]
    return Transfers(Part(np.full(len(splits), NO_WEIGHT), alone), given, pairs)
