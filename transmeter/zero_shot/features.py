"""Features of a source for a target of which no label is known: closed forms, no gradient steps.

How well the source's own rows are predicted, how sure its model is of the target's rows beside its own (Guillory et
al., "Predicting with confidence on unseen distributions", arXiv 2107.03315; Garg et al., "Leveraging unlabeled data to
predict out-of-distribution performance", arXiv 2201.04234), whether models fitted in other ways agree there (Baek et
al., "Agreement-on-the-line", arXiv 2206.13089), how far both tables lie apart, and whether the predicted classes are a
structure of the target's own, also in columns that the source lacks.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
from scipy.spatial.distance import cdist

from transmeter.learners import linear
from transmeter.learners.task import PENALTY, balanced
from transmeter.network.source import Encoded, Source
from transmeter.util.ridge import loo_skill
from transmeter.zero_shot.model import SourceModel

ROWS = 500  # of either side that distances look at
NEIGHBOURS = 10
LARGEST = 20.0  # importance weight
USUAL = 0.95  # quantile of a source's distances to its own nearest row beyond which a target row lies outside of it


@dataclass(frozen=True, kw_only=True)
class ZeroShotFeatures:
    """Features of one source for one target; accuracies are 0 at chance and 1 where all rows are right.

    Attributes
    ----------
    classes : int
        Number of the source's classes.
    shared : float
        Share of the target's encoded features that the source has.
    size, rows : float
        log10 of the labelled source rows, and of the target's rows.
    skill, weighted_skill : float
        Accuracy of the source's model on its own rows, each predicted without it, from the shared columns; and with
        rows that look like the target's counting more (importance weights).
    confidence, own_confidence : float
        Of the model in its likeliest class, on target rows and on its own.
    changed : float
        `skill` and by how much the model is surer of target rows than of its own.
    expected : float
        Share of target rows that it is surer of than of its wrong own rows: more than the threshold that as many of
        its own rows exceed as are right.
    shift : float
        Distance (total variation) of the shares of the predicted classes from those on its own rows.
    unit_agreement : float
        Share of target rows of which its regressions in both units name the same class.
    neighbour_agreement, own_neighbour_agreement : float
        Share of target rows, and of its own, of which the nearest of its rows has the class that the model names.
    outside : float
        Share of target rows that lie farther from the source's rows than most of these from each other.
    separation : float
        Accuracy of a linear discriminator between both tables, in the shared features.
    distance : float
        Root mean square difference of the tables' means, in standard deviations of the target.
    misfit : float
        Log error of target rows projected on half of the source's principal directions, less that of its own.
    smoothness : float
        Share of the nearest target rows that are predicted to be of the same class, above chance.
    rest : float
        Accuracy with which columns that the source lacks tell the predicted classes.
    """

    classes: int
    shared: float
    size: float
    rows: float
    skill: float
    weighted_skill: float
    confidence: float
    own_confidence: float
    changed: float
    expected: float
    shift: float
    unit_agreement: float
    neighbour_agreement: float
    own_neighbour_agreement: float
    outside: float
    separation: float
    distance: float
    misfit: float
    smoothness: float
    rest: float


def zero_shot_features(source: Source, target: Encoded, model: SourceModel) -> ZeroShotFeatures:
    """Features of a source for a target.

    Parameters
    ----------
    source : Source
        With columns named as the target's.
    target : Encoded
        Whose labels are not looked at.
    model : SourceModel
        Of the source.

    Returns
    -------
    ZeroShotFeatures
    """
    rng, known = np.random.default_rng(source.seed), model.known
    mine = np.sort(rng.permutation(len(target.table))[:ROWS])
    theirs = np.sort(rng.permutation(len(model.codes))[:ROWS])
    full = target.x.numpy().astype(np.float64)[mine]
    x_t, x_s = full[:, known], model.rows[theirs][:, known]
    predicted, own = model.probabilities, model.left_out
    classes, guess, own_guess = own.shape[1], predicted.argmax(1), own.argmax(1)
    near, own_near, far = _neighbours(x_s, x_t)
    skill, sureness, own_sureness = skill_of(own_guess, model.codes, classes), _sureness(predicted), _sureness(own)
    return ZeroShotFeatures(
        classes=classes,
        shared=float(known.mean()),
        size=float(np.log10(len(model.codes))),
        rows=float(np.log10(len(target.table))),
        skill=skill,
        weighted_skill=skill_of(own_guess[theirs], model.codes[theirs], classes, _importance(x_s, x_t)),
        confidence=sureness,
        own_confidence=own_sureness,
        changed=skill + sureness - own_sureness,
        expected=_thresholded(predicted, own, own_guess == model.codes),
        shift=_shift(guess, own_guess, classes),
        unit_agreement=float(np.mean(model.by_unit[0].argmax(1) == model.by_unit[-1].argmax(1))),
        neighbour_agreement=float(np.mean(guess[mine] == model.codes[theirs][near])),
        own_neighbour_agreement=float(np.mean(own_guess[theirs] == model.codes[theirs][own_near])),
        outside=far,
        separation=loo_skill(np.concatenate([x_s, x_t]), np.repeat([0, 1], [len(x_s), len(x_t)])),
        distance=float(np.sqrt(np.mean((x_s.mean(0) - x_t.mean(0)) ** 2))),
        misfit=_misfit(x_s, x_t),
        smoothness=_smoothness(full, guess[mine]),
        rest=_rest(full[:, ~known], guess[mine]),
    )


def skill_of(guess: np.ndarray, codes: np.ndarray, classes: int, weights: np.ndarray | None = None) -> float:
    """Balanced accuracy, 0 where classes are guessed evenly and 1 where all rows are right.

    Parameters
    ----------
    guess, codes : ndarray of shape (n,)
        Predicted and right class numbers.
    classes : int
        Number of classes that are predicted.
    weights : ndarray of shape (n,) or None
        Of the rows; None: all count alike.

    Returns
    -------
    float
        May be negative.
    """
    weights = np.ones(len(codes)) if weights is None else weights
    right = np.mean([np.average(guess[codes == c] == c, weights=weights[codes == c]) for c in np.unique(codes)])
    return float((right - 1 / classes) / (1 - 1 / classes))


def agreement_of(models: Sequence[np.ndarray]) -> np.ndarray:
    """How alike sources' models predict the target's rows.

    Parameters
    ----------
    models : sequence of ndarray of shape (n, classes)
        Probabilities of the same classes by every source's model.

    Returns
    -------
    ndarray of shape (sources, sources)
        Correlations, -1 to 1; 0 of a model that predicts the same for all rows.
    """
    flat = np.stack([(p - p.mean(0)).ravel() for p in models])
    length = np.sqrt((flat**2).sum(1))
    unit = flat / np.where(length > 1e-9, length, np.inf)[:, None]
    return unit @ unit.T


def consensus(agreement: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """What other sources' models say of every source.

    Parameters
    ----------
    agreement : ndarray of shape (sources, sources)
        As by `agreement_of`.
    expected : ndarray of shape (sources,)
        What each is expected to be right, above chance.

    Returns
    -------
    ndarray of shape (sources, 3)
        Mean agreement with the others, the same by the expected accuracy of these, and the sum of that.
    """
    others = agreement - np.diag(agreement.diagonal())
    weights = np.maximum(expected, 0.01)
    total = weights.sum() - weights
    many = max(len(agreement) - 1, 1)
    return np.column_stack([others.sum(1) / many, others @ weights / np.maximum(total, 1e-9), total])


def regressors(features: Sequence[ZeroShotFeatures]) -> np.ndarray:
    """What the forests see of pairs, beside the consensus.

    Parameters
    ----------
    features : sequence of ZeroShotFeatures
        Of pairs.

    Returns
    -------
    ndarray of shape (pairs, d)
    """
    return np.array([astuple(f) for f in features], dtype=np.float64)


def _importance(x_s: np.ndarray, x_t: np.ndarray) -> np.ndarray:
    """(m,) odds that rows of the source are of the target, by a regression that tells them apart, 20 to 1 at most.

    Sugiyama et al., "Covariate shift adaptation by importance weighted cross validation", JMLR 2007.
    """
    x, codes = np.concatenate([x_s, x_t]), np.repeat([0, 1], [len(x_s), len(x_t)])
    weights = len(x) * balanced(codes, codes >= 0)
    rows = np.arange(len(x_s))[None]
    mine = linear.fit(x, np.eye(2)[codes][None], weights[None], PENALTY, rows).left_out[0, :, 1]
    return np.clip(mine / (1 - mine), 1 / LARGEST, LARGEST)


def _sureness(probabilities: np.ndarray) -> float:
    """Mean probability of the likeliest class, 0 at chance and 1 where sure."""
    chance = 1 / probabilities.shape[1]
    return float((probabilities.max(1).mean() - chance) / (1 - chance))


def _thresholded(predicted: np.ndarray, own: np.ndarray, right: np.ndarray) -> float:
    threshold = np.quantile(own.max(1), 1 - right.mean())
    chance = 1 / own.shape[1]
    return float(((predicted.max(1) > threshold).mean() - chance) / (1 - chance))


def _shift(guess: np.ndarray, own: np.ndarray, classes: int) -> float:
    mine, theirs = (np.bincount(g, minlength=classes) / len(g) for g in (guess, own))
    return float(np.abs(mine - theirs).sum() / 2)


def _neighbours(x_s: np.ndarray, x_t: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Nearest source row of every target row and of every other source row, and the share of target rows outside."""
    between, within = cdist(x_t, x_s), cdist(x_s, x_s)
    np.fill_diagonal(within, np.inf)
    usual = np.quantile(within.min(1), USUAL)
    return between.argmin(1), within.argmin(1), float(np.mean(between.min(1) > usual))


def _misfit(x_s: np.ndarray, x_t: np.ndarray) -> float:
    centre = x_s.mean(0)
    directions = np.linalg.svd(x_s - centre, full_matrices=False)[2]
    half = directions[: max(1, x_s.shape[1] // 2)]
    lost = [np.mean((x - centre - (x - centre) @ half.T @ half) ** 2) for x in (x_t, x_s)]
    return float(np.log((lost[0] + 1e-3) / (lost[1] + 1e-3)))


def _smoothness(x: np.ndarray, guess: np.ndarray) -> float:
    """Agreement with the nearest rows above what the classes' shares give; 0 where one class is predicted."""
    shares = np.bincount(guess) / len(guess)
    chance = float((shares**2).sum())
    distance = cdist(x, x)
    np.fill_diagonal(distance, np.inf)
    near = np.argsort(distance, axis=1)[:, : min(NEIGHBOURS, len(x) - 1)]
    return float(((guess[near] == guess[:, None]).mean() - chance) / (1 - chance)) if chance < 1 else 0.0


def _rest(x: np.ndarray, guess: np.ndarray) -> float:
    counts = np.bincount(guess)
    told = x.shape[1] > 0 and (counts >= 2).sum() > 1
    return loo_skill(x, guess) if told else 0.0
