"""Transmeter: the gain in percentage points that a source brings over training on the target alone.

Reconstructed from the published abstracts of Park et al., "Transmeter", arXiv 1912.13366. Every source's network
starts from its pre-trained classifier, trains briefly on source and target with all terms of the loss, and is
measured on held-out target rows against a network that trained on the target alone: same rows, same start of fresh
layers, same steps. All sources and several splits train as one stack. Range: percentage points, about -50 to 50.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from transmeter.data import Table
from transmeter.estimate import METRICS, Outcome, Score, Split, estimate, make_splits, row_weights
from transmeter.matching import shared_features
from transmeter.source import Encoded, Source
from transmeter.training import Schedule, Terms, track
from transmeter.transfer import train

SPLITS = 10  # of one stack
STACK = 120  # networks that train as one batch, so that memory is flat in sources and repeats


def score(
    sources: Sequence[Source],
    target: Table,
    *,
    seed: int = 0,
    shots: int | None = None,
    repeats: int = 10,
    metric: str = "balanced_accuracy",
    source_loss: float = 1.0,
    reconstruction: float = 0.1,
    discriminator: float = 0.1,
    mean_distance: float = 0.01,
    steps: int = 60,
) -> list[Score]:
    """Estimated gain of every source, its value in percentage points.

    shots, repeats, metric: as in `ranking.rank`; source_loss, reconstruction, discriminator, mean_distance: weights of
    the terms, 0 switches one off; steps: of training. Raises ValueError as `estimate.make_splits`.
    """
    if metric not in METRICS:
        raise ValueError(f"metric '{metric}' is unknown: give {' or '.join(METRICS)}")
    splits = make_splits(target, shots, repeats, seed)
    terms = Terms(source_loss, reconstruction, discriminator, mean_distance)
    encoded = Encoded(target)
    arms = STACK // SPLITS - 1
    outcomes: list[Outcome] = []
    for first in range(0, len(sources), arms):
        chunk = list(sources[first : first + arms])
        chances = []
        for begin in track(range(0, len(splits), SPLITS), f"{len(chunk)} sources for {target.name}"):
            part = splits[begin : begin + SPLITS]
            trained = train(chunk, encoded, part, terms, Schedule(steps=steps), seed * 100_003 + begin)
            chances.append(trained.probabilities(encoded.x))
        outcomes += _outcomes(torch.cat(chances, 1), chunk, encoded, splits, metric)
    return [Score(estimate(o).mean, o) for o in outcomes]


def _outcomes(
    chances: Tensor,
    sources: Sequence[Source],
    encoded: Encoded,
    splits: Sequence[Split],
    metric: str,
) -> list[Outcome]:
    """Paired outcomes from probabilities (arms, splits, n, classes), the last arm being the target alone."""
    target = encoded.table
    codes = target.codes
    tested = np.zeros(len(codes), dtype=bool)
    tested[np.concatenate([split.test for split in splits])] = True
    labelled, unlabelled = np.flatnonzero(tested), np.flatnonzero(codes < 0)
    repeats = splits[-1].repeat + 1
    votes = F.one_hot(chances.argmax(3), chances.shape[3]).float()
    correct = (chances.argmax(3) == torch.from_numpy(codes)).float().numpy()  # (arms, splits, n)
    weights = np.zeros(len(codes))
    weights[labelled] = row_weights(codes[labelled], metric)
    by_class = torch.tensor([weights[labelled][codes[labelled] == c][0] for c in range(len(target.classes))])
    held_out = torch.zeros(len(splits), len(codes))
    held_out[:, unlabelled] = 1
    for i, split in enumerate(splits):
        held_out[i, split.test] = 1
    share = (held_out / held_out.sum(0).clamp_min(1))[:, :, None]  # mean over the splits that did not train on a row
    found = []
    for a, source in enumerate(sources):
        difference = np.full((repeats, len(codes)), np.nan)
        for i, split in enumerate(splits):
            difference[split.repeat, split.test] = correct[a, i, split.test] - correct[-1, i, split.test]
        likely = ((chances[a] + chances[-1]) / 2 * share).sum(0)
        lead = ((votes[a] - votes[-1]) * share).sum(0)
        guess = (likely * lead * by_class).sum(1).double().numpy()
        if metric == "balanced_accuracy" and len(unlabelled):  # their classes may be mixed in another proportion
            mixed = 1 / (len(target.classes) * likely[unlabelled].mean(0))
            guess[unlabelled] = (likely * lead)[unlabelled].double().numpy() @ mixed.double().numpy()
        names = encoded.encoder.names
        shared = len(shared_features(source.encoder.names, names)) / len(names)
        found.append(
            Outcome(
                difference[:, labelled],
                weights[labelled],
                codes[labelled],
                guess[labelled],
                guess[unlabelled],
                shared,
            )
        )
    return found
