"""From held-out predictions to a gain with its interval: splits, paired differences, what unlabelled rows add."""

from dataclasses import dataclass

import numpy as np
from scipy import stats
from sklearn.model_selection import StratifiedKFold

from transmeter.data import Table

METRICS = ("balanced_accuracy", "accuracy")
FOLDS = 5


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
    the networks' own probabilities expect of weights * difference, knowing no label; shared: share of the target's
    features that the source has.
    """

    difference: np.ndarray
    weights: np.ndarray
    codes: np.ndarray
    guess: np.ndarray
    guess_unlabelled: np.ndarray
    shared: float


@dataclass(frozen=True)
class Score:
    """What a scorer says of one source: higher is better; outcome where a gain was measured."""

    value: float
    outcome: Outcome | None = None


@dataclass(frozen=True)
class Gain:
    """Percentage points over the target alone, with a 95 % interval and P(gain < 0)."""

    mean: float
    low: float
    high: float
    p_negative: float


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
    splits = []
    for repeat in range(repeats):
        if shots is None:
            folds = StratifiedKFold(min(FOLDS, int(counts.min())), shuffle=True, random_state=int(rng.integers(2**31)))
            splits += [Split(rows[a], rows[b], repeat) for a, b in folds.split(rows, codes[rows])]
        else:
            train = np.concatenate([rng.permutation(np.flatnonzero(codes == c))[:shots] for c in range(len(counts))])
            splits.append(Split(train, np.setdiff1d(rows, train), repeat))
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


def row_weights(codes: np.ndarray, metric: str) -> np.ndarray:
    """(n,) weight of every row, mean 1, such that the weighted accuracy is `metric`."""
    if metric == "accuracy":
        return np.ones(len(codes))
    counts = np.bincount(codes)
    return len(codes) / ((counts > 0).sum() * counts[codes])


def measured(outcome: Outcome, other: Outcome | None = None) -> tuple[float, float, float]:
    """(mean, standard error, degrees of freedom) of the gain in percentage points; of its lead over `other` if given.

    Rows and repeats are crossed: the variance is that of row means plus that of repeat means less that of single
    cells, which both contain (two-way clustering: Cameron, Gelbach & Miller 2011). Unlabelled rows take out the part
    of the row variance that the networks' own probabilities foresee (prediction-powered inference, Angelopoulos et
    al. 2023, with the weight that minimises the variance).
    """
    cells = 100 * outcome.difference * outcome.weights
    guess, unlabelled = 100 * outcome.guess, 100 * outcome.guess_unlabelled
    if other is not None:
        cells = cells - 100 * other.difference * other.weights
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
    variance = max(by_row + by_repeat - by_cell, by_row, by_repeat)
    freedom = variance**2 / (by_row**2 / max(n - 1, 1) + by_repeat**2 / (repeats - 1))
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
    """The gain, shrunk by what is known of gains before any label is seen.

    Prior: mean 0, standard deviation 4 points where no feature is shared, 10 where all are (gains measured at 5 shots
    run from -20 to +17 with shared columns, with a deviation of 9, and from -5 to +2 without).
    """
    mean, error, freedom = measured(outcome)
    prior = (4 + 6 * outcome.shared) ** 2
    pull = prior / (prior + error**2)
    mean, error = pull * mean, pull**0.5 * error
    reach = float(stats.t.ppf(0.975, freedom)) * error
    p_negative = float(stats.t.cdf(-mean / error, freedom)) if error else float(mean < 0)
    return Gain(mean, mean - reach, mean + reach, p_negative)


def differ(leader: Outcome, other: Outcome) -> bool:
    """Whether the leader's gain is larger than the other's beyond the 95 % interval of the paired lead."""
    mean, error, freedom = measured(leader, other)
    return mean > float(stats.t.ppf(0.975, freedom)) * error
