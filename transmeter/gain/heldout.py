"""What the combination reaches with sources on held-out rows, beside the best learner of the target alone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from transmeter.gain.estimate import Outcome, estimate_gain, measure_gain, measure_mae
from transmeter.gain.metric_names import bounds
from transmeter.gain.prior import Gain
from transmeter.gain.quantity_race import start_race
from transmeter.learners.estimator import Learner
from transmeter.network.source import Source
from transmeter.tables.data import Table
from transmeter.tables.splits import default_repeats
from transmeter.util.intervals import Interval, around
from transmeter.util.progress import bar


@dataclass(frozen=True)
class HeldOutCheck:
    """Held-out figures of the combination with sources and of the target alone.

    Attributes
    ----------
    target, metric : str
        What was compared, and in which metric.
    sources : list of str
        That were used at once.
    shots : int or None
        Labelled rows per class that trained; None means cross-fitting.
    repeats, seed : int
        Settings of the comparison.
    reached, alone : Interval
        With the sources, and by the best learner of the target alone, in percent, of log loss in hundredths of a nat,
        negative.
    baseline : str
        Name of that learner.
    gain : Gain
        As a ranking estimates it.
    verdict : str
        Of the gain.
    mae : Interval or None
        By how much the mean absolute error is smaller with the sources, in the unit of a quantity; None of classes.
    """

    target: str
    sources: list[str]
    metric: str
    shots: int | None
    repeats: int
    seed: int
    reached: Interval
    alone: Interval
    baseline: str
    gain: Gain
    verdict: str
    mae: Interval | None = None


def check(
    sources: Sequence[Source],
    target: Table,
    *,
    shots: int | None = None,
    repeats: int | None = None,
    seed: int = 0,
    metric: str = "balanced_accuracy",
    learner: Learner = None,
) -> HeldOutCheck:
    """Fit the combination with all sources in paired repeats: what `ranking.rank` measures, by all repeats.

    Parameters
    ----------
    sources, target : sequence of Source, Table
        As `prepare` gives them.
    shots : int or None
        Labelled rows per class that train; None means cross-fitting.
    repeats : int or None
        Number of repeats; None means 40, or 10 of cross-fitting.
    seed : int
        Seed of splits, forests and gradient boosting.
    metric : str
        Metric of the figures.
    learner : str, BaseEstimator, UserEstimator or None
        An estimator that joins the combination, as `user_estimator` takes it.

    Returns
    -------
    HeldOutCheck
        Figures with intervals.

    Raises
    ------
    ValueError
        As by `make_splits` and `user_estimator`.
    """
    race = start_race(sources, target, metric, seed, shots, repeats, learner=learner)
    everyone = list(range(len(sources)))
    names = [s.table.name for s in sources]
    with bar(f"{' + '.join(names)} for {target.name}, held out:", race.rounds) as step:
        for number in range(race.rounds):
            race.run(everyone, number)
            step(race.news(everyone))
    probabilities = race.together(everyone)
    leader = max(everyone, key=lambda i: race.gain(i).mean)
    outcome = race.outcome_of(probabilities, leader)
    gain = estimate_gain(outcome)
    return HeldOutCheck(
        target=target.name,
        sources=names,
        metric=metric,
        shots=shots,
        repeats=default_repeats(shots) if repeats is None else repeats,
        seed=seed,
        reached=_interval(replace(outcome, difference=race.cells(probabilities))),
        alone=_interval(replace(outcome, difference=race.cells(race.alone[outcome.baseline]))),
        baseline=outcome.baseline,
        gain=gain,
        verdict=gain.verdict,
        mae=measure_mae(outcome),
    )


def _interval(outcome: Outcome) -> Interval:
    found = around(*measure_gain(outcome))
    least, most = bounds(outcome.metric)
    return Interval(found.mean, max(found.low, least), min(found.high, most))
