"""Source and target in one space, for scorers that need them there: through a transfer, or in the columns of both."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from transmeter.network.source import Encoded, Source
from transmeter.network.training import Schedule, Terms
from transmeter.network.transfer import train
from transmeter.tables.data import Table
from transmeter.tables.matching import common_features
from transmeter.tables.splits import Split, half_splits

STACK = 32  # sources that are trained as one stack, so that memory is flat in them


@dataclass(frozen=True)
class View:
    """Target rows as a source sees them after a feature transformation was learned on other rows.

    Attributes
    ----------
    features : ndarray of shape (n, h), float64
        Representation of the rows.
    outputs : ndarray of shape (n, source classes), float64
        Probabilities of the source's own classifier on them.
    codes : ndarray of shape (n,)
        Target class of each row.
    """

    features: np.ndarray
    outputs: np.ndarray
    codes: np.ndarray


def mean_over_views(
    measure: Callable[[View], float], sources: Sequence[Source], target: Table, seed: int, steps: int
) -> list[float]:
    """Mean of a measure over two views of every source: learned on one half of the labelled rows, the other half seen.

    For scorers that need target rows in the source's feature space.

    Parameters
    ----------
    measure : Callable
        Takes a `View`.
    sources : sequence of Source
        Whose classifiers are trained where they are not yet.
    target : Table
        With at least 4 labelled rows per class.
    seed : int
        Seed of the halves and of the transformation.
    steps : int
        Training steps of the transformation.

    Returns
    -------
    list of float
        One per source.

    Raises
    ------
    ValueError
        As by `half_splits`.
    """
    splits, encoded = half_splits(target, seed), Encoded(target)
    means = []
    for first in range(0, len(sources), STACK):
        chunk = sources[first : first + STACK]
        z = train(chunk, encoded, splits, Terms(), Schedule(steps=steps), seed).represent(encoded.x)
        for source, states in zip(chunk, z):
            means.append(float(np.mean([measure(_view(source, target, *pair)) for pair in zip(states, splits)])))
    return means


@torch.no_grad()
def _view(source: Source, target: Table, states: torch.Tensor, split: Split) -> View:
    """The test rows of a split in states (n, h) of all target rows."""
    outputs = source.classifier.trunk.head(states[None])[0].softmax(1)
    return View(states[split.test].double().numpy(), outputs[split.test].double().numpy(), target.codes[split.test])


@dataclass(frozen=True)
class Pair:
    """Labelled rows of a source and of the target as vectors of one space.

    Attributes
    ----------
    x_s, x_t : ndarray of shape (n_s, d) and (n_t, d), float64
        Rows of source and target.
    codes_s, codes_t : ndarray of shape (n_s,) and (n_t,)
        Their class numbers, each side's own.
    """

    x_s: np.ndarray
    codes_s: np.ndarray
    x_t: np.ndarray
    codes_t: np.ndarray


def pairs(sources: Sequence[Source], target: Table, seed: int, steps: int, rows: int) -> list[list[Pair]]:
    """Every source beside the target in a space of both.

    Parameters
    ----------
    sources : sequence of Source
        Sources to compare.
    target : Table
        Target to compare with.
    seed : int
        Seed of the rows, halves and representations.
    steps : int
        Training steps of a representation.
    rows : int
        Labelled rows per side at most, sampled at random.

    Returns
    -------
    list of list of Pair
        One pair in the shared columns where there are some; otherwise two in the representation that a transfer learns
        from the source and one half of the target, the other half seen.

    Raises
    ------
    ValueError
        As by `half_splits`, where a representation is needed.
    """

    def sample(codes: np.ndarray) -> np.ndarray:
        return np.random.default_rng(seed).permutation(np.flatnonzero(codes >= 0))[:rows]

    encoded = Encoded(target)
    by_source = []
    for source in sources:
        codes_s, shared = source.table.codes, common_features(source.table, target)
        s, t = sample(codes_s), sample(target.codes)
        if shared is not None:
            x_s, x_t = (x.astype(np.float64) for x in shared)
            by_source.append([Pair(x_s[s], codes_s[s], x_t[t], target.codes[t])])
            continue
        splits = half_splits(target, seed)
        trained = train([source], encoded, splits, Terms(), Schedule(steps=steps), seed)
        z_s, z_t = trained.represent_source(0, source.x[s]).double().numpy(), trained.represent(encoded.x)[0].double()
        tests = [np.intersect1d(split.test, t) for split in splits]
        by_source.append([Pair(z_s[i], codes_s[s], z_t[i, k].numpy(), target.codes[k]) for i, k in enumerate(tests)])
    return by_source
