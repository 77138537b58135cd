"""Transmeter: the gain in percentage points that a source brings over the best that the target alone can do.

Reconstructed from the published abstracts of Park et al., "Transmeter", arXiv 1912.13366. All sources are screened in
closed form; the promising ones are transferred briefly, from their pre-trained classifiers, as one stack, and measured
on held-out target rows against learners of the target alone: same rows, same steps. Round by round those that are
settled drop out. Range: percentage points, about -50 to 50.
"""

import logging
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from transmeter.gain.estimate import (
    Gain,
    Outcome,
    Score,
    Split,
    Tested,
    accuracies,
    check_metric,
    differ,
    differences,
    estimate,
    make_splits,
    right_class,
    usual_repeats,
)
from transmeter.gain.pair_features import gather
from transmeter.gain.prior import foresee
from transmeter.learners.baseline import SCRATCH, target_only
from transmeter.network.source import WIDTH, Encoded, Source
from transmeter.network.training import Schedule, Terms
from transmeter.network.transfer import train
from transmeter.tables.data import Table
from transmeter.util.progress import bar

LOG = logging.getLogger(__name__)
SPLITS = 10  # of one stack: a round
STACK = 160  # networks that train as one batch, so that memory is flat in sources and repeats
WEIGHTS = 30_000_000  # of the first and last layers of one batch, so that wide tables do not fill the memory
CANDIDATES = 20  # sources that get beyond the screen
LEAST = 4  # repeats before a source may drop out: the error of fewer is too uncertain
SETTLED = 1.0  # half-width of an interval, in percentage points, that needs no more repeats
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
    variant: Literal["plain", "fast", "paper"] = "plain",
    source_loss: float | None = None,
    reconstruction: float | None = None,
    discriminator: float | None = None,
    mean_distance: float | None = None,
    steps: int = 80,
    independent: bool = False,
) -> list[Score]:
    """Estimated gain of every source, its value in percentage points.

    shots, repeats, metric, budget: as in `ranking.rank`; variant: terms of the loss, plain (cross-entropies), fast
    (with reconstruction and mean distance) or paper (with label-wise discriminators as well); source_loss,
    reconstruction, discriminator, mean_distance: weights other than the variant's, 0 switches a term off; steps: of
    training; independent: every source is transferred and measured as if it were the only one, whatever the others
    are. Raises ValueError as `estimate.make_splits`.
    """
    check_metric(metric)
    begin = time.monotonic()
    given = {
        "source_loss": source_loss,
        "reconstruction": reconstruction,
        "discriminator": discriminator,
        "mean_distance": mean_distance,
    }
    terms, schedule = replace(VARIANTS[variant], **{k: v for k, v in given.items() if v is not None}), Schedule(steps)
    repeats = usual_repeats(shots) if repeats is None else repeats
    splits = make_splits(target, shots, repeats, seed)
    race = Race(sources, target, Tested(target, splits, metric, shots), splits, seed, shots, independent)
    live = sorted(range(len(sources)), key=lambda i: -race.foreseen[i].high)
    live = live if independent else live[:CANDIDATES]
    screened = [s.table.name for i, s in enumerate(sources) if i not in live]
    LOG.info(
        "%d of %d sources are transferred; screened out: %s", len(live), len(sources), ", ".join(screened) or "none"
    )
    rounds = -(-len(race.splits) // SPLITS)
    with bar(f"{len(sources)} sources for {target.name}:", rounds) as step:
        for number in range(rounds):
            if not live or (number and budget and time.monotonic() - begin > budget):
                break
            try:
                race.run(live, number, terms, schedule)
            except KeyboardInterrupt:
                if not number:
                    raise
                warnings.warn(f"interrupted: gains are of {number} of {rounds} rounds", stacklevel=2)
                break
            live = race.still_open(live)
            news = race.news(live)
            step(news)
            LOG.info("round %d of %d: %s", number + 1, rounds, news)
    outcomes = [race.outcome(i) for i in range(len(sources))]
    gains = [estimate(o) if o else g for o, g in zip(outcomes, race.foreseen)]
    return [Score(g.mean, g, o) for g, o in zip(gains, outcomes)]


class Race:
    """What is known of every source after the rounds so far."""

    def __init__(
        self,
        sources: Sequence[Source],
        target: Table,
        tested: Tested,
        splits: Sequence[Split],
        seed: int,
        shots: int | None,
        independent: bool = False,
    ):
        self.independent = independent
        self.sources, self.target, self.tested, self.splits, self.seed = sources, Encoded(target), tested, splits, seed
        # a fold of cross-fitting trains on a little less than what is asked about: all labelled rows
        self.shots = shots or int(np.bincount(target.codes[target.codes >= 0]).min())
        self.evidence = [gather(s, self.target, splits) for s in sources]
        self.foreseen: list[Gain] = [foresee(e, self.shots) for e in self.evidence]
        self.chances: dict[int, Tensor] = {}  # of a source (splits so far, rows, classes)
        self.alone: dict[str, Tensor] = {}  # of a learner of the target alone
        self.best: dict[int, str] = {}  # of those learners by the number of splits

    def run(self, live: Sequence[int], number: int, terms: Terms, schedule: Schedule) -> None:
        """Round `number`: the live sources and the learners of the target alone on its splits."""
        part = list(self.splits[number * SPLITS : (number + 1) * SPLITS])
        seed = self.seed * 100_003 + number
        alone = target_only(self.target, part, self.tested.rows, self.seed)
        found: dict[int, Tensor] = {}
        widest = max(self.target.x.shape[1], *(self.sources[i].x.shape[1] for i in live), 1)
        arms = max(1, min(STACK // SPLITS - 1, WEIGHTS // (SPLITS * widest * WIDTH * 2)))
        for first in range(0, len(live), arms):
            chunk = live[first : first + arms]
            trained = train([self.sources[i] for i in chunk], self.target, part, terms, schedule, seed)
            *chances, alone[SCRATCH] = trained.probabilities(self.target.x[self.tested.rows])
            found |= zip(chunk, chances)
        for known, new in ((self.chances, found), (self.alone, alone)):  # all or nothing, should it be interrupted
            known |= {key: torch.cat([known[key], new[key]]) if key in known else new[key] for key in new}

    def baseline(self, done: int) -> str:
        """The learner of the target alone that is best on the first `done` splits."""
        if done not in self.best:
            splits, codes, metric = self.tested.splits[:done], self.tested.codes, self.tested.metric
            accuracy = {n: accuracies(c[None, :done], codes, splits, metric).mean() for n, c in self.alone.items()}
            self.best[done] = max(accuracy, key=accuracy.get)
        return self.best[done]

    def outcome(self, i: int) -> Outcome | None:
        """Of source i so far, None before its first round."""
        if i not in self.chances:
            return None
        chances, done = self.chances[i], len(self.chances[i])
        baseline = self.baseline(done if self.independent else len(self.alone[SCRATCH]))
        return Outcome(
            difference=differences(chances, self.alone[baseline][:done], self.tested),
            codes=self.tested.codes,
            metric=self.tested.metric,
            population=self.tested.population,
            baseline=baseline,
            soft=right_class(chances, self.tested) - right_class(self.alone[SCRATCH][:done], self.tested),
            evidence=self.evidence[i],
            shots=self.shots,
        )

    def still_open(self, live: Sequence[int]) -> list[int]:
        """The sources that more repeats could move, leader first: without a verdict, or not yet behind the leader."""
        outcomes = {i: self.outcome(i) for i in live}
        if min(len(o.difference) for o in outcomes.values()) < LEAST:
            return list(live)
        gains = {i: estimate(o) for i, o in outcomes.items()}
        wide = {i: gain.high - gain.low >= 2 * SETTLED for i, gain in gains.items()}
        if self.independent:
            return [i for i in live if wide[i]]
        leader, *others = sorted(live, key=lambda i: -gains[i].mean)
        kept = []
        for i in others:
            settled = gains[i].low > 0 or gains[i].high < 0 or not wide[i]
            if not (settled and differ(outcomes[leader], outcomes[i])):
                kept.append(i)
        return [leader, *kept] if kept or wide[leader] else []

    def news(self, live: Sequence[int]) -> str:
        """The leader and how many sources are open."""
        if not live:
            return "settled"
        gain = estimate(self.outcome(live[0]))
        name = self.sources[live[0]].table.name
        return f"{name} leads with {gain.mean:+.1f} ({gain.low:+.1f} to {gain.high:+.1f}), {len(live)} open"
