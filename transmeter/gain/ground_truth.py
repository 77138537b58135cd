"""The ground truth that a ranking is checked against: repeated transfer of every source, paired with the target alone.

The network is the ranking's own, so a ranking is asked to predict this network's gains, whatever scorer made it; more
`steps` and another seed of the sources' classifiers tell how far that carries. Beside it stand other ways to use the
sources: linear learners, alone and all sources together.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from transmeter.gain.metrics import METRICS, accuracies
from transmeter.learners.baseline import SCRATCH, target_only
from transmeter.learners.combination import combine, source_members, target_members
from transmeter.learners.linear import probabilities
from transmeter.learners.task import PENALTY, Member, Shared, Task, fit_member, shared, task_of
from transmeter.network.source import Encoded, Source
from transmeter.network.training import Schedule, Terms
from transmeter.network.transfer import train
from transmeter.tables.data import Table
from transmeter.tables.splits import Split, make_splits
from transmeter.util import writing
from transmeter.util.arguments import one_of
from transmeter.util.intervals import half_width
from transmeter.util.progress import bar

STACK = 160  # networks that train as one batch
POOLED = 0.3  # weight of a source row beside a target row, of pooled logistic regression
SPLITS = 8  # of one batch; every arm of a split starts from the same fresh layers


@dataclass(frozen=True)
class Arm:
    """Gain of one way to train over the tuned target-only baseline, over the repeats.

    Attributes
    ----------
    name : str
        Name of the source or control.
    gain_pp, error_pp, ci_low, ci_high : float
        Mean, standard error and 95 % interval, in percentage points.
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
        Settings of the transfer.
    baseline : str
        The best of the target-only learners.
    baselines : dict
        Accuracy of each in percent.
    reliability : float or None
        Split-half correlation of the gains, stepped up to all repeats (Spearman-Brown).
    sources, controls : list of Arm
        Gains of the sources, and of arms that must not help.
    others : dict
        Name of another way to use a source -> its gains from the sources, over the same baseline.
    together : Arm
        Gain of the combination of linear learners from all sources at once.
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
) -> GroundTruth:
    """Full transfer from every source in paired repeats: same rows, same fresh layers, same steps in every arm.

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
        Seed of splits and networks.
    metric : str
        Metric of gains.
    steps : int
        Training steps of every network.
    controls : bool
        Whether arms that must not help run too: the first source with permuted weights, with shuffled labels, a
        Gaussian mixture in its place, and no source with another seed.

    Returns
    -------
    GroundTruth
        Gains with intervals.

    Raises
    ------
    ValueError
        As by `make_splits`.
    """
    one_of("metric", metric, METRICS)
    splits = make_splits(target, shots, repeats, seed)
    encoded = Encoded(target)
    compared = [*sources, *(_controls(sources[0], seed) if controls else ())]
    values, scratch = transfer_accuracies(compared, encoded, splits, steps, seed, metric)
    names = [s.table.name for s in compared]
    if controls:
        names.append("no source, another seed")
        values = [*values, transfer_accuracies([], encoded, splits, steps, seed + 7919, metric)[1]]
    alone = {SCRATCH: scratch}
    for name, predicted in target_only(encoded, splits, np.arange(len(target)), seed).items():
        alone[name] = accuracies(predicted[None], target.codes, splits, metric)[0]
    baseline = max(alone, key=lambda name: alone[name].mean())
    repeat = np.array([s.repeat for s in splits])

    def arm(name: str, value: np.ndarray) -> Arm:
        difference = value - alone[baseline]
        return Arm.from_repeats(name, np.array([difference[repeat == r].mean() for r in range(repeat.max() + 1)]))

    arms = [arm(name, value) for name, value in zip(names, values)]
    others, together = linear_accuracies(sources, encoded, splits, metric)
    return GroundTruth(
        target=target.name,
        metric=metric,
        shots=shots,
        repeats=repeats,
        steps=steps,
        seed=seed,
        baseline=baseline,
        baselines={name: float(value.mean()) for name, value in alone.items()},
        reliability=reliability(np.array([a.by_repeat for a in arms[: len(sources)]])),
        sources=arms[: len(sources)],
        controls=arms[len(sources) :],
        others={way: [arm(*pair) for pair in zip(names, by_source)] for way, by_source in others.items()},
        together=arm("all sources together", together),
    )


