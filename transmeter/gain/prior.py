"""What is expected of a gain before it is measured: a small linear model, fitted on measured pairs, in prior.json.

`benchmarks/fit_prior.py` fits it on `benchmarks/results/rank_quality_pairs.csv`; both are in the repository.
"""

import json
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources

import numpy as np
from scipy import stats

from transmeter.util.intervals import half_width

SURPRISING = 3.0  # standard errors of a measured gain
Measurement = tuple[float, float, float]  # mean, standard error (percentage points) and degrees of freedom of a gain


@dataclass(frozen=True)
class PairFeatures:
    """Features of one source for one target; shares and skills are between 0 and 1 unless said otherwise.

    Attributes
    ----------
    shared : float
        Share of the target's features that the source has.
    mapped : float
        Share of its classes that the source has, by name.
    paired : float
        Share of its unlabelled rows that the source has seen, by key.
    size : float
        log10 of the labelled source rows.
    skill : float
        Accuracy of the source on itself above chance (leave-one-out ridge).
    zero_shot : float
        Accuracy above chance of the source's classifier on the labelled target rows; 0 where it cannot look at them,
        may be negative.
    closeness : float
        Of target class means to the source's, against other classes' means; at most 1.
    separation : float
        Accuracy above chance of a linear discriminator between both tables.
    misfit : float
        Log error of the source's autoencoder on target rows, less that on its own.
    ridge_gain : float
        Gain of a ridge classifier that sees the source's outputs, in percentage points.
    """

    shared: float
    mapped: float
    paired: float
    size: float
    skill: float
    zero_shot: float
    closeness: float
    separation: float
    misfit: float
    ridge_gain: float


@dataclass(frozen=True)
class Gain:
    """Gain over the target alone.

    Attributes
    ----------
    mean, low, high : float
        Percentage points, with a 95 % interval.
    p_negative : float
        P(gain < 0).
    """

    mean: float
    low: float
    high: float
    p_negative: float

    @classmethod
    def from_error(cls, mean: float, error: float, freedom: float = np.inf) -> "Gain":
        """The gain of a mean and its standard error in percentage points, by the t distribution."""
        reach = half_width(error, freedom)
        p_negative = float(stats.t.cdf(-mean / error, freedom)) if error else float(mean < 0)
        return cls(mean, mean - reach, mean + reach, p_negative)

    @property
    def verdict(self) -> str:
        """helps or hurts where the 95 % interval excludes zero, else no evidence."""
        return "helps" if self.low > 0 else "hurts" if self.high < 0 else "no evidence"


@dataclass(frozen=True)
class Linear:
    """A linear model of gains: intercept + weights . (x - center) / scale.

    Attributes
    ----------
    center, scale, weights : list of float
        One per regressor.
    intercept : float
        Gain of the average pair, in percentage points.
    spread : list of float
        The variance of a gain around the model is spread[0] + spread[1] / shots.
    """

    center: list[float]
    scale: list[float]
    weights: list[float]
    intercept: float
    spread: list[float]

    def standardise(self, x: list[float]) -> np.ndarray:
        """(regressors,) in deviations from those of the average pair, clipped: no trust far from what was seen."""
        return np.clip((np.array(x) - self.center) / np.array(self.scale), -4, 4)

    def deviation(self, shots: int) -> float:
        """Standard deviation of a gain around the model, in percentage points."""
        return (self.spread[0] + self.spread[1] / shots) ** 0.5

    def predict(self, x: list[float], shots: int) -> tuple[float, float]:
        """(mean, standard deviation) of the gain in percentage points."""
        return self.intercept + float(self.standardise(x) @ self.weights), self.deviation(shots)


@dataclass(frozen=True)
class Prior:
    """What is known of gains from measured pairs.

    Attributes
    ----------
    screen : Linear
        From the features of a pair alone.
    transfer : Linear
        From these and the probability gain in repeats.
    inflation : float
        Factor of the measured gain's standard error, which few rows understate.
    """

    screen: Linear
    transfer: Linear
    inflation: float


@cache
def load_prior() -> Prior:
    """The model in prior.json.

    Returns
    -------
    Prior
        Read once.
    """
    content = json.loads(resources.files("transmeter.gain").joinpath("prior.json").read_text(encoding="utf-8"))
    return Prior(Linear(**content["screen"]), Linear(**content["transfer"]), content["inflation"])


