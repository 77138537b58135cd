"""From held-out predictions to a gain with its interval: splits, paired differences, their variance."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.model_selection import StratifiedKFold

from transmeter.gain.prior import Evidence, Gain, explain, join, shipped
from transmeter.tables.data import Table
from transmeter.util.intervals import half_width

METRICS = ("balanced_accuracy", "accuracy")
FOLDS = 5
MEASURED = 2000  # rows that measure where there are many more


@dataclass(frozen=True)
class Split:
    """Row numbers to train on and to measure on, and the repeat that they belong to."""

    train: np.ndarray
    test: np.ndarray
    repeat: int


@dataclass(frozen=True)
class Outcome:
    """How a source's networks differed from the best learner of the target alone.

    difference (repeats, n): correct minus correct on each labelled row, nan where a repeat did not measure it; codes
    (n,): its class; population: rows that the gain is about, None where these stand for endlessly many; baseline: name
    of what the source was compared with; soft: gain of the probability of the right class over the network without a
    source, in percentage points; evidence and shots: what `prior` needs.
    """

    difference: np.ndarray
    codes: np.ndarray
    metric: str
    population: int | None
    baseline: str
    soft: float
    evidence: Evidence
    shots: int


@dataclass(frozen=True)
class Score:
    """What a scorer says of one source: higher is better; gain where it estimates one, outcome where it measured it."""

    value: float
    gain: Gain | None = None
    outcome: Outcome | None = None


def usual_repeats(shots: int | None) -> int:
    """40 draws of shots, or 10 times the folds of cross-fitting, where labels limit what more repeats would tell."""
    return 40 if shots else 10


def make_splits(target: Table, shots: int | None, repeats: int, seed: int) -> list[Split]:
    """Cross-fitting folds over the labelled rows; or, with shots, draws of that many rows a class, the rest measures.

    Raises ValueError where a class has too few labelled rows or repeats < 2.
    """
    if repeats < 2:
        raise ValueError(f"repeats {repeats} is too few: at least 2 are needed for an interval")
    codes = target.codes
    rows = np.flatnonzero(codes >= 0)
    counts = np.bincount(codes[rows], minlength=len(target.classes))
    least = int(counts.argmin())
    needed = 2 if shots is None else shots + 1
    if (shots is not None and shots < 1) or counts[least] < needed:
        what = f"class '{target.classes[least]}' of {target.name} has {counts[least]} labelled rows"
        raise ValueError(f"{what}: at least {max(needed, 2)} are needed" + (f" for --shots {shots}" if shots else ""))
    rng = np.random.default_rng(seed)
    measuring = rows if len(rows) <= 2 * MEASURED else _drawn(codes, rows, rng)
    splits = []
    for repeat in range(repeats):
        if shots is None:
            folds = StratifiedKFold(min(FOLDS, int(counts.min())), shuffle=True, random_state=int(rng.integers(2**31)))
            splits += [Split(rows[a], rows[b], repeat) for a, b in folds.split(rows, codes[rows])]
        else:
            train = np.concatenate([rng.permutation(np.flatnonzero(codes == c))[:shots] for c in range(len(counts))])
            rest = np.setdiff1d(measuring, train)
            splits.append(Split(train, rest, repeat))
    return splits


def _drawn(codes: np.ndarray, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """About MEASURED of the rows, in the classes' proportions, but 50 of a class where it has so many."""
    share = MEASURED / len(rows)
    classes = [rng.permutation(rows[codes[rows] == c]) for c in np.unique(codes[rows])]
    return np.sort(np.concatenate([c[: max(round(share * len(c)), 50)] for c in classes]))


def halves(target: Table, seed: int) -> list[Split]:
    """Two splits, one half of the labelled rows to train on and the other to measure on, both ways.

    Raises ValueError where a class has fewer than 4 labelled rows, so that both halves have two.
    """
    codes = target.codes
    rows = np.flatnonzero(codes >= 0)
    counts = np.bincount(codes[rows], minlength=len(target.classes))
    if counts.min() < 4:
        least = int(counts.argmin())
        what = f"class '{target.classes[least]}' of {target.name} has {counts[least]} labelled rows"
        raise ValueError(f"{what}: at least 4 are needed")
    folds = StratifiedKFold(2, shuffle=True, random_state=seed)
    return [Split(rows[a], rows[b], i) for i, (a, b) in enumerate(folds.split(rows, codes[rows]))]


def check_metric(metric: str) -> None:
    """Raise ValueError for a metric that is unknown."""
    if metric not in METRICS:
        raise ValueError(f"metric '{metric}' is unknown: give {' or '.join(METRICS)}")


def accuracies(chances: torch.Tensor, codes: np.ndarray, splits: Sequence[Split], metric: str) -> np.ndarray:
    """(arms, splits) accuracy in % on the test rows of each split; chances (arms, splits, n, classes)."""
    classes = chances.shape[3]
    measured = torch.zeros(len(splits), len(codes), classes)  # of which class a row is, where the split measures it
    for i, split in enumerate(splits):
        measured[i, split.test, torch.from_numpy(codes[split.test])] = 1
    right = (chances.argmax(3)[..., None] == torch.arange(classes)) * measured
    right, there = right.sum(2), measured.sum(1)  # (arms, splits, classes), (splits, classes)
    if metric == "accuracy":
        return (100 * right.sum(2) / there.sum(1)).double().numpy()
    share = right / there.clamp_min(1)
    return (100 * share.sum(2) / (there > 0).sum(1)).double().numpy()


