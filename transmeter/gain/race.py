"""The race of sources: transfer in rounds on held-out rows, beside learners of the target alone, until all settle."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from transmeter.gain.estimate import (
    HeldOutRows,
    Outcome,
    balanced_mean,
    correctness,
    estimate_gain,
    is_better,
    right_probability,
    values,
)
from transmeter.gain.metric_names import ACCURACIES, METRICS
from transmeter.gain.metrics import reached_by
from transmeter.gain.pair_features import fit_features, pair_features
from transmeter.gain.prior import Gain, ShortTransfer, predict_gain
from transmeter.gain.transfers import SCRATCH, Network, Transfers, by_combination, by_network
from transmeter.learners.baseline import target_only
from transmeter.learners.combination import COMBINATION, Part, average, chain
from transmeter.learners.estimator import UserEstimator
from transmeter.learners.member import UNSURE
from transmeter.network.source import Encoded, Source
from transmeter.tables.data import Table
from transmeter.tables.splits import Split, default_repeats, make_splits
from transmeter.util.arguments import one_of

SPLITS = 10  # of a round
LEAST = 4  # repeats before a source may drop out: the error of fewer is too uncertain
CANDIDATES = 20  # sources that get beyond the screen
EXPONENTS = (1.0, 1.5, 2.0, 3.0)  # that sharpen probabilities
SETTLED = 1.0  # half-width of an interval, in percentage points, that needs no more repeats
UNKNOWN = Gain(0.0, -100.0, 100.0, 0.5)  # what is expected before any round where no prior is fitted


class Race:
    """What is known of every source after the rounds so far.

    Parameters
    ----------
    sources : sequence of Source
        Sources to compare.
    target : Table
        Target, with labelled rows to measure on.
    metric : str
        Metric of gains.
    seed : int
        Seed of splits, forests and gradient boosting.
    shots : int or None
        Labelled rows per class that train; None means cross-fitting.
    repeats : int or None
        Number of repeats at most; None means 40, or 10 of cross-fitting.
    independent : bool
        Whether every source is measured as if it were the only one.
    network : Network or None
        Transmeter's network in the place of the combination of learners.
    estimator : UserEstimator or None
        That joins the combination.

    Attributes
    ----------
    splits : list of Split
        Splits of the target.
    rounds : int
        Number of rounds that these make.
    screened : list of Gain
        Gain in balanced accuracy that the features of every source let expect.
    predicted : list of Gain
        Gain of every source that is expected before any transfer.

    Raises
    ------
    ValueError
        For an unknown metric, and as by `make_splits`.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        target: Table,
        metric: str,
        seed: int,
        shots: int | None,
        repeats: int | None,
        independent: bool = False,
        network: Network | None = None,
        estimator: UserEstimator | None = None,
    ):
        self.network, self.reference = network, SCRATCH if network else COMBINATION
        self.estimator = estimator
        self.sources, self.target, self.seed, self.independent = sources, Encoded(target), seed, independent
        self.splits = make_splits(target, shots, default_repeats(shots) if repeats is None else repeats, seed)
        self.rounds = -(-len(self.splits) // SPLITS)
        self._look(target, metric, shots)
        self.own: Part | None = None  # of the target alone, on the splits so far
        self.parts: dict[int, Part] = {}  # of a source
        self.changes: dict[int, list[dict[str, np.ndarray]]] = {}  # of its rounds: by learner (splits,)
        self.alone: dict[str, Tensor] = {}  # of a learner of the target alone (splits so far, rows, classes)
        self.best: dict[int, str] = {}  # of those learners by the number of splits

    def _look(self, target: Table, metric: str, shots: int | None) -> None:
        """Set what is known before any round."""
        one_of("metric", metric, METRICS)
        self.held_out = HeldOutRows(target, self.splits, metric, shots)
        # a fold of cross-fitting trains on a little less than what is asked about: all labelled rows
        self.shots = shots or int(np.bincount(target.codes[target.codes >= 0]).min())
        fits = fit_features(self.sources, self.target, self.splits, self.seed)
        self.features = [pair_features(s, self.target, self.splits, fit) for s, fit in zip(self.sources, fits)]
        self.screened = [predict_gain(f, self.shots) for f in self.features]
        self.predicted = self.screened if metric in ACCURACIES else [UNKNOWN] * len(self.sources)

    def promising(self) -> list[int]:
        """The sources that get beyond the screen, most promising first."""
        ranked = sorted(range(len(self.sources)), key=lambda i: -self.screened[i].high)
        return ranked if self.independent else ranked[:CANDIDATES]

    def run(self, active: Sequence[int], number: int) -> None:
        """Round `number`: the active sources and the learners of the target alone on its splits."""
        done = slice(number * SPLITS, (number + 1) * SPLITS)
        found, alone = self._fit([self.sources[i] for i in active], self.splits[done], number)
        alone[self.reference] = torch.from_numpy(found.alone.probabilities).float()
        changes = [{name: self._change(*pair, done) for name, pair in ways.items()} for ways in found.with_and_without]
        own = found.alone if self.own is None else chain(self.own, found.alone)
        parts = {i: chain(self.parts[i], p) if i in self.parts else p for i, p in zip(active, found.given)}
        alone = {n: torch.cat([self.alone[n], p]) if n in self.alone else p for n, p in alone.items()}
        rounds = {i: [*self.changes.get(i, []), c] for i, c in zip(active, changes)}
        # all or nothing, should it be interrupted
        self.own, self.alone = own, alone
        self.parts |= parts
        self.changes |= rounds

    def _fit(
        self, sources: Sequence[Source], part: Sequence[Split], number: int
    ) -> tuple[Transfers, dict[str, Tensor]]:
        """What uses the sources on some splits, and (splits, rows, classes) by the learners of the target alone."""
        rows = self.held_out.rows
        alone = target_only(self.target, part, rows, self.seed)
        if not self.network:
            found = by_combination(sources, self.target, part, rows, self.seed, self.estimator)
            own = found.by_estimator(self.estimator)
            return found, alone | {name: torch.from_numpy(p).float() for name, p in own.items()}
        network = replace(self.network, seed=self.network.seed * 100_003 + number)
        return by_network(sources, self.target, part, rows, network), alone

    def reached(self, predicted: Tensor, splits: Sequence[Split]) -> np.ndarray:
        """(arms, splits) metric in percent of predictions (arms, splits, rows, classes)."""
        held_out = self.held_out
        return reached_by(predicted, held_out.codes, splits, held_out.metric, held_out.positives)

    def cells(self, predicted: Tensor) -> np.ndarray:
        """(repeats, rows) values whose weighted mean is the metric, of predictions (splits so far, rows, classes)."""
        return values(predicted, self.held_out)

    def likelihoods(self, predicted: Tensor) -> np.ndarray:
        """(exponents, splits, rows) log-probability of the right class, of predictions (splits, rows, classes)."""
        return np.stack([log_right(predicted.numpy(), self.held_out.codes, exponent) for exponent in EXPONENTS])

    def _change(self, with_source: np.ndarray, without: np.ndarray, done: slice) -> np.ndarray:
        """(splits,) metric with a source less that without, in percentage points."""
        reached = self.reached(torch.from_numpy(np.stack([with_source, without])), self.held_out.splits[done])
        return reached[0] - reached[1]

    def together(self, chosen: Sequence[int]) -> Tensor:
        """(splits, rows, classes) probabilities by some sources at once, or none, of the splits that all have seen."""
        done = min(len(part.log_weight) for part in (self.own, *(self.parts[i] for i in chosen)))
        both = average([part.first(done) for part in (self.own, *(self.parts[i] for i in chosen))])
        return torch.from_numpy(both.probabilities).float()

    def baseline(self, done: int) -> str:
        """The learner of the target alone that is best on the first `done` splits."""
        if done not in self.best:
            splits = self.held_out.splits[:done]
            reached = {n: self.reached(p[None, :done], splits).mean() for n, p in self.alone.items()}
            self.best[done] = max(reached, key=reached.get)
        return self.best[done]

    def _baseline_of(self, predicted: Tensor) -> str:
        """The baseline of predictions (splits so far, rows, classes); what changes nothing is compared with itself."""
        done = len(predicted)
        if torch.equal(predicted, self.alone[self.reference][:done]):
            return self.reference
        return self.baseline(done if self.independent else len(self.own.log_weight))

    def outcome(self, i: int) -> Outcome | None:
        """Of source i so far, None before its first round."""
        if i not in self.parts:
            return None
        rounds = self.changes[i]
        ways = [name for name in rounds[0] if all(name in c for c in rounds)]
        over_itself = {name: float(np.concatenate([c[name] for c in rounds]).mean()) for name in ways}
        return replace(self.outcome_of(self.together([i]), i), over_itself=over_itself)

    def outcome_of(self, probabilities: Tensor, i: int) -> Outcome:
        """Of probabilities (splits so far, rows, classes), with the features of source i."""
        held_out, done = self.held_out, len(probabilities)
        baseline = self._baseline_of(probabilities)
        alone = self.alone[baseline][:done]
        return Outcome(
            difference=self.cells(probabilities) - self.cells(alone),
            codes=held_out.codes,
            metric=held_out.metric,
            population=held_out.population,
            baseline=baseline,
            transfer=self._transfer(probabilities),
            features=self.features[i],
            shots=self.shots,
            correct=correctness(probabilities, held_out) - correctness(alone, held_out),
            unchanged=baseline == self.reference and torch.equal(probabilities, alone),
        )

    def _transfer(self, probabilities: Tensor) -> ShortTransfer | None:
        """What these probabilities tell beside a gain, over the same learners without a source."""
        held_out, without = self.held_out, self.alone[self.reference][: len(probabilities)]
        after, before = (log_right(p.numpy(), held_out.codes, 1.0) for p in (probabilities, without))
        return ShortTransfer(
            probability_gain=right_probability(probabilities, held_out) - right_probability(without, held_out),
            likelihood_gain=balanced_mean(after - before, held_out),
        )

    def gain(self, i: int) -> Gain:
        """Of source i: the estimate of its rounds, or what was expected before any."""
        outcome = self.outcome(i)
        return estimate_gain(outcome) if outcome else self.predicted[i]

    def unsettled(self, active: Sequence[int]) -> list[int]:
        """The sources that more repeats could move, leader first: without a verdict, or not yet behind the leader."""
        outcomes = {i: self.outcome(i) for i in active}
        if min(len(o.difference) for o in outcomes.values()) < LEAST:
            return list(active)
        gains = {i: estimate_gain(o) for i, o in outcomes.items()}
        wide = {i: gain.high - gain.low >= 2 * SETTLED for i, gain in gains.items()}
        if self.independent:
            return [i for i in active if wide[i]]
        leader, *others = sorted(active, key=lambda i: -gains[i].mean)
        unsettled = []
        for i in others:
            settled = gains[i].low > 0 or gains[i].high < 0 or not wide[i]
            if not (settled and is_better(outcomes[leader], outcomes[i])):
                unsettled.append(i)
        return [leader, *unsettled] if unsettled or wide[leader] else []

    def news(self, active: Sequence[int]) -> str:
        """The leader and how many sources are open."""
        if not active:
            return "settled"
        gain, name = self.gain(active[0]), self.sources[active[0]].table.name
        return f"{name} leads with {gain.mean:+z.1f} ({gain.low:+z.1f} to {gain.high:+z.1f}), {len(active)} open"


def log_right(probabilities: np.ndarray, codes: np.ndarray, exponent: float) -> np.ndarray:
    """Log-probabilities of the right class, after sharpening.

    Parameters
    ----------
    probabilities : ndarray of shape (splits, n, classes)
        Of every class.
    codes : ndarray of shape (n,)
        Class numbers of the rows.
    exponent : float
        That sharpens probabilities.

    Returns
    -------
    ndarray of shape (splits, n)
    """
    powers = probabilities**exponent
    right = powers[:, np.arange(len(codes)), codes] / powers.sum(2)
    return np.log(np.maximum(right, UNSURE))
