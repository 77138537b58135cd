"""What a transfer reaches on rows that it was not trained on, beside the best that the target alone does there."""

from dataclasses import dataclass, replace

from transmeter.gain.estimate import (
    Outcome,
    Tested,
    check_metric,
    correct,
    estimate,
    make_splits,
    measured,
    usual_repeats,
)
from transmeter.gain.prior import Gain
from transmeter.network.source import Source
from transmeter.network.training import Schedule, Terms
from transmeter.scorers.transmeter import SPLITS, Race
from transmeter.tables.data import Table
from transmeter.util.intervals import half_width
from transmeter.util.progress import bar


@dataclass(frozen=True)
class Reached:
    """A metric in % with its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Check:
    """Held-out figures of a source's transfer and of the target alone, whose best learner is `baseline`; gain: as a
    ranking estimates it, in percentage points."""

    target: str
    source: str
    metric: str
    shots: int | None
    repeats: int
    seed: int
    reached: Reached
    alone: Reached
    baseline: str
    gain: Gain
    verdict: str


def check(
    source: Source,
    target: Table,
    *,
    shots: int | None = None,
    repeats: int | None = None,
    seed: int = 0,
    metric: str = "balanced_accuracy",
    steps: int = 80,
) -> Check:
    """Transfer from the source in paired repeats, by cross-fitting or with `shots` labelled rows a class.

    Both tables as `prepare` gives them; what is measured is what `ranking.rank` measures, by all repeats. Raises
    ValueError as `estimate.make_splits`.
    """
    check_metric(metric)
    repeats = usual_repeats(shots) if repeats is None else repeats
    splits = make_splits(target, shots, repeats, seed)
    tested = Tested(target, splits, metric, shots)
    race = Race([source], target, tested, splits, seed, shots)
    rounds = -(-len(splits) // SPLITS)
    with bar(f"{source.table.name} for {target.name}, held out:", rounds) as step:
        for number in range(rounds):
            race.run([0], number, Terms(), Schedule(steps=steps))
            step(race.news([0]))
    outcome = race.outcome(0)
    gain = estimate(outcome)
    with_source, alone = (
        _reached(replace(outcome, difference=correct(chances, tested)))
        for chances in (race.chances[0], race.alone[outcome.baseline])
    )
    settings = (metric, shots, repeats, seed, with_source, alone, outcome.baseline)
    return Check(target.name, source.table.name, *settings, gain, gain.verdict)


def _reached(outcome: Outcome) -> Reached:
    mean, error, freedom = measured(outcome)
    reach = half_width(error, freedom)
    return Reached(mean, max(mean - reach, 0.0), min(mean + reach, 100.0))