def transfer_accuracies(
    sources: Sequence[Source], target: Encoded, splits: Sequence[Split], steps: int, seed: int, metric: str
) -> tuple[np.ndarray, np.ndarray]:
    """Accuracies after full transfer.

    Parameters
    ----------
    sources : sequence of Source
        None is needed.
    target : Encoded
        Target.
    splits : sequence of Split
        Of the target.
    steps, seed : int
        Training steps and seed of every network.
    metric : str
        Metric of the accuracies.

    Returns
    -------
    ndarray of shape (sources, splits)
        In percent.
    ndarray of shape (splits,)
        Of the network without a source.
    """
    arms = STACK // SPLITS - 1
    chunks = [list(sources[i : i + arms]) for i in range(0, max(len(sources), 1), arms)]
    batches = _batches(splits)
    values = []
    with bar(f"full transfer to {target.table.name}", len(chunks) * len(batches)) as step:
        for chunk in chunks:
            parts = []
            for number, part in enumerate(batches):
                trained = train(chunk, target, part, Terms(), Schedule(steps=steps), seed * 100_003 + number)
                parts.append(accuracies(trained.probabilities(target.x), target.table.codes, part, metric))
                step(f"{sum(len(v) - 1 for v in values) + len(chunk)} of {len(sources)} sources")
            values.append(np.concatenate(parts, axis=1))
    return np.concatenate([v[:-1] for v in values]), values[-1][-1]


def _batches(splits: Sequence[Split]) -> list[list[Split]]:
    return [list(splits[i : i + SPLITS]) for i in range(0, len(splits), SPLITS)]


def linear_accuracies(
    sources: Sequence[Source], target: Encoded, splits: Sequence[Split], metric: str
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Accuracies of other ways to use a source: the combination of linear learners, and pooled logistic regression.

    Parameters
    ----------
    sources : sequence of Source
        With columns named as the target's.
    target : Encoded
        Target.
    splits : sequence of Split
        Of the target.
    metric : str
        Metric of the accuracies.

    Returns
    -------
    dict
        Name of the way -> ndarray of shape (sources, splits), in percent.
    ndarray of shape (splits,)
        Of the combination of all sources.
    """
    batches = _batches(splits)
    parts = []
    with bar(f"linear learners for {target.table.name}", len(batches) * len(sources)) as step:
        for part in batches:
            task = task_of(target, [split.train for split in part])
            x, alone = target.x.numpy() @ task.basis, target_members(task)
            everything: list[Member] = []
            combined, pooled = [], []
            for source in sources:
                given = shared(source, target, task)
                members = source_members(task, given)
                combined.append(combine(alone, members).probabilities(x))
                pooled.append(_pooled(task, given, x))
                everything += members
                step(source.table.name)
            arms = np.stack([*combined, *pooled, combine(alone, everything).probabilities(x)])
            parts.append(accuracies(torch.from_numpy(arms), target.table.codes, part, metric))
    values = np.concatenate(parts, axis=1)
    return {"combination": values[: len(sources)], "pooled": values[len(sources) : -1]}, values[-1]


def _pooled(task: Task, given: Sequence[Shared], x: np.ndarray) -> np.ndarray:
    """(splits, n, classes) by logistic regression on all rows, a source row counting as POOLED of a target row."""
    part = next(iter(given), None)
    rows = next(iter(part.scales.values())) if part else task.x[:0]
    weight = POOLED * len(rows) / task.weights.sum(1).mean()
    return probabilities(fit_member("pooled", task, PENALTY, part, rows, weight).coefficients, x)


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
    """The source with permuted weights, with shuffled labels, and a Gaussian mixture with its columns and classes."""
    table, generator = source.table, torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)

    def shuffled(module: torch.nn.Module) -> dict[str, torch.Tensor]:
        return {
            k: v.flatten()[torch.randperm(v.numel(), generator=generator)].view_as(v)
            for k, v in module.state_dict().items()
        }

    permuted = Source(replace(table, name=f"{table.name}, weights permuted"), None, source.seed)
    classifier = Source(table, source.cache, source.seed).classifier
    classifier.branch.load_state_dict(shuffled(classifier.branch))
    classifier.trunk.load_state_dict(shuffled(classifier.trunk))
    permuted.classifier = classifier
    labels = Source(
        replace(table, name=f"{table.name}, labels shuffled", labels=rng.permutation(table.labels)), None, source.seed
    )
    return [permuted, labels, Source(_mixture(table, rng), None, source.seed)]


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
    return replace(table, name="Gaussian mixture", features=features, labels=labels)
