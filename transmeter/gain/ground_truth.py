"""The ground truth that a ranking is checked against: repeated transfer of every source, paired with the target alone.

The network is the ranking's own, so a ranking is asked to foretell this network's gains, whatever scorer made it; more
`steps` and another seed of the sources' classifiers tell how far that carries.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from transmeter.gain.estimate import accuracies, check_metric, make_splits
from transmeter.learners.baseline import SCRATCH, target_only
from transmeter.network.source import Classifier, Encoded, Source
from transmeter.network.training import Schedule, Terms
from transmeter.network.transfer import train
from transmeter.tables.data import Table
from transmeter.util import writing
from transmeter.util.intervals import half_width
from transmeter.util.progress import bar

STACK = 160  # networks that train as one batch
SPLITS = 8  # of one batch; every arm of a split starts from the same fresh layers


@dataclass(frozen=True)
class Arm:
    """One way to train, over the repeats: gain over the tuned target-only baseline, in percentage points.

    by_repeat (repeats,): the gains themselves.
    """

    name: str
    gain_pp: float
    error_pp: float
    ci_low: float
    ci_high: float
    by_repeat: list[float]


@dataclass(frozen=True)
class Truth:
    """True gains of all sources; baseline: the best of the target-only learners, baselines: accuracy of each.

    reliability: split-half correlation of the gains, stepped up to all repeats (Spearman-Brown); controls: arms that
    must not help.
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
) -> Truth:
    """Full transfer from every source in paired repeats: same rows, same fresh layers, same steps in every arm.

    shots: labelled rows a class to train on, the rest measures (None: cross-fitting); controls: of the first source,
    with permuted weights, with shuffled labels, a Gaussian mixture in its place, and no source with another seed.
    Raises ValueError as `estimate.make_splits`.
    """
    check_metric(metric)
    splits = make_splits(target, shots, repeats, seed)
    encoded = Encoded(target)
    made = [*sources, *(_controls(sources[0], seed) if controls else ())]
    found, scratch = transferred(made, encoded, splits, steps, seed, metric)
    alone = {SCRATCH: scratch}
    for name, chances in target_only(encoded, splits, np.arange(len(target)), seed).items():
        alone[name] = accuracies(chances[None], target.codes, splits, metric)[0]
    baseline = max(alone, key=lambda name: alone[name].mean())
    other = transferred([], encoded, splits, steps, seed + 7919, metric)[1] if controls else None
    repeat = np.array([s.repeat for s in splits])

    def arm(name: str, values: np.ndarray) -> Arm:
        difference = np.array([(values - alone[baseline])[repeat == r].mean() for r in range(repeat.max() + 1)])
        error = float(difference.std(ddof=1) / len(difference) ** 0.5)
        reach = half_width(error, len(difference) - 1)
        mean = float(difference.mean())
        return Arm(name, mean, error, mean - reach, mean + reach, [round(float(d), 4) for d in difference])

    names = [s.table.name for s in made]
    arms = [arm(name, values) for name, values in zip(names, found)]
    return Truth(
        target=target.name,
        metric=metric,
        shots=shots,
        repeats=repeats,
        steps=steps,
        seed=seed,
        baseline=baseline,
        baselines={name: float(values.mean()) for name, values in alone.items()},
        reliability=reliability(np.array([a.by_repeat for a in arms[: len(sources)]])),
        sources=arms[: len(sources)],
        controls=arms[len(sources) :] + ([arm("no source, another seed", other)] if other is not None else []),
    )


def transferred(
    sources: Sequence[Source], target: Encoded, splits: Sequence, steps: int, seed: int, metric: str
) -> tuple[np.ndarray, np.ndarray]:
    """(accuracies (sources, splits) after full transfer, (splits,) of the network without a source), in %."""
    arms = STACK // SPLITS - 1
    chunks = [list(sources[i : i + arms]) for i in range(0, max(len(sources), 1), arms)]
    batches = [list(splits[i : i + SPLITS]) for i in range(0, len(splits), SPLITS)]
    found = []
    with bar(f"full transfer to {target.table.name}", len(chunks) * len(batches)) as step:
        for chunk in chunks:
            parts = []
            for number, part in enumerate(batches):
                trained = train(chunk, target, part, Terms(), Schedule(steps=steps), seed * 100_003 + number)
                parts.append(accuracies(trained.probabilities(target.x), target.table.codes, part, metric))
                step(f"{sum(map(len, found)) + len(chunk)} of {len(sources)} sources")
            found.append(np.concatenate(parts, axis=1))
    return np.concatenate([f[:-1] for f in found]), found[-1][-1]


def reliability(gains: np.ndarray) -> float | None:
    """Correlation over sources of the gains in two halves of the repeats, stepped up to all of them; gains (sources,
    repeats); the mean over 20 ways to halve, None for fewer than three sources or without any spread."""
    if len(gains) < 3 or gains.shape[1] < 4:
        return None
    found = [np.corrcoef(first, second)[0, 1] for first, second in halved(gains) if first.std() and second.std()]
    if not found:
        return None
    r = float(np.mean(found))  # stepped up after the mean: single ones near -1 would outweigh all others
    return float(np.clip(2 * r / (1 + r), -1, 1)) if r > -1 else -1.0


def halved(gains: np.ndarray, ways: int = 20) -> list[tuple[np.ndarray, np.ndarray]]:
    """Mean gains (sources,) in two random halves of the repeats, several times; gains (sources, repeats)."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(ways):
        order = rng.permutation(gains.shape[1])
        half = len(order) // 2
        found.append((gains[:, order[:half]].mean(1), gains[:, order[half:]].mean(1)))
    return found


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
    made = Source(table, source.cache, source.seed).classifier
    made.branch.load_state_dict(shuffled(made.branch))
    made.trunk.load_state_dict(shuffled(made.trunk))
    permuted.classifier = Classifier(made.branch, made.trunk)
    labels = Source(
        replace(table, name=f"{table.name}, labels shuffled", labels=rng.permutation(table.labels)), None, source.seed
    )
    return [permuted, labels, Source(_mixture(table, rng), None, source.seed)]


def _mixture(table: Table, rng: np.random.Generator) -> Table:
    """Gaussian clusters, one a class, in the numeric columns; other columns drawn from their own values."""
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
