"""From held-out predictions to a gain with its interval: splits, paired differences, what unlabelled rows add."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from sklearn.model_selection import StratifiedKFold
from torch.nn import functional as F

from transmeter.data import Table
from transmeter.prior import Evidence, Gain, join, shipped

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
    """How a source's network differed from the target alone.

    difference (repeats, n): correct minus correct on each labelled row, nan where a repeat did not measure it;
    weights (n,): of a row in the metric, mean 1; codes (n,): its class; guess (n,) and guess_unlabelled (m,): what
    the networks' own probabilities expect of weights * difference, knowing no label; population: rows that the gain
    is about, None where these rows stand for endlessly many; soft: gain of the probability of the right class, in
    percentage points; baseline: name of what the source was compared with; evidence and shots: what `prior` needs.
    """

    difference: np.ndarray
    weights: np.ndarray
    codes: np.ndarray
    guess: np.ndarray
    guess_unlabelled: np.ndarray
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
    measuring = np.sort(rng.permutation(rows)[:MEASURED]) if len(rows) > 2 * MEASURED else rows
    splits = []
    for repeat in range(repeats):
        if shots is None:
            folds = StratifiedKFold(min(FOLDS, int(counts.min())), shuffle=True, random_state=int(rng.integers(2**31)))
            splits += [Split(rows[a], rows[b], repeat) for a, b in folds.split(rows, codes[rows])]
        else:
            train = np.concatenate([rng.permutation(np.flatnonzero(codes == c))[:shots] for c in range(len(counts))])
            splits.append(Split(train, np.setdiff1d(measuring, train), repeat))
    return splits


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


class Measured:
    """The rows that splits measure, and unlabelled rows beside them.

    rows (n,): their numbers in the target, labelled ones first; codes (n,): their classes; splits: with `test` as
    places in `rows`; population: rows that a gain is about, None where these stand for endlessly many.
    """

    def __init__(self, target: Table, splits: Sequence[Split], metric: str, unlabelled: int, seed: int):
        self.metric, self.classes = metric, len(target.classes)
        tested = np.unique(np.concatenate([s.test for s in splits]))
        others = np.random.default_rng(seed).permutation(np.flatnonzero(target.codes < 0))[:unlabelled]
        self.rows = np.concatenate([tested, np.sort(others)])
        self.codes = target.codes[self.rows]
        place = np.zeros(len(target), dtype=np.int64)
        place[self.rows] = np.arange(len(self.rows))
        self.splits = [Split(s.train, place[s.test], s.repeat) for s in splits]
        planned = len(splits[0].train) < (target.codes >= 0).sum() / 2  # --shots: most labelled rows only measure
        self.population = len(target) if planned or len(others) else None


def right_class(chances: torch.Tensor, measured: Measured) -> float:
    """Mean probability in % of the right class on the test rows, classes alike; chances (splits, n, classes)."""
    found = []
    for c, split in zip(chances, measured.splits):
        codes = measured.codes[split.test]
        right = c[split.test, codes].numpy()
        found.append(np.mean([right[codes == k].mean() for k in np.unique(codes)]))
    return 100 * float(np.mean(found))


def compare(
    chances: torch.Tensor,
    alone: torch.Tensor,
    measured: Measured,
    *,
    baseline: str,
    soft: float,
    evidence: Evidence,
    shots: int,
) -> Outcome:
    """Outcome from probabilities (splits, n, classes) with the source and by the baseline, on the first splits."""
    codes, classes, splits = measured.codes, measured.classes, measured.splits[: len(chances)]
    labelled = codes >= 0
    held_out = torch.zeros(len(splits), len(codes))
    held_out[:, ~labelled] = 1
    for i, split in enumerate(splits):
        held_out[i, split.test] = 1
    share = (held_out / held_out.sum(0).clamp_min(1))[:, :, None]  # mean over the splits that did not train on a row
    weights = np.zeros(len(codes))
    weights[labelled] = row_weights(codes[labelled], measured.metric)
    votes = F.one_hot(chances.argmax(2), classes).float() - F.one_hot(alone.argmax(2), classes).float()
    right = votes.gather(2, torch.from_numpy(codes).clamp_min(0).expand(len(splits), -1)[:, :, None])[:, :, 0].numpy()
    difference = np.full((splits[-1].repeat + 1, len(codes)), np.nan)
    for i, split in enumerate(splits):
        difference[split.repeat, split.test] = right[i, split.test]
    likely, lead = ((chances + alone) / 2 * share).sum(0), (votes * share).sum(0)
    by_class = torch.tensor([weights[codes == c][0] for c in range(classes)])
    guess = (likely * lead * by_class).sum(1).double().numpy()
    if measured.metric == "balanced_accuracy" and not labelled.all():  # classes may be mixed in another proportion
        mixed = 1 / (classes * likely[~labelled].mean(0))
        guess[~labelled] = (likely * lead)[~labelled].double().numpy() @ mixed.double().numpy()
    return Outcome(
        difference=difference[:, labelled],
        weights=weights[labelled],
        codes=codes[labelled],
        guess=guess[labelled],
        guess_unlabelled=guess[~labelled],
        population=measured.population,
        baseline=baseline,
        soft=soft,
        evidence=evidence,
        shots=shots,
    )


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
    they are a good share of the population. Unlabelled rows take out the part
    of the row variance that the networks' own probabilities foresee (prediction-powered inference, Angelopoulos et
    al. 2023, with the weight that minimises the variance).
    """
    cells = 100 * outcome.difference * outcome.weights
    guess, unlabelled = 100 * outcome.guess, 100 * outcome.guess_unlabelled
    if other is not None:
        both = min(len(cells), len(other.difference))  # one may have dropped out of the comparison earlier
        cells = cells[:both] - 100 * other.difference[:both] * other.weights
        guess, unlabelled = guess - 100 * other.guess, unlabelled - 100 * other.guess_unlabelled
    seen = ~np.isnan(cells).all(0)
    cells, guess, codes, weights = cells[:, seen], guess[seen], outcome.codes[seen], outcome.weights[seen]
    rows = np.nanmean(cells, axis=0)
    repeats, n, m = len(cells), cells.shape[1], len(unlabelled)
    power = _power(rows, guess, m) if m > 1 else 0.0
    mean = float(np.mean(rows - power * guess) + (power * unlabelled.mean() if m else 0.0))
    by_row = _stratified(rows - power * guess, codes, weights) + (power**2 * unlabelled.var(ddof=1) / m if m > 1 else 0)
    by_repeat = float(np.nanmean(cells, axis=1).var(ddof=1) / repeats)
    by_cell = float(np.nanvar(cells)) / np.count_nonzero(~np.isnan(cells))
    by_row = max(by_row - by_cell, 0.0) * (1 - n / outcome.population if outcome.population else 1.0)
    variance = by_row + by_repeat
    freedom = variance**2 / (by_row**2 / max(n - 1, 1) + by_repeat**2 / (repeats - 1)) if variance else n - 1.0
    return mean, float(variance) ** 0.5, float(freedom)


def _power(rows: np.ndarray, guess: np.ndarray, unlabelled: int) -> float:
    """Weight of the guesses, between 0 and 1, that makes the variance least."""
    spread = guess.var()
    if spread == 0:
        return 0.0
    best = np.cov(rows, guess, ddof=0)[0, 1] / (spread * (1 + len(rows) / unlabelled))
    return float(np.clip(best, 0, 1))


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


def differ(leader: Outcome, other: Outcome) -> bool:
    """Whether the leader's gain is larger than the other's beyond the 95 % interval of the paired lead."""
    mean, error, freedom = measured(leader, other)
    return mean > float(stats.t.ppf(0.975, freedom)) * error
