"""The best set of sources: chosen greedily, its gain on rows that did not choose.

Sources enter one by one, each time the one with which the combination makes the labels of held-out target rows
likeliest, for as long as it makes them likelier. An average of several is less sure of itself than each of them, which
is no fault: so likelihoods are compared after sharpening, by the exponent that suits each set best. A gain on the rows
that chose would be too good; so the rows are cut into folds, the set is chosen anew without each, and gains are
measured on the fold (cross-fitting of the choice).
"""

import logging
import time
import warnings
from collections.abc import Sequence

import numpy as np
import torch

from transmeter.gain.estimate import Outcome, estimate_gain, measure_gain
from transmeter.gain.quantity_race import start_race
from transmeter.gain.race import Race
from transmeter.gain.source_set import SourceSet
from transmeter.learners.estimator import Learner
from transmeter.network.source import Source
from transmeter.tables.data import Table
from transmeter.util.counts import counted
from transmeter.util.intervals import Interval, around
from transmeter.util.progress import bar

LOG = logging.getLogger(__name__)
FOLDS = 5  # of held-out rows, each measured by sets that the others chose


class _Rows:
    """Log-likelihoods of held-out labels by sets of sources, on chosen rows.

    Sets are asked for again and again, so what they predict is kept: `Race.likelihoods`.
    """

    def __init__(self, race: Race):
        self.race, self.known = race, {}
        held_out = race.held_out
        done = held_out.splits[: len(race.own.log_weight)]
        self.tested = np.zeros((len(done), len(held_out.codes)), dtype=bool)
        for i, split in enumerate(done):
            self.tested[i, split.test] = True

    def likelihood(self, chosen: frozenset[int], rows: np.ndarray) -> float:
        """Mean over classes of the log-probability of the right class, on the given rows where splits test them."""
        codes = self.race.held_out.codes
        if chosen not in self.known:
            self.known[chosen] = self.race.likelihoods(self.race.together(sorted(chosen)))
        by_class = [self.known[chosen][:, self.tested & rows & (codes == c)].mean(1) for c in np.unique(codes[rows])]
        return float(np.mean(by_class, axis=0).max())

    def best(self, candidates: Sequence[int], rows: np.ndarray) -> list[int]:
        """The set that greedy choice on some rows gives, in order of entry."""
        chosen: list[int] = []
        reached = self.likelihood(frozenset(), rows)
        while rest := [i for i in candidates if i not in chosen]:
            values = {i: self.likelihood(frozenset([*chosen, i]), rows) for i in rest}
            leader = max(values, key=lambda i: values[i])
            if values[leader] <= reached:
                break
            chosen, reached = [*chosen, leader], values[leader]
        return chosen

    def single(self, candidates: Sequence[int], rows: np.ndarray) -> int:
        """The best single source on some rows."""
        return max(candidates, key=lambda i: self.likelihood(frozenset([i]), rows))


def choose(
    sources: Sequence[Source],
    target: Table,
    *,
    shots: int | None = None,
    repeats: int | None = None,
    seed: int = 0,
    metric: str = "balanced_accuracy",
    budget: float | None = None,
    learner: Learner = None,
) -> SourceSet:
    """Choose the set of sources to use at once.

    Parameters
    ----------
    sources : sequence of Source
        Candidates, at least one.
    target : Table
        With labelled rows to measure on.
    shots : int or None
        Labelled rows per class that train; None means cross-fitting.
    repeats : int or None
        Number of repeats; None means 40, or 10 of cross-fitting.
    seed : int
        Seed of splits, forests and folds.
    metric : str
        Metric of gains.
    budget : float or None
        Seconds after which no new round of repeats begins.
    learner : str, BaseEstimator, UserEstimator or None
        An estimator that joins the combination, as `user_estimator` takes it.

    Returns
    -------
    SourceSet
        With intervals that know of the choice.

    Raises
    ------
    ValueError
        As by `make_splits` and `user_estimator`.
    """
    race = start_race(sources, target, metric, seed, shots, repeats, learner=learner)
    everyone = list(range(len(sources)))
    _run(race, budget)
    rows = _Rows(race)
    chosen = rows.best(everyone, np.full(len(race.held_out.codes), True))
    candidates = [s.table.name for s in sources]
    LOG.info("set of sources: %s", ", ".join(candidates[i] for i in chosen) or "none")
    repeats = race.splits[len(race.own.log_weight) - 1].repeat + 1
    if not chosen:
        return SourceSet([], candidates, None, None, None, None, repeats)
    folds = _folds(race.held_out.codes, seed)
    set_of_fold = [rows.best(everyone, folds != k) for k in range(FOLDS)]
    best_of_fold = [[rows.single(everyone, folds != k)] for k in range(FOLDS)]
    picked, best, everything = (
        _outcome(race, sets, folds, chosen[0]) for sets in (set_of_fold, best_of_fold, [everyone] * FOLDS)
    )
    gain = estimate_gain(picked)
    return SourceSet(
        sources=[candidates[i] for i in chosen],
        candidates=candidates,
        gain=gain,
        verdict=gain.verdict,
        over_best=_lead(picked, best),
        over_all=_lead(picked, everything),
        repeats=repeats,
    )


def _run(race: Race, budget: float | None) -> None:
    """All rounds of all sources, or those before the time is over or the user interrupts."""
    begin, everyone = time.monotonic(), range(len(race.sources))
    with bar(f"sets of {counted(len(everyone), 'source')} for {race.target.table.name}:", race.rounds) as step:
        for number in range(race.rounds):
            if number and budget is not None and time.monotonic() - begin > budget:
                break
            try:
                race.run(everyone, number)
            except KeyboardInterrupt:
                if not number:
                    raise
                warnings.warn(f"interrupted: the set is chosen on {number} of {race.rounds} rounds", stacklevel=3)
                break
            step(f"round {number + 1}")


def _folds(codes: np.ndarray, seed: int) -> np.ndarray:
    """(n,) number of the fold of every row, classes spread evenly."""
    rng, folds = np.random.default_rng(seed), np.zeros(len(codes), dtype=int)
    for c in np.unique(codes):
        rows = rng.permutation(np.flatnonzero(codes == c))
        folds[rows] = np.arange(len(rows)) % FOLDS
    return folds


def _outcome(race: Race, set_of_fold: Sequence[Sequence[int]], folds: np.ndarray, leader: int) -> Outcome:
    """Of the sets that were chosen without each fold, on its rows; with the features of the pair of the leader."""
    probabilities = race.together(set_of_fold[0]).clone()
    for k, chosen in enumerate(set_of_fold):
        inside = torch.from_numpy(folds == k)
        probabilities[:, inside] = race.together(chosen)[:, inside]
    return race.outcome_of(probabilities, leader)


def _lead(outcome: Outcome, other: Outcome) -> Interval:
    return around(*measure_gain(outcome, other))
