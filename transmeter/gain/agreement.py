"""How well a ranking agrees with the ground truth: order, regret, and the worth of its intervals and probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from sklearn.metrics import roc_auc_score

from transmeter.gain.prior import Gain

BINS = np.linspace(0, 1, 6)  # of P(gain < 0), for its calibration
SHUFFLES = 50  # ways to break ties of scores


@dataclass(frozen=True)
class RankAgreement:
    """Agreement of scores with true gains, for one target; correlations are None where either side does not vary.

    Attributes
    ----------
    weighted_tau : float or None
        Kendall's tau in which mistakes among the best count most (Vigna 2015, arXiv 1404.3325).
    tau_b, spearman, pearson : float or None
        Correlations.
    regret_1, regret_3 : float
        True gain of the best source less that of the first pick, or of the best of three, in percentage points.
    """

    weighted_tau: float | None
    tau_b: float | None
    spearman: float | None
    pearson: float | None
    regret_1: float
    regret_3: float


def rank_agreement(scores: Sequence[float], gains: Sequence[float]) -> RankAgreement:
    """Agreement of scores with true gains.

    Parameters
    ----------
    scores : sequence of float
        One per source, higher is better; ties share the regret of their mean.
    gains : sequence of float
        True gain of each, in percentage points.

    Returns
    -------
    RankAgreement
        Correlations and regrets.
    """
    s, g = np.asarray(scores, dtype=np.float64), np.asarray(gains, dtype=np.float64)
    measures = (stats.weightedtau, stats.kendalltau, stats.spearmanr, stats.pearsonr)
    varies = len(s) > 1 and np.ptp(s) > 0 and np.ptp(g) > 0
    correlations = [float(f(s, g).statistic) if varies else None for f in measures]
    rng = np.random.default_rng(0)
    orders = [np.lexsort((rng.random(len(s)), -s)) for _ in range(SHUFFLES if len(np.unique(s)) < len(s) else 1)]
    regrets = [float(np.mean([g.max() - g[order[:k]].max() for order in orders])) for k in (1, 3)]
    return RankAgreement(*correlations, *regrets)


@dataclass(frozen=True)
class IntervalCoverage:
    """What estimated gains with intervals are worth, over pairs of source and target; None where there is no such pair.

    Attributes
    ----------
    pairs : int
        Number of pairs.
    coverage : float
        Share of the 95 % intervals that hold the true gain, whose own error is added in quadrature.
    auroc : float or None
        Of P(gain < 0), for pairs whose true sign is beyond doubt.
    calibration_error : float
        Mean gap between P(gain < 0) and how often gains are negative, over five bins of the pairs whose gain is not 0.
    false_helps : float or None
        Share of the sources without gain that are said to help.
    found_helps : float or None
        Share of the sources with a gain of at least 3 points that are said to help.
    """

    pairs: int
    coverage: float
    auroc: float | None
    calibration_error: float
    false_helps: float | None
    found_helps: float | None


def interval_coverage(gains: Sequence[Gain], true_gains: Sequence[float], errors: Sequence[float]) -> IntervalCoverage:
    """What estimated gains are worth against true ones.

    Parameters
    ----------
    gains : sequence of Gain
        As estimated, one per pair.
    true_gains, errors : sequence of float
        True gains and their standard errors, in percentage points.

    Returns
    -------
    IntervalCoverage
        Over all pairs.
    """
    mean, low, high, p = np.array([(g.mean, g.low, g.high, g.p_negative) for g in gains]).T
    true, error = np.asarray(true_gains, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    below, above = np.hypot(mean - low, 1.96 * error), np.hypot(high - mean, 1.96 * error)
    clear = np.abs(true) > 1.96 * error
    negative = true[clear] < 0
    auroc = None
    if negative.any() and not negative.all():
        auroc = float(roc_auc_score(negative, p[clear]))
    bins = np.clip(np.digitize(p, BINS) - 1, 0, len(BINS) - 2)
    moved = true != 0  # what changes nothing is on neither side
    groups = [moved & (bins == b) for b in np.unique(bins[moved])]
    calibration_error = float(
        sum(abs(p[i].mean() - (true[i] < 0).mean()) * i.sum() for i in groups) / max(moved.sum(), 1)
    )
    null, large = true + 2 * error < 0.5, true >= 3
    return IntervalCoverage(
        pairs=len(true),
        coverage=float(((true >= mean - below) & (true <= mean + above)).mean()),
        auroc=auroc,
        calibration_error=calibration_error,
        false_helps=float((low[null] > 0).mean()) if null.any() else None,
        found_helps=float((low[large] > 0).mean()) if large.any() else None,
    )
