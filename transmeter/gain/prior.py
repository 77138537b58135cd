"""What is expected of a gain before it is measured: forests, fitted on measured pairs, in prior.npz.

`benchmarks/fit_prior.py` fits them on `benchmarks/results/prior_pairs.csv.gz`; both are in the repository.
"""

from collections.abc import Mapping
from dataclasses import astuple, dataclass, fields
from functools import cache
from importlib import resources

import numpy as np
from scipy import stats

from transmeter.learners.trees import Trees
from transmeter.util.intervals import half_width

TAIL = 5.0  # degrees of freedom of deviations from what is expected: some pairs are of a kind of their own
SHOTS = (5.0, 20.0)  # labelled rows per class that deviations are scaled at, between them by the root
TINY = 1e-6  # least variance of a gain
LIKELY = 0.2  # P(gain < 0) below which a source likely helps
SURPRISING = 3.0  # standard errors of a measured gain
ROUGH = 2.0  # standard error in percentage points beyond which a measured gain is too low
Measurement = tuple[float, float, float]  # mean, standard error (percentage points) and degrees of freedom of a gain


@dataclass(frozen=True, kw_only=True)
class FitFeatures:
    """What one fit on the labelled rows tells of a source; all are 0 where it has nothing in common with the target.

    Attributes
    ----------
    source_likelihood : float
        Log-likelihood per labelled row of models of the source alone, less that of the target alone (leave-one-out).
    pooled_likelihood : float
        The same of models of both (leave-one-out).
    odds : float
        Logarithm of the weight of all that uses the source over that of the target alone, in the combination.
    confidence, own_confidence : float
        Of the source's models and of the target's in their likeliest class on other rows, 0 at chance and 1 where sure.
    expected : float
        Share of other rows that the combination expects to be right more than the target alone, by its probabilities.
    change : float
        Share of other rows that it predicts otherwise than the target alone.
    agreement : float
        Probability that source and target alone, each by its probabilities, name the same class of another row.
    """

    source_likelihood: float = 0.0
    pooled_likelihood: float = 0.0
    odds: float = 0.0
    confidence: float = 0.0
    own_confidence: float = 0.0
    expected: float = 0.0
    change: float = 0.0
    agreement: float = 0.0


@dataclass(frozen=True, kw_only=True)
class PairFeatures(FitFeatures):
    """Features of one source for one target; shares and skills are between 0 and 1 unless said otherwise.

    Attributes
    ----------
    classes : int
        Number of the target's classes.
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

    classes: int
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
class ShortTransfer:
    """What repeats on held-out rows tell of a source beside its gain, over the same learners without it.

    Attributes
    ----------
    probability_gain : float
        Of the probability of the right class, in percentage points.
    likelihood_gain : float
        Of the log-likelihood per row, in nats.
    """

    probability_gain: float
    likelihood_gain: float


@dataclass(frozen=True)
class Gain:
    """Gain over the target alone.

    Attributes
    ----------
    mean, low, high : float
        Percentage points, with a 95 % interval.
    p_negative : float
        P(gain < 0).
    informed : bool
        Whether what was expected and what was measured are in it; one of them alone has to be beyond its interval.
    """

    mean: float
    low: float
    high: float
    p_negative: float
    informed: bool = False

    @classmethod
    def from_error(cls, mean: float, error: float, freedom: float = np.inf, informed: bool = False) -> "Gain":
        """The gain of a mean and its standard error in percentage points, by the t distribution."""
        reach = half_width(error, freedom)
        p_negative = float(stats.t.cdf(-mean / error, freedom)) if error else float(mean < 0)
        return cls(mean, mean - reach, mean + reach, p_negative, informed)

    @property
    def verdict(self) -> str:
        """helps or hurts where the 95 % interval excludes zero; likely helps by P(gain < 0), else no evidence."""
        if self.low > 0 or self.high < 0:
            return "helps" if self.low > 0 else "hurts"
        return "likely helps" if self.informed and self.p_negative < LIKELY else "no evidence"


@dataclass(frozen=True)
class Forest:
    """A forest that predicts a gain and how far it may be off.

    Attributes
    ----------
    trees : Trees
        Whose nodes hold the mean gain and the mean squared gain of the pairs in them, over the number of trees.
    scales : ndarray of shape (2,)
        By which deviations of gains from predictions exceed those of gains within leaves, at `SHOTS`.
    """

    trees: Trees
    scales: np.ndarray

    def predict(self, x: np.ndarray, shots: int) -> tuple[float, float]:
        """(mean, standard deviation) of the gain in percentage points, of regressors x (d,)."""
        mean, square = self.trees.probabilities(x[None])[0]
        scale = np.interp(-(shots**-0.5), -(np.array(SHOTS) ** -0.5), self.scales)
        return float(mean), float(scale * max(square - mean**2, TINY) ** 0.5)


@dataclass(frozen=True)
class Prior:
    """What is known of gains from measured pairs.

    Attributes
    ----------
    screen : Forest
        From the features of a pair alone.
    transfer : Forest
        From these and what repeats tell.
    inflation : float
        Factor of the measured gain's standard error, which few rows understate.
    shortfall : float
        By how much a measured gain is too low for every point of its standard error beyond `ROUGH`: the best learner of
        the target alone is chosen by the rows that measure the gain, of which few are kind to one of them by chance.
    """

    screen: Forest
    transfer: Forest
    inflation: float
    shortfall: float

    def corrected(self, measurement: Measurement) -> Measurement:
        """A measured gain without its bias, and with the standard error that it really has."""
        mean, error, freedom = measurement
        return mean + self.shortfall * max(error - ROUGH, 0.0), error * self.inflation, freedom

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything by name, as `restore` takes it."""
        found = {"inflation": np.array(self.inflation), "shortfall": np.array(self.shortfall)}
        for name in ("screen", "transfer"):
            forest: Forest = getattr(self, name)
            found[f"{name}.scales"] = forest.scales
            found |= {f"{name}.{k}": v for k, v in forest.trees.arrays().items()}
        return found

    @classmethod
    def restore(cls, arrays: Mapping[str, np.ndarray]) -> "Prior":
        """Take what `arrays` gave."""
        forests = []
        for name in ("screen", "transfer"):
            mine = {k.removeprefix(f"{name}."): v for k, v in arrays.items() if k.startswith(f"{name}.")}
            forests.append(Forest(Trees.restore(mine), mine["scales"]))
        return cls(*forests, float(arrays["inflation"]), float(arrays["shortfall"]))


