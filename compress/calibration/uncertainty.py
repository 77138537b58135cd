"""How sure closeness is: another sample of the same texts would give another value.

The sequences that were measured stand for those that were not: `alignment.closeness` says by how much each moves the
logarithm of the closeness, so that no second forward pass is needed (infinitesimal jackknife). Sequences of one long
text are alike, and a set has few such texts: by how much that raises the variance is estimated of all sets together
(`benchmarks/calibration_intervals.py` compares with what other samples give).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from compress.calibration.hidden_states import HiddenStates
from transmeter.scorers.alignment import Closeness
from transmeter.util.intervals import half_width

FEWEST = 2  # sequences of a set, or texts where they have several, below which nothing is told of its closeness


@dataclass(frozen=True)
class Sample:
    """How much a value hangs on every sequence of a sample.

    Attributes
    ----------
    values
        (sequences,) influences.
    texts
        (sequences,) the text that each is of.
    """

    values: np.ndarray
    texts: np.ndarray

    @property
    def number(self) -> int:
        """Of its texts."""
        return len(np.unique(self.texts))

    @property
    def long(self) -> bool:
        """Whether a text has several sequences."""
        return self.number < len(self.texts)

    def variance(self) -> float:
        """Of the value, were all sequences independent."""
        return _variance(self.values)

    def variance_of_texts(self) -> float:
        """Of the value, where only texts are independent."""
        return _variance(np.bincount(np.unique(self.texts, return_inverse=True)[1], self.values))


def _variance(values: np.ndarray) -> float:
    return float(len(values) / (len(values) - 1) * np.square(values - values.mean()).sum()) if len(values) > 1 else 0.0


@dataclass(frozen=True)
class Uncertainty:
    """How the logarithm of the closeness of sets hangs on what was measured.

    Attributes
    ----------
    scores
        Closeness by name of the set.
    own
        Influences of its own sequences, by name.
    targets
        Influences of those of every target, by name.
    """

    scores: Mapping[str, float]
    own: Mapping[str, Sample]
    targets: Mapping[str, Sequence[Sample]]

    @cached_property
    def effect(self) -> tuple[float, int]:
        """Variance of texts over that of sequences where texts are long, at least 1, and its degrees of freedom."""
        long = [s for n in self.scores for s in (self.own[n], *self.targets[n]) if s.long and s.number >= FEWEST]
        freedom = sum(s.number - 1 for s in self.own.values() if s.long)
        freedom += sum(s.number - 1 for s in next(iter(self.targets.values())) if s.long)  # the same for all sets
        sequences = sum(s.variance() for s in long)
        return max(1.0, sum(s.variance_of_texts() for s in long) / sequences) if sequences else 1.0, freedom

    def interval(self, name: str) -> tuple[float, float] | None:
        """The 95 % interval of a closeness.

        Parameters
        ----------
        name
            Of the set.

        Returns
        -------
        tuple or None
            Its ends; None where too little was measured to tell.
        """
        reach = self._reach([self.own[name], *self.targets[name]])
        score = self.scores[name]
        return None if np.isinf(reach) else (float(score * np.exp(-reach)), float(score * np.exp(reach)))

    def tied(self, first: str) -> list[str]:
        """The sets that cannot be told apart from one of them.

        Parameters
        ----------
        first
            Its name.

        Returns
        -------
        list
            Names, closest first, for which the 95 % interval of the ratio has 1 in it. The target's sequences are the
            same for both, so that the ratio is surer than either closeness.
        """
        names = sorted(self.scores, key=lambda name: -self.scores[name])
        return [name for name in names if name != first and self._is_tied(name, first)]

    def _is_tied(self, name: str, first: str) -> bool:
        aims = [Sample(a.values - b.values, a.texts) for a, b in zip(self.targets[name], self.targets[first])]
        reach = self._reach([self.own[name], self.own[first], *aims])
        return bool(np.isfinite(reach) and abs(np.log(self.scores[name] / self.scores[first])) <= reach)

    def _reach(self, samples: Sequence[Sample]) -> float:
        """Half the width of the 95 % interval of what hangs on independent samples; infinite where none is known."""
        effect, freedom = self.effect
        if not any(s.long for s in samples):
            freedom = sum(len(s.values) - 1 for s in samples)
        if freedom < 1 or min(len(s.values) for s in samples) < FEWEST:
            return np.inf
        variance = sum(s.variance() * (effect if s.long else 1.0) for s in samples)
        return half_width(variance**0.5, freedom)


def uncertainty(
    scores: Mapping[str, float],
    compared: Mapping[str, Sequence[Closeness]],
    sets: Mapping[str, HiddenStates],
    targets: Sequence[HiddenStates],
    weights: Mapping[str, Sequence[float]],
) -> Uncertainty:
    """How sure the closeness of sets to several targets is.

    Parameters
    ----------
    scores
        Closeness by name of the set: exp of the weighted mean of the logarithms.
    compared
        Closeness to every target, by name of the set.
    sets
        Hidden states by name.
    targets
        Hidden states of every target.
    weights
        Of the targets, 1 in all, by name of the set.

    Returns
    -------
    Uncertainty
        Of every set.
    """
    own, aims = {}, {}
    for name in scores:
        pairs = list(zip(weights[name], compared[name]))
        own[name] = _by_sequence(np.sum([weight * one.source for weight, one in pairs], axis=0), sets[name])
        aims[name] = [_by_sequence(weight * one.target, aim) for (weight, one), aim in zip(pairs, targets)]
    return Uncertainty(scores, own, aims)


def _by_sequence(rows: np.ndarray, states: HiddenStates) -> Sample:
    return Sample(np.bincount(states.owners, rows, minlength=len(states.sequences)), states.texts)
