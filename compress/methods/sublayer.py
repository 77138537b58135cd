"""Sublayer pruning: whole attention and feed-forward networks go, those that cost most for what they do.

After Park et al., "Accurate Sublayer Pruning for Large Language Models by Exploiting Latency and Tunability
Information" (SPRINT), IJCAI 2025, arXiv 2506.03510: one sublayer at a time, that of the least sensitivity by latency
saved, the sensitivity measured after a neighbour has been fitted to make up for it. Here the neighbour is the next
sublayer above, fitted to the teacher by least squares, and the sensitivity the divergence of the final output.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compress.algorithms.budget import budget
from compress.algorithms.least_squares import Pair, fit
from compress.algorithms.options import Limits
from compress.algorithms.resume import Progress
from compress.algorithms.training import divergence
from compress.algorithms.traits import Needs, Traits
from compress.model.structure import Sublayer, remove, set_parameter, shallow_copy, sublayers
from compress.model.walk import Batch, masked, mean_length, row_weights, run
from transmeter.util.progress import track

# the old weights, the new ones, and those of a removal that is tried
TRAITS = Traits(Needs(models=3, matrices=4, copies=2, shrinks=True), changes="sublayers", resumes=True)
SCREENED = 8  # sublayers measured anew at every removal after the first


@torch.no_grad()
def compress(
    model: nn.Module,
    batches: Sequence[Batch],
    *,
    limits: Limits = Limits(),
    tried: int = 3,
    ridge: float = 1e-6,
    progress: Progress | None = None,
) -> nn.Module:
    """Remove sublayers until the rest keeps a limit.

    Up to one sublayer more goes than was asked for.

    Parameters
    ----------
    model
        The model, which is changed.
    batches
        Calibration texts; each entry (batch, tokens).
    limits
        What may stay, one of: share of the FLOPs of heads and neurons that goes, and size or seconds of the whole
        model.
    tried
        Number of candidates, the most promising without it, for which a neighbour is fitted at every removal; 0: no
        fit.
    ridge
        Pull of the fitted weights towards the old ones, relative to the mean squared feature.
    progress
        Where finished removals are kept; None: nowhere.

    Returns
    -------
    nn.Module
        `model`.

    Raises
    ------
    ValueError
        For an option out of range.
    RuntimeError
        What is reached misses the request.

    References
    ----------
    arXiv 2506.03510
    """
    if min(tried, ridge) < 0:
        raise ValueError(f"tried {tried} and ridge {ridge}: give at least 0 for both")
    teacher = shallow_copy(model)
    limit = budget(model, mean_length(batches), limits, "sublayer", progress)
    if limit.allowed >= limit.dense:
        return model
    costs = {s.output: s.units * c for s, c in zip(limit.found, limit.costs)}
    step = progress.restore(model) if progress else 0
    known: dict[str, float] = {}  # the last sensitivity measured, which mostly is less than it would be now
    while (over := limit.left(model) - limit.allowed) > 1e-9 * limit.dense:
        found = sublayers(model)
        # saving more than is still needed is worth nothing
        saved = [min(costs[s.output], over) for s in found]
        order = sorted(range(len(found)), key=lambda i: known.get(found[i].output, 0.0) / saved[i])
        screened = [s for i, s in enumerate(found) if i in order[:SCREENED] or s.output not in known]
        now, *without = sensitivities(teacher, model, screened, batches)
        known |= {s.output: value - now for s, value in zip(screened, without)}
        order.sort(key=lambda i: known[found[i].output] / saved[i])
        trials = {i: _mended(teacher, model, found[i:], batches, ridge) for i in order[:tried]}
        best = min(trials, key=lambda i: (trials[i][0] - now) / saved[i]) if tried else order[0]
        remove(model, found[best], torch.zeros(found[best].units, dtype=torch.bool))
        fitted = trials[best][1] if tried else {}
        for name, value in fitted.items():
            set_parameter(model, name, value)
        if progress:
            progress.keep(step, model, sorted({s.block for s in found[best : best + 2]}))
        step += 1
    limit.require(model)
    return model


@torch.no_grad()
def sensitivities(
    teacher: nn.Module, student: nn.Module, found: Sequence[Sublayer], batches: Sequence[Batch]
) -> list[float]:
    """Mean divergence of the student's output from the teacher's.

    Parameters
    ----------
    teacher
        The teacher.
    student
        The student.
    found
        Sublayers of the student.
    batches
        Calibration texts.

    Returns
    -------
    list of float
        As it is, and without each sublayer.
    """
    totals = [0.0] * (len(found) + 1)
    for batch in track(batches, "Sensitivity of sublayers"):
        wanted, at, hidden = run(teacher, batch).float(), 0, run(student, batch, stop=0)
        weights = row_weights(student, wanted, batch)
        totals[0] += float(divergence(run(student, batch, hidden=hidden).float(), wanted, weights, 1.0).sum())
        for i, sub in enumerate(found):
            if sub.block != at:
                at, hidden = sub.block, run(student, batch, at, sub.block, hidden)
            with masked(student, [sub], [hidden.new_zeros(len(hidden), sub.units)]):
                logits = run(student, batch, at, hidden=hidden).float()
            totals[i + 1] += float(divergence(logits, wanted, weights, 1.0).sum())
    return [total / sum(len(b["input_ids"]) for b in batches) for total in totals]


def _mended(
    teacher: nn.Module, student: nn.Module, found: Sequence[Sublayer], batches: Sequence[Batch], ridge: float
) -> tuple[float, dict[str, Tensor]]:
    """Mean divergence without the first sublayer of `found`, the second one fitted to the teacher, and its weights."""
    trial, fitted = shallow_copy(student), {}
    remove(trial, found[0], torch.zeros(found[0].units, dtype=torch.bool))
    if len(found) > 1:
        pair = Pair(teacher, trial, batches)
        pair.advance(found[1].block)
        fitted = fit(pair, found[1], torch.ones(found[1].units, dtype=torch.bool), ridge)
        for name, value in fitted.items():
            set_parameter(trial, name, value)
    return sensitivities(teacher, trial, [], batches)[0], fitted
