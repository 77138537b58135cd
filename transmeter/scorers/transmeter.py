"""Transmeter: the gain in percentage points that a source brings over the best that the target alone can do.

All sources are screened in closed form; with the promising ones the best combination of learners is fitted on some
labelled target rows and measured on others, against the best learner of the target alone on the same rows. Round by
round those that are settled drop out. In the place of the combination may stand Transmeter's network, reconstructed
from the published abstracts of Park et al., "Transmeter", arXiv 1912.13366. Range: percentage points, about -50 to 50.
"""

import logging
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from sklearn.base import BaseEstimator

from transmeter.gain.quantity_race import start_race
from transmeter.gain.score import Needs, Score
from transmeter.gain.transfers import Network
from transmeter.learners.estimator import UserEstimator
from transmeter.network.source import Source
from transmeter.network.training import Schedule, Terms
from transmeter.tables.data import Table
from transmeter.util.counts import counted
from transmeter.util.progress import bar

LOG = logging.getLogger(__name__)
NEEDS = Needs(
    labelled_rows=2,
    classifier=True,
    settings=("shots", "repeats", "metric", "budget"),
    compares=True,
    quantities=True,
)
VARIANTS = {
    "plain": Terms(),
    "fast": Terms(reconstruction=0.1, mean_distance=0.01),
    "paper": Terms(reconstruction=0.1, mean_distance=0.01, discriminator=0.1),
}


def score(
    sources: Sequence[Source],
    target: Table,
    *,
    seed: int = 0,
    shots: int | None = None,
    repeats: int | None = None,
    metric: str = "balanced_accuracy",
    budget: float | None = None,
    learner: str | BaseEstimator | UserEstimator = "combination",
    variant: Literal["plain", "fast", "paper"] | None = None,
    source_loss: float | None = None,
    reconstruction: float | None = None,
    discriminator: float | None = None,
    mean_distance: float | None = None,
    steps: int | None = None,
    independent: bool = False,
) -> list[Score]:
    """Estimated gain of every source, its value in percentage points.

    Parameters
    ----------
    sources, target : sequence of Source, Table
        What is compared.
    seed : int
        Seed of splits, forests, gradient boosting and networks.
    shots : int or None
        Labelled rows per class that train; None means cross-fitting.
    repeats : int or None
        Number of repeats at most; None means 40, or 10 of cross-fitting.
    metric : str
        Metric of gains: balanced_accuracy, accuracy, or r2 of a target whose label is a quantity.
    budget : float or None
        Seconds after which no new round begins.
    learner : str, BaseEstimator or UserEstimator
        How a source is used: combination (of logistic regressions and forests, `transmeter.learners`), network, or an
        estimator of scikit-learn's kind that joins the combination, such as "lightgbm.LGBMClassifier(n_jobs=1)".
    variant : str or None
        Terms of the network's loss: plain (cross-entropies), fast (with reconstruction and mean distance) or paper
        (with label-wise discriminators as well); None: plain.
    source_loss, reconstruction, discriminator, mean_distance : float or None
        Weight of a term of the network's loss other than the variant's; 0 switches it off.
    steps : int or None
        Training steps of every network; None: 80.
    independent : bool
        Whether every source is transferred and measured as if it were the only one, whatever the others are.

    Returns
    -------
    list of Score
        With gains, and with outcomes for the sources that got beyond the screen.

    Raises
    ------
    ValueError
        As by `make_splits` and `user_estimator`, for an option of the network without `learner="network"`, and for the
        network of a quantity.

    References
    ----------
    Park et al., "Transmeter", arXiv 1912.13366.
    """
    begin = time.monotonic()
    weights = {
        "source_loss": source_loss,
        "reconstruction": reconstruction,
        "discriminator": discriminator,
        "mean_distance": mean_distance,
    }
    weights = {k: v for k, v in weights.items() if v is not None}
    if learner == "network":
        terms = replace(VARIANTS[variant or "plain"], **weights)
        network = Network(terms, Schedule() if steps is None else Schedule(steps), seed)
    else:
        _refuse({"variant": variant, "steps": steps} | weights)
        network = None
    added = None if network else learner
    race = start_race(sources, target, metric, seed, shots, repeats, independent, network, added)
    active = race.promising()
    screened = ", ".join(s.table.name for i, s in enumerate(sources) if i not in active)
    LOG.info("%d of %d sources are transferred; screened out: %s", len(active), len(sources), screened or "none")
    with bar(f"{counted(len(sources), 'source')} for {target.name}:", race.rounds) as step:
        for number in range(race.rounds):
            if not active or (number and budget and time.monotonic() - begin > budget):
                break
            try:
                race.run(active, number)
            except KeyboardInterrupt:
                if not number:
                    raise
                warnings.warn(f"interrupted: gains are of {number} of {race.rounds} rounds", stacklevel=2)
                break
            active = race.unsettled(active)
            news = race.news(active)
            step(news)
            LOG.info("round %d of %d: %s", number + 1, race.rounds, news)
    gains = [race.gain(i) for i in range(len(sources))]
    return [Score(gain.mean, gain, race.outcome(i)) for i, gain in enumerate(gains)]


def _refuse(options: Mapping[str, object]) -> None:
    """Raises ValueError where an option of the network is given."""
    if names := [name for name, value in options.items() if value is not None]:
        raise ValueError(f"{names[0]} is an option of the network: set learner=network too, or leave it out")
