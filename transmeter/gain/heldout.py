"""What the combination reaches with a source on held-out rows, beside the best learner of the target alone."""

from dataclasses import dataclass, replace

from transmeter.gain.estimate import Outcome, correctness, estimate_gain, measure_gain
from transmeter.gain.prior import Gain
from transmeter.gain.race import Race
from transmeter.network.source import Source
from transmeter.tables.data import Table
from transmeter.tables.splits import default_repeats
from transmeter.util.intervals import half_width
from transmeter.util.progress import bar


@dataclass(frozen=True)
class MetricInterval:
    """A metric with its 95 % interval.

    Attributes
    ----------
    mean, low, high : float
        In percent.
    """

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class HeldOutCheck:
    """Held-out figures of the combination with a source and of the target alone.

    Attributes
    ----------
    target, source, metric : str
        What was compared, and in which metric.
    shots : int or None
        Labelled rows per class that trained; None means cross-fitting.
    repeats, seed : int
        Settings of the comparison.
    reached, alone : MetricInterval
        With the source, and by the best learner of the target alone.
    baseline : str
        Name of that learner.
    gain : Gain
        As a ranking estimates it.
    verdict : str
        Of the gain.
    """

    target: str
    source: str
    metric: str
    shots: int | None
    repeats: int
    seed: int
    reached: MetricInterval
    alone: MetricInterval
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
) -> HeldOutCheck:
    """Fit the combination with a source in paired repeats: what `ranking.rank` measures, by all repeats.

    Parameters
    ----------
    source, target : Source, Table
        Both as `prepare` gives them.
    shots : int or None
        Labelled rows per class that train; None means cross-fitting.
    repeats : int or None
        Number of repeats; None means 40, or 10 of cross-fitting.
    seed : int
        Seed of splits, forests and gradient boosting.
    metric : str
        Metric of the figures.

    Returns
    -------
    HeldOutCheck
        Figures with intervals.

    Raises
    ------
    ValueError
        As by `make_splits`.
    """
    race = Race([source], target, metric, seed, shots, repeats)
    with bar(f"{source.table.name} for {target.name}, held out:", race.rounds) as step:
        for number in range(race.rounds):
            race.run([0], number)
            step(race.news([0]))
    outcome = race.outcome(0)
    gain = estimate_gain(outcome)
    return HeldOutCheck(
        target=target.name,
        source=source.table.name,
        metric=metric,
        shots=shots,
        repeats=default_repeats(shots) if repeats is None else repeats,
        seed=seed,
        reached=_interval(replace(outcome, difference=correctness(race.together([0]), race.held_out))),
        alone=_interval(replace(outcome, difference=correctness(race.alone[outcome.baseline], race.held_out))),
        baseline=outcome.baseline,
        gain=gain,
        verdict=gain.verdict,
    )


def _interval(outcome: Outcome) -> MetricInterval:
    mean, error, freedom = measure_gain(outcome)
    reach = half_width(error, freedom)
    return MetricInterval(mean, max(mean - reach, 0.0), min(mean + reach, 100.0))
