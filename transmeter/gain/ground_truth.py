"""The ground truth that a ranking is checked against: repeated use of every source, paired with the target alone.

A ranking is asked to predict what the combination of learners gains, which is what a transfer delivers, whatever scorer
made it. Beside it stand other ways to use the sources: pooled logistic regression, Transmeter's network, and the
combination with all sources together.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from transmeter.gain.metric_names import METRICS
from transmeter.gain.metrics import check_splits, positive_classes, reached_by
from transmeter.gain.quantity_race import BASELINES, BOOSTING, r2
from transmeter.gain.transfers import NETWORK, SCRATCH, Network, Transfers, by_combination, by_network, by_regression
from transmeter.learners.baseline import target_only
from transmeter.learners.combination import COMBINATION, average
from transmeter.learners.estimator import Learner, UserEstimator, user_estimator
from transmeter.learners.member import fit_member
from transmeter.learners.regression.baseline import boosting, pooled_quantity
from transmeter.learners.task import PENALTY, shared, task_of
from transmeter.network.source import Encoded, Source
from transmeter.network.training import Schedule, Terms
from transmeter.tables.data import Table
from transmeter.tables.labels import R2, in_unit, unit_of
from transmeter.tables.splits import Split, make_splits
from transmeter.util import writing
from transmeter.util.arguments import one_of
from transmeter.util.intervals import half_width
from transmeter.util.progress import bar

POOLED = "pooled"  # logistic regression on the rows of target and source
SOURCE_ROW = 0.3  # weight of a source row beside a target row, of pooled logistic regression
SPLITS = 8  # of one batch; networks of a split start from the same fresh layers


@dataclass(frozen=True)
class Arm:
    """Gain of one way to train over the best learner of the target alone, over the repeats.

    Attributes
    ----------
    name : str
        Name of the source or control.
    gain_pp, error_pp, ci_low, ci_high : float
        Mean, standard error and 95 % interval, in percentage points, of log loss in hundredths of a nat.
    by_repeat : list of float
        Gain of every repeat.
    """

    name: str
    gain_pp: float
    error_pp: float
    ci_low: float
    ci_high: float
    by_repeat: list[float]

    @classmethod
    def from_repeats(cls, name: str, gains: np.ndarray) -> "Arm":
        """The arm of gains (repeats,)."""
        mean, error = float(gains.mean()), float(gains.std(ddof=1) / len(gains) ** 0.5)
        reach = half_width(error, len(gains) - 1)
        return cls(name, mean, error, mean - reach, mean + reach, [round(float(g), 4) for g in gains])


@dataclass(frozen=True)
class GroundTruth:
    """True gains of all sources.

    Attributes
    ----------
    target, metric : str
        What gains are of.
    shots : int or None
        Labelled rows per class that trained; None means cross-fitting.
    repeats, steps, seed : int
        Settings; `steps` are those of every network.
    baseline : str
        The best of the target-only learners.
    baselines : dict
        Metric of each in percent, of log loss in hundredths of a nat, negative.
    reliability : float or None
        Split-half correlation of the gains, stepped up to all repeats (Spearman-Brown).
    sources, controls : list of Arm
        Gains of the combination from the sources, and from controls, which must not help.
    others : dict
        Name of another way to use a source -> its gains from the sources, over the same baseline.
    together : Arm
        Gain of the combination from all sources at once.
    """

    target: str
    metric: str
    shots: int | None
    repeats: int
    steps: int
    seed: int
    baseline: str
    baselines: dict[str, float]
    reliability: float | None
    sources: list[Arm]
    controls: list[Arm]
    others: dict[str, list[Arm]]
    together: Arm

    def save(self, path: str | Path) -> None:
        """Write a JSON file, complete or not at all. Raises OSError where it cannot be written."""
        writing.write_json(path, asdict(self))


def measure(
    sources: Sequence[Source],
    target: Table,
    *,
    shots: int | None = None,
    repeats: int = 24,
    seed: int = 0,
    metric: str = "balanced_accuracy",
    steps: int = 80,
    controls: bool = True,
    network: bool = True,
    learner: Learner = None,
) -> GroundTruth:
    """Use every source in paired repeats: same labelled rows in every arm.

    Parameters
    ----------
    sources : sequence of Source
        At least one, where there are controls.
    target : Table
        With labelled rows to measure on.
    shots : int or None
        Labelled rows per class that train, while the rest measures; None means cross-fitting.
    repeats : int
        Number of repeats.
    seed : int
        Seed of splits, forests, gradient boosting and networks.
    metric : str
        Metric of gains; "r2" where target and sources have quantities.
    steps : int
        Training steps of every network.
    controls : bool
        Whether arms that must not help run too: the first source with shuffled labels, and a Gaussian mixture in its
        place.
    network : bool
        Whether networks are trained too, which takes the longest; they tell classes apart, not quantities.
    learner : str, BaseEstimator, UserEstimator or None
        An estimator that joins the combination, as `user_estimator` takes it.

    Returns
    -------
    GroundTruth
        Gains with intervals.

    Raises
    ------
    ValueError
        As by `make_splits` and `user_estimator`.
    """
    estimator = user_estimator(learner, metric == R2)
    one_of("metric", metric, (*METRICS, R2))
    splits = make_splits(target, shots, repeats, seed)
    check_splits(target.codes, splits, metric)
    encoded = Encoded(target)
    controlled = _controls(sources[0], seed) if controls else []
    trained = Network(Terms(), Schedule(steps=steps), seed) if network and metric != R2 else None
    measured = _measured(sources, encoded, splits, metric, seed, trained, estimator)
    by_control = _measured(controlled, encoded, splits, metric, seed, None, estimator).ways[COMBINATION]
    alone = {name: float(value.mean()) for name, value in measured.alone.items()}
    baseline = max((name for name in alone if name != SCRATCH), key=lambda name: alone[name])
    repeat = np.array([s.repeat for s in splits])

    def arm(name: str, value: np.ndarray) -> Arm:
        own = measured.alone[COMBINATION][0]  # what changes nothing is compared with itself
        difference = value - (own if np.array_equal(value, own) else measured.alone[baseline][0])
        return Arm.from_repeats(name, np.array([difference[repeat == r].mean() for r in range(repeat.max() + 1)]))

    names = [s.table.name for s in sources]
    arms = {way: [arm(*pair) for pair in zip(names, by_source)] for way, by_source in measured.ways.items()}
    return GroundTruth(
        target=target.name,
        metric=metric,
        shots=shots,
        repeats=repeats,
        steps=steps,
        seed=seed,
        baseline=baseline,
        baselines=alone,
        reliability=reliability(np.array([a.by_repeat for a in arms[COMBINATION]])),
        sources=arms.pop(COMBINATION),
        controls=[arm(s.table.name, value) for s, value in zip(controlled, by_control)],
        others=arms,
        together=arm("all sources together", measured.together[0]),
    )


@dataclass(frozen=True)
class _Reached:
    """A metric in percent, of log loss in hundredths of a nat, negative.

    alone: name of a learner of the target alone -> (1, splits); ways: name of a way to use a source -> (sources,
    splits); together: (1, splits), of the combination with all sources.
    """

    alone: dict[str, np.ndarray]
    ways: dict[str, np.ndarray]
    together: np.ndarray


def _measured(
    sources: Sequence[Source],
    target: Encoded,
    splits: Sequence[Split],
    metric: str,
    seed: int,
    network: Network | None,
    estimator: UserEstimator | None,
) -> _Reached:
    """A metric of all ways, in batches of splits."""
    batches = [list(splits[i : i + SPLITS]) for i in range(0, len(splits), SPLITS)]
    parts = []
    with bar(f"transfer to {target.table.name}", len(batches)) as step:
        for number, part in enumerate(batches):
            trained = network and replace(network, seed=network.seed * 100_003 + number)
            if metric == R2:
                parts.append(_quantity_batch(sources, target, part, seed, estimator))
            else:
                parts.append(_batch(sources, target, part, metric, seed, trained, estimator))
            step(f"{number * SPLITS + len(part)} of {len(splits)} splits")
    return _Reached(
        {name: np.concatenate([p.alone[name] for p in parts], axis=1) for name in parts[0].alone},
        {way: np.concatenate([p.ways[way] for p in parts], axis=1) for way in parts[0].ways},
        np.concatenate([p.together for p in parts], axis=1),
    )


def _batch(
    sources: Sequence[Source],
    target: Encoded,
    splits: Sequence[Split],
    metric: str,
    seed: int,
    network: Network | None,
    estimator: UserEstimator | None,
) -> _Reached:
    """A metric of all ways on a few splits."""
    rows = np.arange(len(target.table))
    found = by_combination(sources, target, splits, rows, seed, estimator)
    alone = {COMBINATION: [found.alone.probabilities]}
    alone |= {name: [p.numpy()] for name, p in target_only(target, splits, rows, seed).items()}
    ways = {COMBINATION: [way[COMBINATION][0] for way in found.with_and_without]}
    ways[POOLED] = pooled(sources, target, splits)
    alone |= {name: [p] for name, p in found.by_estimator(estimator).items()}
    if network:
        trained = by_network(sources, target, splits, rows, network)
        alone[SCRATCH] = [trained.alone.probabilities]
        ways[NETWORK] = [way[NETWORK][0] for way in trained.with_and_without]

    codes = target.table.codes
    positives = positive_classes(codes, len(target.table.classes))

    def reached(arms: Sequence[np.ndarray]) -> np.ndarray:
        if not arms:
            return np.zeros((0, len(splits)))
        return reached_by(torch.from_numpy(np.stack(arms)), codes, splits, metric, positives)

    return _all_reached(found, alone, ways, reached)


def _all_reached(
    found: Transfers,
    alone: dict[str, list[np.ndarray]],
    ways: dict[str, list[np.ndarray]],
    reached: Callable[[Sequence[np.ndarray]], np.ndarray],
) -> _Reached:
    """What predictions come to, by a function that gives the metric of some."""
    return _Reached(
        {name: reached(arms) for name, arms in alone.items()},
        {way: reached(arms) for way, arms in ways.items()},
        reached([average([found.alone, *found.given]).probabilities]),
    )


def _quantity_batch(
    sources: Sequence[Source], target: Encoded, splits: Sequence[Split], seed: int, estimator: UserEstimator | None
) -> _Reached:
    """R2 of all ways on a few splits."""
    rows = np.arange(len(target.table))
    found = by_regression(sources, target, splits, rows, seed, estimator)
    alone = {name: [found.by_learner[learner].probabilities] for learner, name in BASELINES.items()}
    alone |= {name: [p] for name, p in found.by_estimator(estimator).items()}
    alone |= {COMBINATION: [found.alone.probabilities], BOOSTING: [boosting(target, splits, rows, seed)]}
    ways = {COMBINATION: [way[COMBINATION][0] for way in found.with_and_without]}
    ways[POOLED] = [pooled_quantity(source, target, splits) for source in sources]
    quantity = in_unit(target.table.quantity, unit_of(target.table.quantity))

    def reached(arms: Sequence[np.ndarray]) -> np.ndarray:
        return r2(np.stack(arms)[..., 0] - quantity, splits) if arms else np.zeros((0, len(splits)))

    return _all_reached(found, alone, ways, reached)


def pooled(sources: Sequence[Source], target: Encoded, splits: Sequence[Split]) -> list[np.ndarray]:
    """Probabilities by logistic regression on all rows of target and source, the plainest way to use a source.

    Parameters
    ----------
    sources : sequence of Source
        With columns named as the target's.
    target : Encoded
        Target.
    splits : sequence of Split
        Whose `train` rows are trained on.

    Returns
    -------
    list of ndarray of shape (splits, n, classes)
        One per source, a row of which counts as SOURCE_ROW of a target row.
    """
    task = task_of(target, [split.train for split in splits], 0)
    x = target.x.numpy() @ task.basis
    found = []
    for source in sources:
        part = next(iter(shared(source, target, task)), None)
        rows = next(iter(part.scales.values())) if part else task.x[:0]
        weight = SOURCE_ROW * len(rows) / task.weights.sum(1).mean()
        found.append(fit_member(POOLED, task, PENALTY, part, rows, weight).probabilities(x))
    return found


def reliability(gains: np.ndarray) -> float | None:
    """Correlation over sources of the gains in two halves of the repeats, stepped up to all of them.

    Parameters
    ----------
    gains : ndarray of shape (sources, repeats)
        In any unit.

    Returns
    -------
    float or None
        By the Spearman-Brown formula, from the mean over 20 ways to halve; None for fewer than three sources or four
        repeats, and without any spread.
    """
    if len(gains) < 3 or gains.shape[1] < 4:
        return None
    halves = half_means(gains)
    correlations = [np.corrcoef(first, second)[0, 1] for first, second in halves if first.std() and second.std()]
    if not correlations:
        return None
    r = float(np.mean(correlations))  # stepped up after the mean: single ones near -1 would outweigh all others
    return float(np.clip(2 * r / (1 + r), -1, 1)) if r > -1 else -1.0


def half_means(gains: np.ndarray, ways: int = 20) -> list[tuple[np.ndarray, np.ndarray]]:
    """Mean gains in two random halves of the repeats, several times.

    Parameters
    ----------
    gains : ndarray of shape (sources, repeats)
        In any unit.
    ways : int
        Number of times.

    Returns
    -------
    list of pairs of ndarray of shape (sources,)
        Of both halves.
    """
    rng = np.random.default_rng(0)
    means = []
    for _ in range(ways):
        order = rng.permutation(gains.shape[1])
        half = len(order) // 2
        means.append((gains[:, order[:half]].mean(1), gains[:, order[half:]].mean(1)))
    return means


def _controls(source: Source, seed: int) -> list[Source]:
    """The source with shuffled labels, and a Gaussian mixture with its columns and classes."""
    table, rng = source.table, np.random.default_rng(seed)
    name = f"{table.name}, labels shuffled"
    if table.quantity is None:
        shuffled = replace(table, name=name, labels=rng.permutation(table.labels))
    else:
        order = rng.permutation(len(table))
        shuffled = replace(table, name=name, labels=table.labels[order], quantity=table.quantity[order])
    return [Source(shuffled, None, source.seed), Source(_mixture(table, rng), None, source.seed)]


def _mixture(table: Table, rng: np.random.Generator) -> Table:
    """Gaussian clusters, one per class, in the numeric columns; other columns sampled from their own values."""
    codes = rng.integers(0, len(table.classes), len(table))
    features = table.features.copy()
    for column in features:
        values = features[column].dropna()
        if values.dtype == np.float64:
            centers = rng.normal(values.mean(), values.std(ddof=0), len(table.classes))
            features[column] = rng.normal(centers[codes], values.std(ddof=0))
        else:
            features[column] = rng.choice(values.to_numpy(), len(table))
    labels = np.array(table.classes, dtype=object)[codes]
    quantity = None if table.quantity is None else _of_classes(table, codes, rng)
    return replace(table, name="Gaussian mixture", features=features, labels=labels, quantity=quantity)


def _of_classes(table: Table, codes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n,) quantities of rows of the table, each of the class in codes (n,)."""
    return np.array([rng.choice(table.quantity[table.codes == code]) for code in codes])
