"""Features of a source for a target that are known before any transfer: closed forms only, no gradient steps.

One fit on the labelled rows tells how likely they are by models of the source alone, which has seen no label of the
target, and of both (leave-one-out); on other rows how sure these are, and how many predictions the source changes.
Beside that stand the terms of Transmeter's loss taken as measures (mean distance of classes, discrimination of domains,
reconstruction of the target by the source's decoder). `prior` weighs them.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from scipy.special import logsumexp
from torch import Tensor
from torch.nn import functional as F

from transmeter.gain.prior import FitFeatures, PairFeatures
from transmeter.learners import pooled_linear, source_linear, target_linear
from transmeter.learners.combination import TARGET_PRIOR, log_weights
from transmeter.learners.member import Member
from transmeter.learners.task import Task, shared, task_of
from transmeter.network.modules import represent
from transmeter.network.source import Encoded, Source
from transmeter.network.transfer import table_means
from transmeter.tables.matching import match_classes, shared_features
from transmeter.tables.splits import Split
from transmeter.util.ridge import loo_skill, ridge_accuracy

ROWS = 500  # of either side that distances look at
SPLITS = 10  # that the ridge looks at
FITS, PREDICTED = 4, 300  # splits that are fitted where no row lacks a label, and rows of the target that are predicted


@dataclass(frozen=True)
class _Average:
    """Members weighed as in the combination.

    likelihood, log_weight: (splits,), per row and of all; probabilities: (splits, n, classes).
    """

    likelihood: np.ndarray
    log_weight: np.ndarray
    probabilities: np.ndarray


def fit_features(sources: Sequence[Source], target: Encoded, splits: Sequence[Split], seed: int) -> list[FitFeatures]:
    """Features of every source for a target.

    Parameters
    ----------
    sources : sequence of Source
        With columns named as the target's.
    target : Encoded
        With labelled rows; where others are unlabelled, one fit is of all labelled rows.
    splits : sequence of Split
        Of the target, the first of which are fitted where all rows are labelled.
    seed : int
        Of the sample of rows that are predicted.

    Returns
    -------
    list of FitFeatures
    """
    unlabelled = target.table.codes < 0
    training = [np.flatnonzero(~unlabelled)] if unlabelled.any() else [s.train for s in splits[:FITS]]
    task = task_of(target, training, seed)
    others = np.stack([~np.isin(np.arange(len(target.table)), part) for part in training])
    rows = np.random.default_rng(seed).permutation(np.flatnonzero(others.any(0)))[:PREDICTED]
    x, others = target.x.numpy()[rows] @ task.basis, others[:, rows]
    alone = _average(target_linear.members(task, None), TARGET_PRIOR, task, x)
    return [_of_source(source, target, task, x, others, alone) for source in sources]


def _of_source(
    source: Source, target: Encoded, task: Task, x: np.ndarray, others: np.ndarray, alone: _Average
) -> FitFeatures:
    """Features of one source; others: (splits, n) whether a split does not train on the rows x (n, d)."""
    given = shared(source, target, task)
    theirs, pooled = ([m for part in given for m in way.members(task, part)] for way in (source_linear, pooled_linear))
    if not theirs:
        return FitFeatures()
    source_alone, both = _average(theirs, 1.0, task, x), _average(pooled, 1.0, task, x)
    log_weight = np.logaddexp(source_alone.log_weight, both.log_weight)
    combined = _mixed(alone, source_alone, both)
    mine, after = alone.probabilities.argmax(2), combined.argmax(2)
    expected = combined.max(2) - np.take_along_axis(combined, mine[..., None], 2)[..., 0]
    return FitFeatures(
        source_likelihood=float((source_alone.likelihood - alone.likelihood).mean()),
        pooled_likelihood=float((both.likelihood - alone.likelihood).mean()),
        odds=float((log_weight - alone.log_weight).mean()),
        confidence=_sureness(source_alone.probabilities, others),
        own_confidence=_sureness(alone.probabilities, others),
        expected=float(expected[others].mean()),
        change=float((mine != after)[others].mean()),
        agreement=float((source_alone.probabilities * alone.probabilities).sum(2)[others].mean()),
    )


def _average(members: Sequence[Member], prior: float, task: Task, x: np.ndarray) -> _Average:
    weights = log_weights(members, prior, task)
    total = logsumexp(weights, axis=0)
    shares = np.exp(weights - total)
    likelihood = (shares * np.stack([m.evidence for m in members])).sum(0) / task.weights.sum(1)
    probabilities = sum(share[:, None, None] * m.probabilities(x) for share, m in zip(shares, members))
    return _Average(likelihood, total, probabilities)


def _mixed(*parts: _Average) -> np.ndarray:
    """(splits, n, classes) probabilities of several parts by their weights."""
    weights = np.stack([part.log_weight for part in parts])
    shares = np.exp(weights - logsumexp(weights, axis=0))
    return sum(share[:, None, None] * part.probabilities for share, part in zip(shares, parts))


def _sureness(probabilities: np.ndarray, others: np.ndarray) -> float:
    """Mean probability of the likeliest class on other rows, 0 at chance and 1 where sure."""
    chance = 1 / probabilities.shape[2]
    return float((probabilities.max(2)[others].mean() - chance) / (1 - chance))


@torch.no_grad()
def pair_features(source: Source, target: Encoded, splits: Sequence[Split], fit: FitFeatures) -> PairFeatures:
    """Features of a source for a target.

    Parameters
    ----------
    source : Source
        With its classifier, which is trained where it is not yet.
    target : Encoded
        Of which the labelled rows that the splits use are looked at, and the features of all rows.
    splits : sequence of Split
        Of the target, for the gain of the ridge.
    fit : FitFeatures
        What one fit tells of the source.

    Returns
    -------
    PairFeatures
        Zero where source and target share no column and it takes one.
    """
    table, codes = target.table, target.table.codes
    pairs = shared_features(source.encoder.names, target.encoder.names)
    named = match_classes(source.table.classes, table.classes, None, None)
    zero_shot = closeness = separation = misfit = ridge_gain = 0.0
    if pairs:
        z_s = represent(source.classifier.branch, source.classifier.trunk, source.x[None])[0]
        z_t = _through_source(source, target, pairs)
        means_s, means_t = table_means(z_s[None], source.table), table_means(z_t[None], table)
        mapping = match_classes(source.table.classes, table.classes, means_s, means_t)
        outputs = source.classifier.trunk.head(z_t[None])[0].softmax(1).numpy()
        mapped = mapping >= 0
        if mapped.sum() > 1:
            zero_shot = _above_chance(outputs[:, mapping[mapped]], codes, np.flatnonzero(mapped))
            closeness = _closeness(means_s[mapping[mapped]], means_t[mapped])
        separation = _separation(z_s, z_t)
        misfit = _misfit(source, target, pairs, z_s, z_t)
        ridge_gain = _ridge_gain(target.x.numpy(), outputs, codes, splits[:SPLITS], len(table.classes))
    return PairFeatures(
        **asdict(fit),
        classes=len(table.classes),
        shared=len(pairs) / len(target.encoder.names),
        mapped=float((named >= 0).mean()),
        paired=_paired(source, target),
        size=float(np.log10((source.table.codes >= 0).sum())),
        skill=source.skill,
        zero_shot=zero_shot,
        closeness=closeness,
        separation=separation,
        misfit=misfit,
        ridge_gain=ridge_gain,
    )


def _paired(source: Source, target: Encoded) -> float:
    """Share of the target's unlabelled rows whose key the source has."""
    unlabelled = target.table.codes < 0
    if source.table.keys is None or target.table.keys is None or not unlabelled.any():
        return 0.0
    seen = {key for key in source.table.keys if key is not None}
    return float(np.mean([key in seen for key in target.table.keys[unlabelled]]))


