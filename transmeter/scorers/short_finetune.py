"""Short fine-tune: the gain that is measured by fine-tuning from every source for a moment, one source at a time.

Few-shot fine-tuning as Poth et al. compare it in "What to Pre-Train on? Efficient Intermediate Task Selection", arXiv
2104.08247. The rival to beat at equal wall time: a full transfer cut short, against the same network on the target
alone on the same splits, without stacking, screening or a prior. Range: percentage points, about -50 to 50.
"""

import time
from collections.abc import Sequence

import numpy as np

from transmeter.gain.metric_names import ACCURACIES, METRICS
from transmeter.gain.metrics import check_splits, positive_classes, reached_by, row_weights
from transmeter.gain.score import Needs, Score
from transmeter.network.source import Encoded, Source
from transmeter.network.training import Schedule, Terms
from transmeter.network.transfer import train
from transmeter.tables.data import Table
from transmeter.tables.splits import Split, make_splits
from transmeter.util.arguments import one_of

NEEDS = Needs(labelled_rows=2, classifier=True, settings=("shots", "repeats", "metric"), machine_options=("seconds",))


def score(
    sources: Sequence[Source],
    target: Table,
    *,
    seed: int = 0,
    shots: int | None = None,
    repeats: int = 10,
    metric: str = "balanced_accuracy",
    steps: int = 80,
    seconds: float | None = None,
) -> list[Score]:
    """Mean gain over the repeats of every source.

    Parameters
    ----------
    sources, target : sequence of Source, Table
        What is compared.
    seed : int
        Seed of splits and networks.
    shots : int or None
        Labelled rows per class that train; None means cross-fitting.
    repeats : int
        Number of repeats.
    metric : str
        Metric of gains, of classes.
    steps : int
        Training steps of every network.
    seconds : float or None
        Wall time for all sources together, checked before each round of one repeat over all sources; the first round
        is always done, and the result then depends on the machine.

    Returns
    -------
    list of Score
        In percentage points, of log loss in hundredths of a nat.

    Raises
    ------
    ValueError
        As by `make_splits`.

    References
    ----------
    Poth et al., "What to Pre-Train on? Efficient Intermediate Task Selection", arXiv 2104.08247.
    """
    one_of("metric", metric, METRICS)
    if seconds is not None and not seconds > 0:
        raise ValueError(f"seconds {seconds} is not a budget: give a number above 0")
    begin = time.perf_counter()
    splits, encoded = make_splits(target, shots, repeats, seed), Encoded(target)
    check_splits(target.codes, splits, metric)
    gains: list[list[float]] = []
    for repeat in range(repeats):
        if gains and seconds is not None and time.perf_counter() - begin > seconds:
            break
        part = [s for s in splits if s.repeat == repeat]
        gains.append([_gain(s, encoded, part, metric, steps, seed * 100_003 + repeat) for s in sources])
    return [Score(float(g)) for g in np.mean(gains, 0)]


def _gain(source: Source, target: Encoded, splits: Sequence[Split], metric: str, steps: int, seed: int) -> float:
    """Percentage points over the target alone on the held-out rows of one repeat."""
    trained = train([source], target, splits, Terms(), Schedule(steps=steps), seed)
    probabilities = trained.probabilities(target.x)  # (source and target alone, splits, n, classes)
    codes = target.table.codes
    if metric not in ACCURACIES:
        positives = positive_classes(codes, len(target.table.classes))
        return float(-np.diff(reached_by(probabilities, codes, splits, metric, positives), axis=0).mean())
    guesses = probabilities.argmax(3).numpy()
    correct = np.concatenate([guesses[:, i, s.test] == codes[s.test] for i, s in enumerate(splits)], 1).astype(float)
    weights = row_weights(codes[np.concatenate([s.test for s in splits])], metric)
    return float(100 * ((correct[0] - correct[1]) * weights).mean())