def regressors(pair: PairFeatures, shots: int, probability_gain: float | None = None) -> list[float]:
    """What the linear models see: features, told apart by whether class names match, and their products.

    Parameters
    ----------
    pair : PairFeatures
        Features of source and target.
    shots : int
        Labelled rows per class.
    probability_gain : float or None
        Percentage points; None leaves its terms out, as in `Prior.screen`.

    Returns
    -------
    list of float
        In the order of `TERMS`.
    """
    p, few, rise = pair, shots**-0.5, probability_gain
    named = float(p.mapped > 0)
    terms = [
        *(p.shared, p.mapped, p.paired, p.size, p.skill),
        *(p.zero_shot * named, p.zero_shot * (1 - named), p.closeness * named, p.closeness * (1 - named)),
        *(p.separation * p.shared, p.misfit * p.shared, p.ridge_gain),
        *(p.shared * p.skill, p.paired * p.skill, p.shared * named, p.shared * (1 - named)),
        *(few, few * p.shared * p.skill * named, few * p.zero_shot * named, few * p.paired * p.skill),
    ]
    return terms if rise is None else [*terms, rise, few * rise, float(np.tanh(rise / 10))]


# the term of a gain that each of `regressors` counts for
TERMS = (
    *("shared", "mapped", "paired", "size", "skill"),
    *("zero_shot", "zero_shot", "closeness", "closeness", "separation", "misfit", "ridge_gain"),
    *("shared", "paired", "shared", "shared", "usual", "shared", "zero_shot", "paired"),
    *("transfer", "transfer", "transfer"),
)


def predict_gain(pair: PairFeatures, shots: int) -> Gain:
    """The gain that is expected before any transfer.

    Parameters
    ----------
    pair : PairFeatures
        Features of source and target.
    shots : int
        Labelled rows per class.

    Returns
    -------
    Gain
        By `Prior.screen`.
    """
    return Gain.from_error(*load_prior().screen.predict(regressors(pair, shots), shots))


def combine(prior: Prior, pair: PairFeatures, shots: int, probability_gain: float, measurement: Measurement) -> Gain:
    """The expected gain and the measured one, weighed by their precision.

    Parameters
    ----------
    prior : Prior
        What is known from other pairs.
    pair : PairFeatures
        Features of source and target.
    shots : int
        Labelled rows per class.
    probability_gain : float
        Percentage points.
    measurement : tuple of float
        Mean and standard error of the measured gain in percentage points, and degrees of freedom.

    Returns
    -------
    Gain
        The posterior.
    """
    expected, _ = prior.transfer.predict(regressors(pair, shots, probability_gain), shots)
    mean, error, freedom = measurement
    error *= prior.inflation
    weight = _trust(prior, shots, mean - expected, error)
    # the share of the measurement is as uncertain as its degrees of freedom say, that of the prior is not
    freedom = freedom / max(weight, 1e-6) ** 2
    return Gain.from_error(weight * mean + (1 - weight) * expected, weight**0.5 * error, freedom)


def _trust(prior: Prior, shots: int, difference: float, error: float) -> float:
    """Share of the measured gain, whose (inflated) standard error is `error`, in the combined one.

    difference: of the measured gain from the expected one. Where it is so large that the pair cannot be of the kind
    that the prior knows, gains around the prior are taken to vary as much.
    """
    deviation = max(prior.transfer.deviation(shots), abs(difference) - SURPRISING * error)
    return deviation**2 / (deviation**2 + error**2)


def explain(
    prior: Prior, pair: PairFeatures, shots: int, probability_gain: float, measurement: Measurement
) -> dict[str, float]:
    """What the mean of `combine` is made of.

    Parameters
    ----------
    prior, pair, shots, probability_gain, measurement
        As in `combine`.

    Returns
    -------
    dict
        `measured`, which counts by the share `trust`, and the terms that sum to what was expected, which counts by the
        rest. In percentage points: `usual` is what the average pair of the prior gains, the others what a short
        transfer and every feature add to that.
    """
    expected, _ = prior.transfer.predict(regressors(pair, shots, probability_gain), shots)
    mean, error, _ = measurement
    terms = {"trust": _trust(prior, shots, mean - expected, error * prior.inflation), "measured": mean}
    terms["usual"] = prior.transfer.intercept
    parts = prior.transfer.standardise(regressors(pair, shots, probability_gain)) * prior.transfer.weights
    for term, part in zip(TERMS, parts, strict=True):
        terms[term] = terms.get(term, 0.0) + float(part)
    return terms


def as_json(prior: Prior) -> str:
    """The text of prior.json.

    Parameters
    ----------
    prior : Prior
        The model.

    Returns
    -------
    str
        What `load_prior` reads.
    """
    return json.dumps(asdict(prior), indent=1) + "\n"
