"""Alignment: how close source and target lie in a feature space that they share, class by class. No labels gained.

Three terms of Transmeter's loss taken as measures (arXiv 1912.13366, reconstructed): the label-wise mean distance,
where a label counts by its share of the target, how well label-wise discriminators tell source from target, and how
much of the target is lost when reconstructed from the source's directions, trace((C_s + e I)^-1 C_t) / d. The score is
the inverse of their geometric mean, so that no unit outweighs another. Columns named SPACE::NUMBER, such as the hidden
states of several layers, are measured space by space, and all terms joined. Range: above 0, higher is closer; for
features of one model, such as hidden states.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from transmeter.gain.score import Needs, Score
from transmeter.network import losses
from transmeter.network.modules import Discriminators
from transmeter.network.source import Source
from transmeter.network.training import one_thread
from transmeter.tables.data import Table
from transmeter.tables.matching import common_features

NEEDS = Needs(shared_columns=True)
ROWS = 2000  # of either side that are looked at
STEPS, RATE = 100, 1e-2
FLOOR = 0.1  # of the second moment of a source, in means of the target's


def score(
    sources: Sequence[Source],
    target: Table,
    *,
    seed: int = 0,
    mean_distance: float = 1.0,
    discriminator: float = 0.0,
    coverage: float = 1.0,
) -> list[Score]:
    """Closeness of every source to the target over their shared features.

    Parameters
    ----------
    sources, target : sequence of Source, Table
        What is compared.
    seed : int
        Seed of the rows and of the discriminators.
    mean_distance, discriminator, coverage : float
        Weights of the terms in the geometric mean; 0 switches one off. Discriminators are off by default: with
        thousands of rows they add nothing to the other two, with a hundred they are noise.

    Returns
    -------
    list of Score
        Above 0, higher is closer.

    Raises
    ------
    ValueError
        For a source that shares no feature or no class name with the target, and for all weights zero.

    References
    ----------
    Park et al., "Transmeter", arXiv 1912.13366.
    """
    weights = {"mean_distance": mean_distance, "separability": discriminator, "uncovered": coverage}
    if not any(weights.values()) or min(weights.values()) < 0:
        raise ValueError("mean_distance, discriminator, coverage: give weights of at least 0, not all 0")
    wanted = [term for term, weight in weights.items() if weight]
    found = []
    for source in sources:
        each = terms(source.table, target, wanted, seed)
        logs = sum(weights[term] * np.log(value) for (_, term), value in each.items())
        found.append(Score(float(np.exp(-logs / sum(weights[term] for _, term in each)))))
    return found


def terms(source: Table, target: Table, wanted: Sequence[str], seed: int = 0) -> dict[tuple[str, str], float]:
    """The terms of the alignment, space by space.

    Parameters
    ----------
    source, target : Table
        What is compared.
    wanted : sequence of str
        Of mean_distance, separability and uncovered.
    seed : int
        Seed of the rows and of the discriminators.

    Returns
    -------
    dict
        (space, term) -> above 0, lower is closer.
    """
    found = {}
    for space, (x_s, q_s), (x_t, q_t) in _common(source, target, seed):
        for term in wanted:
            if term == "mean_distance":
                found[space, term] = float(_mean_distance(x_s, q_s, x_t, q_t))
            elif term == "separability":
                found[space, term] = _separability(x_s, q_s, x_t, q_t, seed)
            else:
                found[space, term] = _uncovered(x_s, x_t)
    return found


@dataclass(frozen=True, eq=False)
class Points:
    """Rows of a set in spaces that all sets have, such as the hidden states of several layers of one model.

    Attributes
    ----------
    spaces
        (rows, d) features by name of the space.
    labels
        (rows,) classes.
    """

    spaces: Mapping[str, np.ndarray]
    labels: np.ndarray

    @cached_property
    def units(self) -> dict[str, StandardScaler]:
        """Means and standard deviations of every space."""
        return {space: StandardScaler().fit(x.astype(np.float64)) for space, x in self.spaces.items()}

    @cached_property
    def standard(self) -> dict[str, Tensor]:
        """(1, rows, d) in its own standard deviations, by name of the space."""
        return {space: self.measured_by(self, space) for space in self.spaces}

    @cached_property
    def moments(self) -> dict[str, Tensor]:
        """(d, d) second moment of `standard`, by name of the space."""
        return {space: _moment(x) for space, x in self.standard.items()}

    def measured_by(self, other: "Points", space: str) -> Tensor:
        """(1, rows, d) in the standard deviations of another set, 10 at most."""
        x = other.units[space].transform(self.spaces[space].astype(np.float64))
        return torch.from_numpy(x.clip(-10, 10).astype(np.float32))[None]


@dataclass(frozen=True, eq=False)
class Closeness:
    """How close a source is to a target, and how this hangs on single rows.

    Attributes
    ----------
    score
        Above 0, higher is closer: that of `score` with its default weights.
    source, target
        (rows,) of either: derivative of the logarithm of the score by the weight of each row, all weights being 1
        (infinitesimal jackknife). Their squares, summed over what was sampled independently, are its variance.
    """

    score: float
    source: np.ndarray
    target: np.ndarray


def closeness(source: Points, target: Points) -> Closeness:
    """How close a source is to a target in the spaces of the target.

    Parameters
    ----------
    source, target : Points
        What is compared.

    Returns
    -------
    Closeness
        Of the source.

    Raises
    ------
    ValueError
        They share no class.
    """
    classes = np.intersect1d(source.labels, target.labels)
    if not len(classes):
        raise ValueError("shares no class with the target")
    q_s, q_t = (torch.from_numpy(side.labels[:, None] == classes).float()[None] for side in (source, target))
    logs, by_source, by_target = 0.0, np.zeros(len(source.labels)), np.zeros(len(target.labels))
    for space, x_t in target.standard.items():
        x_s = source.measured_by(target, space)
        w_s, w_t = (torch.ones(1, x.shape[1], 1, requires_grad=True) for x in (x_s, x_t))
        distance = _mean_distance(x_s, q_s * w_s, x_t, q_t * w_t).log()
        distance.backward()
        missed, of_source, of_target = _uncovered_by_rows(x_s, x_t, target.moments[space])
        logs -= float(distance.detach()) + float(np.log(missed))
        by_source -= w_s.grad.flatten().numpy() + of_source / missed
        by_target -= w_t.grad.flatten().numpy() + of_target / missed
    number = 2 * len(target.spaces)
    return Closeness(float(np.exp(logs / number)), by_source / number, by_target / number)


Side = tuple[Tensor, Tensor]  # x (1, n, d), in the target's deviations, and memberships q (1, n, classes)


def _common(source: Table, target: Table, seed: int) -> Iterator[tuple[str, Side, Side]]:
    """A space at a time: its name, the source and the target."""
    classes = [c for c in target.classes if c in source.classes]
    spaces = {
        s: common_features(_within(source, s), _within(target, s)) for s in dict.fromkeys(map(_space, target.columns))
    }
    if not classes or not any(spaces.values()):
        what = "feature" if classes else "class name"
        raise ValueError(f"{source.name} shares no {what} with {target.name}: alignment needs a common space")
    rng = np.random.default_rng(seed)
    rows = [rng.permutation(len(table))[:ROWS] for table in (source, target)]
    q_s, q_t = (
        torch.from_numpy(table.labels[r, None] == np.array(classes, dtype=object)).float()[None]
        for table, r in zip((source, target), rows)
    )
    for space, found in spaces.items():
        if found is not None:
            x_s, x_t = (torch.from_numpy(x[r])[None] for x, r in zip(found, rows))
            yield space, (x_s, q_s), (x_t, q_t)


def _space(column: str) -> str:
    return column.partition("::")[0] if "::" in column else ""


def _within(table: Table, space: str) -> Table:
    return replace(table, features=table.features[[c for c in table.columns if _space(c) == space]])


def _mean_distance(x_s: Tensor, q_s: Tensor, x_t: Tensor, q_t: Tensor) -> Tensor:
    """losses.mean_distance a feature, plus what chance alone would give; every class by its share of the target.

    If all classes counted alike, most of it would be the noise of the few rows of rare ones.
    """
    n_s, n_t = (q.sum(1)[0] for q in (q_s, q_t))
    both = (n_s > 0) & (n_t > 0)
    held = n_t * both if both.any() else n_t
    apart = (losses.class_means(x_s, q_s) - losses.class_means(x_t, q_t))[0].square().mean(1)
    chance = 1 / n_s.clamp_min(1) + 1 / n_t.clamp_min(1)
    return (apart + chance) @ held / held.sum()


def _separability(x_s: Tensor, q_s: Tensor, x_t: Tensor, q_t: Tensor, seed: int) -> float:
    """1 - BCE / log 2 of discriminators on the half of the rows that they did not learn from; at least 0.02."""
    generator = torch.Generator().manual_seed(seed)
    judges = Discriminators(1, x_t.shape[2], q_t.shape[2], generator)
    optimiser = torch.optim.AdamW(judges.parameters(), lr=RATE, weight_decay=0.1)
    with one_thread():
        for _ in range(STEPS):
            loss = losses.discrimination(judges(x_s[:, ::2]), q_s[:, ::2], judges(x_t[:, ::2]), q_t[:, ::2]).sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    with torch.no_grad():
        s, t = slice(1, None, 2), slice(1, None, 2)
        judged = losses.discrimination(judges(x_s[:, s]), q_s[:, s], judges(x_t[:, t]), q_t[:, t])
    classes = int(((q_s[:, s].sum(1) > 0) & (q_t[:, t].sum(1) > 0)).sum())
    return max(0.02, 1 - float(judged) / max(classes, 1) / float(np.log(2)))


def _uncovered(x_s: Tensor, x_t: Tensor) -> float:
    """trace((C_s + e I)^-1 C_t) / d with the second moments C of both sides, e = FLOOR trace(C_t) / d."""
    c_s, c_t = _moment(x_s), _moment(x_t)
    return float(torch.linalg.solve(c_s + _ridge(c_t), c_t).trace()) / len(c_t)


def _uncovered_by_rows(x_s: Tensor, x_t: Tensor, c_t: Tensor) -> tuple[float, np.ndarray, np.ndarray]:
    """`_uncovered`, and its derivatives by the weights of the rows of either side, e being held.

    c_t: the second moment of x_t, which is the same for all sources.
    With A = (C_s + e I)^-1, dC = (x x' - C) / n for the weight of a row x: - tr(A dC_s A C_t) / d and tr(A dC_t) / d.
    """
    c_s = _moment(x_s)
    inverse = torch.linalg.inv(c_s + _ridge(c_t))
    both = inverse @ c_t @ inverse
    value = float((inverse * c_t).sum()) / len(c_t)
    of_source = float((both * c_s).sum()) / len(c_t) - _forms(x_s, both)
    of_target = _forms(x_t, inverse) - value
    return value, of_source / x_s.shape[1], of_target / x_t.shape[1]


def _moment(x: Tensor) -> Tensor:
    """(d, d) second moment of (1, n, d), in double precision."""
    x = x[0].double()
    return x.T @ x / len(x)


def _ridge(moment: Tensor) -> Tensor:
    d = len(moment)
    return FLOOR * moment.trace() / d * torch.eye(d, dtype=moment.dtype)


def _forms(x: Tensor, matrix: Tensor) -> np.ndarray:
    """(n,) x_i' M x_i / d of the rows of (1, n, d)."""
    return ((x[0] @ matrix.float()) * x[0]).sum(1).double().numpy() / len(matrix)
