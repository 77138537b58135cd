"""What evidence lets expect of a gain: a small linear model, fitted on measured pairs and shipped as prior.json.

`benchmarks/fit_prior.py` fits it on `benchmarks/results/rank_quality_pairs.csv`; both are in the repository.
"""

import json
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources

import numpy as np
from scipy import stats

from transmeter.util.intervals import half_width


@dataclass(frozen=True)
class Evidence:
    """Of one source for one target; shares and skills between 0 and 1 unless said otherwise.

    shared: of the target's features that the source has; mapped: of its classes; paired: of its unlabelled rows that
    the source has seen; size: log10 of the labelled source rows; skill: accuracy of the source on itself above chance
    (leave-one-out ridge); zero_shot: that of the source's classifier on the labelled target rows, 0 where it cannot
    look at them, may be negative; closeness: of target class means to the source's, against other classes' means;
    separation: of the two domains by a linear discriminator; misfit: log error of the source's autoencoder on target
    rows, less that on its own; ridge_gain: of a ridge that sees the source's outputs, in percentage points.
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
    """Percentage points over the target alone, with a 95 % interval and P(gain < 0)."""

    mean: float
    low: float
    high: float
    p_negative: float

    @property
    def verdict(self) -> str:
        """helps or hurts where the 95 % interval excludes zero, else no evidence."""
        return "helps" if self.low > 0 else "hurts" if self.high < 0 else "no evidence"


@dataclass(frozen=True)
class Linear:
    """mean = intercept + weights . (x - center) / scale; variance = spread[0] + spread[1] / shots."""

    center: list[float]
    scale: list[float]
    weights: list[float]
    intercept: float
    spread: list[float]

    def standard(self, x: list[float]) -> np.ndarray:
        """(features,) in deviations from those of the average pair; no trust far from what was seen."""
        return np.clip((np.array(x) - self.center) / np.array(self.scale), -4, 4)

    def deviation(self, shots: int) -> float:
        """Standard deviation of what is expected, in percentage points."""
        return (self.spread[0] + self.spread[1] / shots) ** 0.5

    def expect(self, x: list[float], shots: int) -> tuple[float, float]:
        """(mean, standard deviation) in percentage points."""
        return self.intercept + float(self.standard(x) @ self.weights), self.deviation(shots)


@dataclass(frozen=True)
class Prior:
    """screen: from evidence alone; transfer: from evidence and the soft gain of a short transfer; inflation: of the
    measured gain's standard error, which few rows understate."""

    screen: Linear
    transfer: Linear
    inflation: float


@cache
def shipped() -> Prior:
    """The model in prior.json."""
    found = json.loads(resources.files("transmeter.gain").joinpath("prior.json").read_text(encoding="utf-8"))
    return Prior(Linear(**found["screen"]), Linear(**found["transfer"]), found["inflation"])


def features(evidence: Evidence, shots: int, soft: float | None = None) -> list[float]:
    """What the linear models see: evidence, told apart by whether class names match, and its products; with the soft
    gain, in percentage points, where one was measured."""
    e, few = evidence, shots**-0.5
    named = float(e.mapped > 0)
    found = [
        *(e.shared, e.mapped, e.paired, e.size, e.skill),
        *(e.zero_shot * named, e.zero_shot * (1 - named), e.closeness * named, e.closeness * (1 - named)),
        *(e.separation * e.shared, e.misfit * e.shared, e.ridge_gain),
        *(e.shared * e.skill, e.paired * e.skill, e.shared * named, e.shared * (1 - named)),
        *(few, few * e.shared * e.skill * named, few * e.zero_shot * named, few * e.paired * e.skill),
    ]
    return found if soft is None else [*found, soft, few * soft, float(np.tanh(soft / 10))]


# the term of a gain that each of `features` counts for
TERMS = (
    *("shared", "mapped", "paired", "size", "skill"),
    *("zero_shot", "zero_shot", "closeness", "closeness", "separation", "misfit", "ridge_gain"),
    *("shared", "paired", "shared", "shared", "usual", "shared", "zero_shot", "paired"),
    *("transfer", "transfer", "transfer"),
)


def foresee(evidence: Evidence, shots: int) -> Gain:
    """The gain that evidence alone lets expect."""
    mean, deviation = shipped().screen.expect(features(evidence, shots), shots)
    return gain(mean, deviation)


def join(prior: Prior, evidence: Evidence, shots: int, soft: float, measured: tuple[float, float, float]) -> Gain:
    """The expected gain and the measured one (mean, standard error, degrees of freedom), weighed by precision."""
    expected, _ = prior.transfer.expect(features(evidence, shots, soft), shots)
    mean, error, freedom = measured
    error *= prior.inflation
    weight = trust(prior, shots, error)
    # the share of the measurement is as uncertain as its degrees of freedom say, that of the prior is not
    freedom = freedom / max(weight, 1e-6) ** 2
    return gain(weight * mean + (1 - weight) * expected, weight**0.5 * error, freedom)


def trust(prior: Prior, shots: int, error: float) -> float:
    """Share of the measured gain, whose (inflated) standard error is `error`, in the joined one."""
    deviation = prior.transfer.deviation(shots)
    return deviation**2 / (deviation**2 + error**2)


def explain(
    prior: Prior, evidence: Evidence, shots: int, soft: float, measured: tuple[float, float, float]
) -> dict[str, float]:
    """What the mean of `join` is made of: measured, which counts by the share trust, and the terms that sum to what was
    expected, which counts by the rest. In percentage points: usual is what the average pair of the prior's gains, the
    others what a short transfer and every kind of evidence add to that.
    """
    found = {"trust": trust(prior, shots, measured[1] * prior.inflation), "measured": measured[0]}
    found["usual"] = prior.transfer.intercept
    parts = prior.transfer.standard(features(evidence, shots, soft)) * prior.transfer.weights
    for term, part in zip(TERMS, parts, strict=True):
        found[term] = found.get(term, 0.0) + float(part)
    return found


def gain(mean: float, error: float, freedom: float = np.inf) -> Gain:
    """A gain with its 95 % interval from a mean and a standard error in percentage points."""
    reach = half_width(error, freedom)
    p_negative = float(stats.t.cdf(-mean / error, freedom)) if error else float(mean < 0)
    return Gain(mean, mean - reach, mean + reach, p_negative)


def as_json(prior: Prior) -> str:
    """What `shipped` reads."""
    return json.dumps(asdict(prior), indent=1) + "\n"
