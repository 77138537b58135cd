"""K-prune: retraining-free removal of attention heads and neurons that preserves the teacher's knowledge.

Park, Choi, Kang, "Accurate Retraining-free Pruning for Pretrained Encoder-based Language Models", ICLR 2024,
arXiv 2308.03449. Sublayer by sublayer, bottom to top: search the mask of this sublayer and all above it against the
remaining FLOPs by the knowledge in every unit, commit this sublayer alone, and fit its output weights to the teacher by
least squares. Needs no labels.

Three deviations, all measured (benchmarks/prune_quality.py, benchmarks/kprune_measurements.py): knowledge is measured
once, not anew on the partly pruned student for every sublayer, which iterative=true does; a head has one mask, not one
a dimension; and the predictive knowledge is the curvature of the divergence, not its squared gradient, which is zero as
long as the student still is the teacher and mostly noise while it is close. knowledge=gradient is the paper's.
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from compress.algorithms.budget import best, budget, select, uniform_counts
from compress.algorithms.fisher import curvature_probe
from compress.algorithms.least_squares import Pair, fit, gains
from compress.algorithms.options import UnitLimits
from compress.algorithms.resume import Progress
from compress.algorithms.training import divergence
from compress.algorithms.traits import Needs, Traits
from compress.model.shapes import record
from compress.model.structure import Sublayer, remove, set_parameter, shallow_copy, sublayers
from compress.model.walk import (
    Batch,
    frozen,
    inputs,
    masked,
    mean_length,
    row_weights,
    run,
    sums_of_squares,
    warn_of_few_tokens,
)
from transmeter.util.progress import track

TRAITS = Traits(Needs(states=3, matrices=4, copies=2, shrinks=True), changes="units", resumes=True)


def compress(
    model: nn.Module,
    batches: Sequence[Batch],
    *,
    limits: UnitLimits = UnitLimits(),
    knowledge: Literal["curvature", "gradient"] = "curvature",
    temperature: float = 2.0,
    predictive: float = 1.0,
    representational: float = 2.5e-4,
    ridge: float = 1e-6,
    tune: bool = True,
    iterative: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> nn.Module:
    """Remove heads and neurons until the rest keeps a limit.

    Parameters
    ----------
    model
        The model, which is changed.
    batches
        Calibration texts; each entry (batch, tokens).
    limits
        What may stay, one of: share of the FLOPs of heads and neurons that goes, and size or seconds of the whole
        model; and with shape=uniform the same number of units in every layer, so that a plain model is left.
    knowledge
        How the predictive knowledge is measured.
    temperature
        Temperature gamma of the predictive knowledge.
    predictive
        Weight of the predictive knowledge.
    representational
        Weight of the representational knowledge.
    ridge
        Pull of the tuned weights towards the old ones, relative to the mean squared feature.
    tune
        Whether the output weights are fitted.
    iterative
        Whether knowledge is measured anew for every sublayer, as in the paper; else once.
    seed
        Seed of the labels that curvature draws.
    progress
        Where finished sublayers and what was measured are kept; None: nowhere.

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
    arXiv 2308.03449
    """
    if temperature <= 0 or min(predictive, representational, ridge) < 0:
        raise ValueError("temperature must be above 0; predictive, representational and ridge at least 0")
    if knowledge == "gradient" and not iterative:
        raise ValueError("knowledge=gradient is zero until something is cut: give iterative=true with it")
    teacher = shallow_copy(model)
    limit = budget(model, mean_length(batches), limits, progress=progress)
    if limit.allowed >= limit.dense:
        return model
    if tune:
        warn_of_few_tokens(batches, max(s.units * s.columns for s in limit.found))
    end = model.config.num_hidden_layers - 1
    with torch.no_grad():
        last = [run(teacher, b, stop=end) if knowledge == "gradient" else None for b in batches]
    pair = Pair(teacher, model, batches)

    def score(index: int) -> list[Tensor]:
        """Knowledge over cost of the units of every sublayer from number `index` on, each (units,)."""
        draws = torch.Generator(model.device).manual_seed(seed * 1009 + index) if knowledge == "curvature" else None
        with frozen(model):
            measured = _knowledge(pair, last, limit.found[index:], temperature, draws)
        return [(predictive * p + representational * r) / c for (p, r), c in zip(measured, limit.costs[index:])]

    def first() -> list[list[float]]:
        return [scores.tolist() for scores in score(0)]

    at_first: list[Tensor] = []  # scores before anything is cut
    if limit.shapes or not iterative:
        found = progress.once("scores", first) if progress else first()
        at_first = [torch.tensor(scores, dtype=torch.float64) for scores in found]
    counts = uniform_counts(at_first, limit) if limit.shapes else None
    done = progress.restore(model) if progress else 0
    units = {s.output: s.units for s in sublayers(model)}
    allowed, changed = limit.allowed, False
    for index, sub in enumerate(track(limit.found, "K-prune")):
        costs = limit.costs[index:]
        if index < done:
            kept = units.get(sub.output, 0)
            allowed, changed = allowed - kept * costs[0], changed or kept < sub.units
            continue
        pair.advance(sub.block)
        scores = score(index) if iterative else at_first[index:]
        if counts:
            keep = best(scores[0], counts[index])
        else:
            keep = select(scores, costs, allowed, limit.multiples[index:])[0]
        changed = changed or not bool(keep.all())
        for name, value in (fit(pair, sub, keep, ridge) if changed and tune else {}).items():
            set_parameter(model, name, value)
        remove(model, sub, keep)
        allowed -= int(keep.sum()) * costs[0]
        if progress:
            progress.keep(index, model, [sub.block])
    limit.require(model)
    if limit.shapes:
        record(model)
    return model


def _knowledge(
    pair: Pair,
    last: Sequence[Tensor | None],
    remaining: Sequence[Sublayer],
    temperature: float,
    generator: torch.Generator | None,
) -> list[tuple[Tensor, Tensor]]:
    """(predictive, representational) knowledge, each (units,), of every remaining sublayer.

    K_pred = mean over samples of 1/2 (dQ/dm)^2, m the mask of a unit on the input of its output projection; Q is the
    divergence from the teacher, or with a generator the probe of its curvature; last: what enters the last block of
    the teacher, where there is no generator. K_rep = mean over real tokens of a^2, times the mean squared weight behind
    it, summed over the dimensions of a head; the weight counts as it reaches the residual stream, behind a multiplier
    or a norm, whose root mean square is the mean one.
    """
    outputs = [pair.student.get_submodule(s.output) for s in remaining]
    predictive = [torch.zeros(s.units, dtype=torch.float64) for s in remaining]
    paths = [s.output for s in remaining] + [s.norm for s in remaining if s.norm]
    squares: dict[str, Tensor] = {}  # of what enters these modules
    samples = sum(len(b["input_ids"]) for b in pair.batches)
    tokens = sum(int(b["attention_mask"].sum()) for b in pair.batches)
    for batch, hidden, entered in zip(pair.batches, pair.student_in, last):
        masks = [hidden.new_ones(len(hidden), s.units).requires_grad_() for s in remaining]
        squared = partial(sums_of_squares, batch)
        with inputs(pair.student, paths, squared) as seen:
            with masked(pair.student, remaining, masks):
                logits = run(pair.student, batch, remaining[0].block, hidden=hidden).float()
                weights = row_weights(pair.student, logits, batch)
                if generator is None:
                    with torch.no_grad():
                        end = pair.student.config.num_hidden_layers - 1
                        target = run(pair.teacher, batch, end, hidden=entered).float()
                    loss = divergence(logits, target, weights, temperature)
                else:
                    loss = curvature_probe(logits, weights, temperature, generator)
                gradients = torch.autograd.grad(loss.sum(), masks)
        for total, gradient in zip(predictive, gradients):
            total += 0.5 * gradient.double().square().sum(0).cpu()
        squares = {path: squares.get(path, 0.0) + seen[path].double() for path in paths}
    found = []
    for sub, projection, pred in zip(remaining, outputs, predictive):
        weight = projection.weight.detach().double() * gains(pair.student, sub)[:, None]
        if sub.norm:
            weight = weight / (squares[sub.norm].mean() / tokens).sqrt()
        rep = squares[sub.output] / tokens * weight.square().mean(0)
        found.append((pred / samples, rep.view(sub.units, -1).sum(1).cpu()))
    return found