class Tested:
    """The rows that splits measure.

    rows (n,): their numbers in the target; codes (n,): their classes; splits: with `test` as places in `rows`;
    population: rows that a gain is about, None where these stand for endlessly many.
    """

    def __init__(self, target: Table, splits: Sequence[Split], metric: str, shots: int | None):
        self.metric = metric
        self.rows = np.unique(np.concatenate([s.test for s in splits]))
        self.codes = target.codes[self.rows]
        place = np.zeros(len(target), dtype=np.int64)
        place[self.rows] = np.arange(len(self.rows))
        self.splits = [Split(s.train, place[s.test], s.repeat) for s in splits]
        # planning, and cross-fitting beside unlabelled rows, ask about this table's rows
        self.population = len(target) if shots or (target.codes < 0).any() else None


def right_class(chances: torch.Tensor, tested: Tested) -> float:
    """Mean probability in % of the right class on the test rows, classes alike; chances (splits, n, classes)."""
    found = []
    for c, split in zip(chances, tested.splits):
        codes = tested.codes[split.test]
        right = c[split.test, codes].numpy()
        found.append(np.mean([right[codes == k].mean() for k in np.unique(codes)]))
    return 100 * float(np.mean(found))


def differences(chances: torch.Tensor, alone: torch.Tensor, tested: Tested) -> np.ndarray:
    """(repeats, n) correct with the source minus correct by the baseline, nan where a repeat did not measure a row;
    chances, alone (splits, n, classes) of the first splits."""
    return correct(chances, tested) - correct(alone, tested)


def correct(chances: torch.Tensor, tested: Tested) -> np.ndarray:
    """(repeats, n) 1.0 where the likeliest class of a row is its own, else 0.0, nan where a repeat did not measure it;
    chances (splits, n, classes) of the first splits."""
    codes, splits = torch.from_numpy(tested.codes), tested.splits[: len(chances)]
    right = (chances.argmax(2) == codes).float().numpy()
    found = np.full((splits[-1].repeat + 1, len(codes)), np.nan)
    for i, split in enumerate(splits):
        found[split.repeat, split.test] = right[i, split.test]
    return found


def row_weights(codes: np.ndarray, metric: str) -> np.ndarray:
    """(n,) weight of every row, mean 1, such that the weighted accuracy is `metric`."""
    if metric == "accuracy":
        return np.ones(len(codes))
    counts = np.bincount(codes)
    return len(codes) / ((counts > 0).sum() * counts[codes])


def measured(outcome: Outcome, other: Outcome | None = None) -> tuple[float, float, float]:
    """(mean, standard error, degrees of freedom) of the gain in percentage points; of its lead over `other` if given.

    Rows and repeats are crossed: the variance is that of row means plus that of repeat means less that of single
    cells, which both contain (two-way clustering: Cameron, Gelbach & Miller 2011). The rows' part is smaller where
    they are a good share of the population.
    """
    difference = outcome.difference
    if other is not None:
        both = min(len(difference), len(other.difference))  # one may have dropped out of the comparison earlier
        difference = difference[:both] - other.difference[:both]
    seen = ~np.isnan(difference).all(0)
    codes = outcome.codes[seen]
    weights = row_weights(codes, outcome.metric)
    cells = 100 * difference[:, seen] * weights
    rows = np.nanmean(cells, axis=0)
    repeats, n = cells.shape
    by_row = _stratified(rows, codes, weights)
    by_repeat = float(np.nanmean(cells, axis=1).var(ddof=1) / repeats)
    by_cell = float(np.nanvar(cells)) / np.count_nonzero(~np.isnan(cells))
    by_row = max(by_row - by_cell, 0.0) * (1 - n / outcome.population if outcome.population else 1.0)
    variance = by_row + by_repeat
    freedom = variance**2 / (by_row**2 / max(n - 1, 1) + by_repeat**2 / (repeats - 1)) if variance else n - 1.0
    return float(rows.mean()), float(variance) ** 0.5, float(freedom)


def _stratified(values: np.ndarray, codes: np.ndarray, weights: np.ndarray) -> float:
    """Variance of the mean of `values` with the class sizes given.

    A difference of +1 and one of -1, a quarter of a row each, are added to every class: few rows without any
    difference are no proof that there is none.
    """
    total = 0.0
    for c in np.unique(codes):
        inside, weight = values[codes == c], 100 * weights[codes == c][0]
        n = len(inside)
        spread = (((inside - inside.mean()) ** 2).sum() + weight**2 / 2) / (n + 0.5)
        total += (n / len(values)) ** 2 * spread / n
    return float(total)


def estimate(outcome: Outcome) -> Gain:
    """The gain as measured, joined with what the evidence lets expect."""
    return join(shipped(), outcome.evidence, outcome.shots, outcome.soft, measured(outcome))


def terms(outcome: Outcome) -> dict[str, float]:
    """What the estimated gain is made of (`prior.explain`)."""
    return explain(shipped(), outcome.evidence, outcome.shots, outcome.soft, measured(outcome))


def by_class(outcome: Outcome) -> dict[int, float]:
    """Of every measured class how many more of its rows were right with the source, in percentage points."""
    seen = ~np.isnan(outcome.difference).all(0)
    rows, codes = 100 * np.nanmean(outcome.difference[:, seen], axis=0), outcome.codes[seen]
    return {int(c): float(rows[codes == c].mean()) for c in np.unique(codes)}


def differ(leader: Outcome, other: Outcome) -> bool:
    """Whether the leader's gain is larger than the other's beyond the 95 % interval of the paired lead."""
    mean, error, freedom = measured(leader, other)
    return mean > half_width(error, freedom)
