"""What can be known of a source before any transfer: closed forms only, no gradient steps.

The terms of Transmeter's loss taken as measures (mean distance of classes, discrimination of domains, reconstruction
of the target by the source's decoder), with what else foretells a gain. All are meant for `prior`, which weighs them.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from transmeter.gain.estimate import Split
from transmeter.gain.prior import Evidence
from transmeter.learners.ridge import held_out, loo_skill
from transmeter.network.modules import represent
from transmeter.network.source import Encoded, Source
from transmeter.network.transfer import table_means
from transmeter.tables.matching import match_classes, shared_features

ROWS = 500  # of either side that distances look at
SPLITS = 10  # that the ridge looks at


@torch.no_grad()
def gather(source: Source, target: Encoded, splits: Sequence[Split]) -> Evidence:
    """Evidence from the labelled rows that the splits use, and from the features of all rows."""
    table, codes = target.table, target.table.codes
    labelled = codes >= 0
    pairs = shared_features(source.encoder.names, target.encoder.names)
    named = match_classes(source.table.classes, table.classes, None, None)
    unlabelled = np.flatnonzero(~labelled)
    paired = 0.0
    if source.table.keys is not None and table.keys is not None and len(unlabelled):
        seen = {key for key in source.table.keys if key is not None}
        paired = float(np.mean([key in seen for key in table.keys[unlabelled]]))
    zero_shot = closeness = separation = misfit = ridge_gain = 0.0
    if pairs:
        z_s = represent(source.classifier.branch, source.classifier.trunk, source.x[None])[0]
        z_t = _through(source, target, pairs)
        means_s, means_t = table_means(z_s[None], source.table), table_means(z_t[None], table)
        mapping = match_classes(source.table.classes, table.classes, means_s, means_t)
        outputs = source.classifier.trunk.head(z_t[None])[0].softmax(1).numpy()
        known = mapping >= 0
        if known.sum() > 1:
            zero_shot = _above_chance(outputs[:, mapping[known]], codes, np.flatnonzero(known))
            closeness = _closeness(means_s[mapping[known]], means_t[known])
        separation = _separation(z_s, z_t)
        misfit = _misfit(source, target, pairs, z_s, z_t)
        ridge_gain = _ridge_gain(target.x.numpy(), outputs, codes, splits[:SPLITS], len(table.classes))
    return Evidence(
        shared=len(pairs) / len(target.encoder.names),
        mapped=float((named >= 0).mean()),
        paired=paired,
        size=float(np.log10((source.table.codes >= 0).sum())),
        skill=source.skill,
        zero_shot=zero_shot,
        closeness=closeness,
        separation=separation,
        misfit=misfit,
        ridge_gain=ridge_gain,
    )


def _through(source: Source, target: Encoded, pairs: list[tuple[int, int]]) -> Tensor:
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
    drawn = [z[np.random.default_rng(0).permutation(len(z))[:ROWS]] for z in (z_s, z_t)]
    codes = np.repeat([0, 1], [len(z) for z in drawn])
    return loo_skill(torch.cat(drawn).numpy(), codes)


def _misfit(source: Source, target: Encoded, pairs: list[tuple[int, int]], z_s: Tensor, z_t: Tensor) -> float:
    i, j = (list(k) for k in zip(*pairs))
    decode = source.classifier.branch.decode
    there = (decode(z_t[None])[0][:, i] - target.x[:, j]).square().mean()
    here = (decode(z_s[None])[0][:, i] - source.x[:, i]).square().mean()
    return float(torch.log((there + 1e-3) / (here + 1e-3)))


def _ridge_gain(x: np.ndarray, outputs: np.ndarray, codes: np.ndarray, splits: Sequence[Split], classes: int) -> float:
    """Gain in balanced accuracy on the test rows, in percentage points, when the ridge sees the source's outputs."""
    wide = np.concatenate([x, 3 * (outputs - outputs.mean(0))], axis=1)
    gains = [
        held_out(wide, codes, s.train, s.test, classes) - held_out(x, codes, s.train, s.test, classes) for s in splits
    ]
    return 100 * float(np.mean(gains))
