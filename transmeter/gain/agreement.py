"""How well a ranking agrees with the truth: order, regret, and whether its intervals and chances are honest."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from sklearn.metrics import roc_auc_score

from transmeter.gain.prior import Gain

BINS = np.linspace(0, 1, 6)  # of P(gain < 0), for its calibration


@dataclass(frozen=True)
class Order:
    """Agreement of scores with true gains, for one target; None where either side does not vary.

    weighted_tau: mistakes among the best count most (Vigna 2015); regret_1, regret_3: true gain of the best source
    less that of the first pick, or of the best of three, in percentage points.
    """

    weighted_tau: float | None
    tau_b: float | None
    spearman: float | None
    pearson: float | None
    regret_1: float
    regret_3: float


def order(scores: Sequence[float], gains: Sequence[float]) -> Order:
    """Agreement of scores (sources,) with true gains (sources,). Ties in the scores share the regret of their mean."""
    s, g = np.asarray(scores, dtype=np.float64), np.asarray(gains, dtype=np.float64)
    varies = len(s) > 1 and np.ptp(s) > 0 and np.ptp(g) > 0
    tau, tau_b, rho, r = (
        (float(stats.weightedtau(s, g).statistic), *(float(f(s, g).statistic) for f in _CORRELATIONS))
        if varies
        else (None,) * 4
    )
    rng = np.random.default_rng(0)
    firsts = [np.lexsort((rng.random(len(s)), -s)) for _ in range(50 if len(np.unique(s)) < len(s) else 1)]
    regrets = [float(np.mean([g.max() - g[f[:k]].max() for f in firsts])) for k in (1, 3)]
    return Order(tau, tau_b, rho, r, *regrets)


_CORRELATIONS = (stats.kendalltau, stats.spearmanr, stats.pearsonr)


@dataclass(frozen=True)
class Honesty:
    """Of estimated gains with their intervals, over pairs of source and target.

    coverage: share of the 95 % intervals that hold the true gain, its own error added in quadrature; auroc: of
    P(gain < 0) for pairs whose true sign is beyond doubt; calibration_error: mean gap between it and how often gains
    are negative, over five bins of all pairs; false_helps: share of the sources without gain that are said to help;
    found_helps: share of those with at least 3 points that are. None where there is no such pair.
    """

    pairs: int
    coverage: float
    auroc: float | None
    calibration_error: float
    false_helps: float | None
    found_helps: float | None


def honesty(gains: Sequence[Gain], truth: Sequence[float], errors: Sequence[float]) -> Honesty:
    """Gains as estimated against true gains and their standard errors, in percentage points."""
    mean, low, high, p = np.array([(g.mean, g.low, g.high, g.p_negative) for g in gains]).T
    true, error = np.asarray(truth, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    below, above = np.hypot(mean - low, 1.96 * error), np.hypot(high - mean, 1.96 * error)
    clear = np.abs(true) > 1.96 * error
    negative = true[clear] < 0
    auroc = None
    if negative.any() and not negative.all():
        auroc = float(roc_auc_score(negative, p[clear]))
    place = np.clip(np.digitize(p, BINS) - 1, 0, len(BINS) - 2)
    groups = [place == b for b in range(len(BINS) - 1) if (place == b).any()]
    calibration = float(sum(abs(p[i].mean() - (true[i] < 0).mean()) * i.mean() for i in groups))
    null, large = true + 2 * error < 0.5, true >= 3
    return Honesty(
        pairs=len(true),
        coverage=float(((true >= mean - below) & (true <= mean + above)).mean()),
        auroc=auroc,
        calibration_error=calibration,
        false_helps=float((low[null] > 0).mean()) if null.any() else None,
        found_helps=float((low[large] > 0).mean()) if large.any() else None,
    )