@cache
def load_prior() -> Prior:
    """The model in prior.npz.

    Returns
    -------
    Prior
        Read once.
    """
    return Prior.restore(shipped_arrays("transmeter.gain"))


def shipped_arrays(package: str) -> dict[str, np.ndarray]:
    """The arrays in the prior.npz of a package.

    Parameters
    ----------
    package : str
        Its name.

    Returns
    -------
    dict
        By name.
    """
    with (
        resources.files(package).joinpath("prior.npz").open("rb") as file,
        np.load(file, allow_pickle=False) as arrays,
    ):
        return dict(arrays)


def regressors(pair: PairFeatures, shots: int, transfer: ShortTransfer | None = None) -> np.ndarray:
    """What the forests see.

    Parameters
    ----------
    pair : PairFeatures
        Features of source and target.
    shots : int
        Labelled rows per class.
    transfer : ShortTransfer or None
        What repeats tell; None leaves it out, as in `Prior.screen`.

    Returns
    -------
    ndarray of shape (d,)
        In the order of `TERMS`.
    """
    return np.array([*astuple(pair), shots**-0.5, *(astuple(transfer) if transfer else ())])


# the term of a gain that each of `regressors` counts for, its own name but for these
_SEVERAL = {
    **dict.fromkeys(("source_likelihood", "pooled_likelihood", "odds"), "likelihood"),
    **dict.fromkeys(("confidence", "own_confidence", "expected", "change", "agreement"), "predictions"),
    "classes": "usual",
}
TERMS = (*(_SEVERAL.get(f.name, f.name) for f in fields(PairFeatures)), "usual", "transfer", "transfer")


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
    return Gain.from_error(*load_prior().screen.predict(regressors(pair, shots), shots), TAIL)


def combine(prior: Prior, pair: PairFeatures, shots: int, transfer: ShortTransfer, measurement: Measurement) -> Gain:
    """The expected gain and the measured one, weighed by their precision.

    Parameters
    ----------
    prior : Prior
        What is known from other pairs.
    pair : PairFeatures
        Features of source and target.
    shots : int
        Labelled rows per class.
    transfer : ShortTransfer
        What repeats tell.
    measurement : tuple of float
        Mean and standard error of the measured gain in percentage points, and degrees of freedom.

    Returns
    -------
    Gain
        The posterior.
    """
    expected, deviation = prior.transfer.predict(regressors(pair, shots, transfer), shots)
    mean, error, freedom = prior.corrected(measurement)
    weight = _trust(deviation, mean - expected, error)
    # as uncertain as the degrees of freedom of both, by their shares in the variance
    freedom = 1 / (weight**2 / freedom + (1 - weight) ** 2 / TAIL)
    return Gain.from_error(weight * mean + (1 - weight) * expected, weight**0.5 * error, freedom, informed=True)


def _trust(deviation: float, difference: float, error: float) -> float:
    """Share of the measured gain, whose (inflated) standard error is `error`, in the combined one.

    deviation: of gains from what is expected. difference: of the measured gain from that; where it is so large that the
    pair cannot be of the kind that the prior knows, gains around the prior are taken to vary as much.
    """
    deviation = max(deviation, abs(difference) - SURPRISING * error)
    return deviation**2 / (deviation**2 + error**2)


def explain(
    prior: Prior, pair: PairFeatures, shots: int, transfer: ShortTransfer, measurement: Measurement
) -> dict[str, float]:
    """What the mean of `combine` is made of.

    Parameters
    ----------
    prior, pair, shots, transfer, measurement
        As in `combine`.

    Returns
    -------
    dict
        `measured`, without its bias, which counts by the share `trust`, and the terms that sum to what was expected,
        which counts by the rest. In percentage points: `usual` is what the average pair of the prior gains, the others
        what a short transfer and every feature add to that along the paths of the trees.

    References
    ----------
    Saabas, "Interpreting random forests", 2014.
    """
    x = regressors(pair, shots, transfer)
    expected, deviation = prior.transfer.predict(x, shots)
    mean, error, _ = prior.corrected(measurement)
    usual, parts = _along_paths(prior.transfer.trees, x)
    terms = {"trust": _trust(deviation, mean - expected, error), "measured": mean, "usual": usual}
    for term, part in zip(TERMS, parts, strict=True):
        terms[term] = terms.get(term, 0.0) + float(part)
    return terms


def _along_paths(trees: Trees, x: np.ndarray) -> tuple[float, np.ndarray]:
    """The mean gain at the roots, and (d,) what the features of x change of it on the way to its leaves."""
    x, node = x.astype(np.float32), trees.roots
    usual, found = float(trees.value[node, 0].sum()), np.zeros(len(x))
    while (inside := trees.left[node] >= 0).any():
        below = x[trees.feature[node]] <= trees.threshold[node]
        following = np.where(inside, np.where(below, trees.left[node], trees.right[node]), node)
        np.add.at(found, trees.feature[node], trees.value[following, 0] - trees.value[node, 0])
        node = following
    return usual, found
