"""Alignment: how close source and target lie in a feature space that they share, class by class. No labels gained.

Three terms of Transmeter's loss taken as measures (arXiv 1912.13366, reconstructed): the label-wise mean distance,
how well label-wise discriminators tell source from target, and how much of the target is lost when reconstructed from
the source's directions, trace((C_s + e I)^-1 C_t) / d. The score is the inverse of their geometric mean, so that no
unit outweighs another. Columns named SPACE::NUMBER, such as the hidden states of several layers, are measured space by
space, and all terms joined. Range: above 0, higher is closer; for features of one model, such as hidden states.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
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
    for space, _, (x_s, q_s), _, (x_t, q_t) in _common(source, target, seed):
        for term in wanted:
            if term == "mean_distance":
                found[space, term] = float(_mean_distance(x_s, q_s, x_t, q_t))
            elif term == "separability":
                found[space, term] = _separability(x_s, q_s, x_t, q_t, seed)
            else:
                found[space, term] = float(_uncovered(x_s, x_t))
    return found


def influence(source: Table, target: Table, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """How the score of the default weights hangs on single rows: the infinitesimal jackknife.

    The squares of the influences, summed over what was sampled independently, are the variance of the score's
    logarithm.

    Parameters
    ----------
    source, target : Table
        What is compared.
    seed : int
        Seed of the rows.

    Returns
    -------
    tuple of numpy.ndarray
        (source rows,) and (target rows,): derivative of the logarithm of the score by the weight of each row, all
        weights being 1; 0 for rows that are not looked at.
    """
    found, number = (np.zeros(len(source)), np.zeros(len(target))), 0
    for _, rows_s, (x_s, q_s), rows_t, (x_t, q_t) in _common(source, target, seed):
        w_s, w_t = (torch.ones(1, x.shape[1], 1, requires_grad=True) for x in (x_s, x_t))
        distance = _mean_distance(x_s, q_s * w_s, x_t, q_t * w_t)
        missed = _uncovered(*(x * (w / w.mean()).sqrt() for x, w in ((x_s, w_s), (x_t, w_t))))
        (-(distance.log() + missed.log()) / 2).backward()
        for total, rows, weight in zip(found, (rows_s, rows_t), (w_s, w_t)):
            total[rows] += weight.grad.flatten().numpy()
        number += 1
    return found[0] / number, found[1] / number


Side = tuple[Tensor, Tensor]  # x (1, n, d), in the target's deviations, and memberships q (1, n, classes)


def _common(source: Table, target: Table, seed: int) -> Iterator[tuple[str, np.ndarray, Side, np.ndarray, Side]]:
    """A space at a time: its name, the rows of the source and their features, and those of the target."""
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
            yield space, rows[0], (x_s, q_s), rows[1], (x_t, q_t)


def _space(column: str) -> str:
    return column.partition("::")[0] if "::" in column else ""


def _within(table: Table, space: str) -> Table:
    return replace(table, features=table.features[[c for c in table.columns if _space(c) == space]])


def _mean_distance(x_s: Tensor, q_s: Tensor, x_t: Tensor, q_t: Tensor) -> Tensor:
    """losses.mean_distance a class and feature, plus what chance alone would give."""
    classes = int(((q_s.sum(1) > 0) & (q_t.sum(1) > 0)).sum())
    chance = 1 / q_s.sum(1).clamp_min(1) + 1 / q_t.sum(1).clamp_min(1)
    return losses.mean_distance(x_s, q_s, x_t, q_t)[0] / max(classes, 1) / x_t.shape[2] + chance.mean()


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


def _uncovered(x_s: Tensor, x_t: Tensor, floor: float = 0.1) -> Tensor:
    """trace((C_s + e I)^-1 C_t) / d with the second moments C of both sides, e = floor * trace(C_t) / d."""
    x_s, x_t = x_s[0].double(), x_t[0].double()
    c_s, c_t = x_s.T @ x_s / len(x_s), x_t.T @ x_t / len(x_t)
    d = len(c_t)
    ridge = floor * c_t.detach().trace() / d * torch.eye(d, dtype=torch.float64)
    return torch.linalg.solve(c_s + ridge, c_t).trace() / d