def _through_source(source: Source, target: Encoded, pairs: list[tuple[int, int]]) -> Tensor:
    """z (n, h) of target rows by the source's own layers, through the features that both have."""
    i, j = (list(k) for k in zip(*pairs))
    first = source.classifier.branch.transform
    hidden = F.relu(target.x[:, j] @ first.weight[0, i] + first.bias[0])
    return F.relu(source.classifier.trunk.encode(hidden[None]))[0]


def _above_chance(outputs: np.ndarray, codes: np.ndarray, classes: np.ndarray) -> float:
    """Balanced accuracy over `classes` of outputs (n, len(classes)), 0 at chance and 1 where all are right."""
    shares = [(outputs[codes == c].argmax(1) == i).mean() for i, c in enumerate(classes) if (codes == c).any()]
    chance = 1 / len(classes)
    return float((np.mean(shares) - chance) / (1 - chance)) if shares else 0.0


def _closeness(means_s: np.ndarray, means_t: np.ndarray) -> float:
    """1 - (distance of a class to its counterpart / to the others), squared distances; means (classes, h)."""
    distance = ((means_t[:, None] - means_s[None]) ** 2).sum(2)
    own = distance.diagonal().mean()
    others = distance[~np.eye(len(distance), dtype=bool)].mean()
    return float(1 - own / max(others, 1e-9))


def _separation(z_s: Tensor, z_t: Tensor) -> float:
    """Leave-one-out accuracy above chance of a ridge that tells source rows from target rows."""
    samples = [z[np.random.default_rng(0).permutation(len(z))[:ROWS]] for z in (z_s, z_t)]
    codes = np.repeat([0, 1], [len(z) for z in samples])
    return loo_skill(torch.cat(samples).numpy(), codes)


def _misfit(source: Source, target: Encoded, pairs: list[tuple[int, int]], z_s: Tensor, z_t: Tensor) -> float:
    """Log error of the source's autoencoder on target rows, in the shared features, less that on its own rows."""
    i, j = (list(k) for k in zip(*pairs))
    decode = source.classifier.branch.decode
    there = (decode(z_t[None])[0][:, i] - target.x[:, j]).square().mean()
    here = (decode(z_s[None])[0][:, i] - source.x[:, i]).square().mean()
    return float(torch.log((there + 1e-3) / (here + 1e-3)))


def _ridge_gain(x: np.ndarray, outputs: np.ndarray, codes: np.ndarray, splits: Sequence[Split], classes: int) -> float:
    """Gain in balanced accuracy on the test rows, in percentage points, when the ridge sees the source's outputs."""
    wide = np.concatenate([x, 3 * (outputs - outputs.mean(0))], axis=1)
    gains = [
        ridge_accuracy(wide, codes, s.train, s.test, classes) - ridge_accuracy(x, codes, s.train, s.test, classes)
        for s in splits
    ]
    return 100 * float(np.mean(gains))
