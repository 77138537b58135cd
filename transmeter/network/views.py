"""Source and target in one space, for scorers that need them there: through a transfer, or in the columns of both."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from transmeter.gain.estimate import Score, halves
from transmeter.network.source import Encoded, Source
from transmeter.network.training import Schedule, Terms
from transmeter.network.transfer import train
from transmeter.tables.data import Table
from transmeter.tables.matching import common_features

VIEWS = 32  # sources that `views` trains as one stack, so that memory is flat in them


@dataclass(frozen=True)
class View:
    """Target rows as a source sees them after a feature transformation was learned on other rows.

    features (n, h) float64; outputs (n, source classes) probabilities of the source's own classifier on them; codes
    (n,) the target class of each row.
    """

    features: np.ndarray
    outputs: np.ndarray
    codes: np.ndarray


def views(sources: Sequence[Source], target: Table, seed: int, steps: int) -> list[tuple[View, View]]:
    """Two views for every source: the transformation learned on one half of the labelled rows, the other half seen.

    For scorers that need target rows in the source's feature space. Raises ValueError for a class with fewer than 4
    labelled rows.
    """
    splits, encoded = halves(target, seed), Encoded(target)
    found: list[tuple[View, View]] = []
    for first in range(0, len(sources), VIEWS):
        chunk = sources[first : first + VIEWS]
        z = train(chunk, encoded, splits, Terms(), Schedule(steps=steps), seed).represent(encoded.x)
        for source, seen in zip(chunk, z):
            with torch.no_grad():
                outputs = torch.stack([source.classifier.trunk.head(s[None])[0].softmax(1) for s in seen])
            both = [
                View(seen[i, s.test].double().numpy(), outputs[i, s.test].double().numpy(), target.codes[s.test])
                for i, s in enumerate(splits)
            ]
            found.append((both[0], both[1]))
    return found


def over_views(
    measure: Callable[[View], float], sources: Sequence[Source], target: Table, seed: int, steps: int
) -> list[Score]:
    """Mean of `measure` over both views of every source."""
    return [Score(float(np.mean([measure(view) for view in both]))) for both in views(sources, target, seed, steps)]


@dataclass(frozen=True)
class Pair:
    """Labelled rows of a source and of the target as vectors of one space, with their class numbers.

    x_s (n_s, d), x_t (n_t, d) float64; codes_s (n_s,), codes_t (n_t,).
    """

    x_s: np.ndarray
    codes_s: np.ndarray
    x_t: np.ndarray
    codes_t: np.ndarray


def pairs(sources: Sequence[Source], target: Table, seed: int, steps: int, rows: int) -> list[list[Pair]]:
    """Every source beside the target in a space of both, at most `rows` rows a side, drawn by the seed.

    One pair in the shared columns where there are some; otherwise two in the representation that a transfer learns
    from the source and one half of the target, the other half seen. Raises ValueError for a class with fewer than 4
    labelled rows, where a representation is needed.
    """

    def drawn(codes: np.ndarray) -> np.ndarray:
        return np.random.default_rng(seed).permutation(np.flatnonzero(codes >= 0))[:rows]

    encoded = Encoded(target)
    found = []
    for source in sources:
        codes_s, shared = source.table.codes, common_features(source.table, target)
        s, t = drawn(codes_s), drawn(target.codes)
        if shared is not None:
            x_s, x_t = (x.astype(np.float64) for x in shared)
            found.append([Pair(x_s[s], codes_s[s], x_t[t], target.codes[t])])
            continue
        splits = halves(target, seed)
        trained = train([source], encoded, splits, Terms(), Schedule(steps=steps), seed)
        z_s, z_t = trained.represent_source(0, source.x[s]).double().numpy(), trained.represent(encoded.x)[0].double()
        tests = [np.intersect1d(split.test, t) for split in splits]
        found.append([Pair(z_s[i], codes_s[s], z_t[i, k].numpy(), target.codes[k]) for i, k in enumerate(tests)])
    return found
