"""Fast post-training pruning: heads and neurons chosen by the Fisher information of their masks, which are then tuned.

Kwon et al., "A Fast Post-Training Pruning Framework for Transformers", NeurIPS 2022, arXiv 2204.09656: mask search by
the diagonal Fisher (their Algorithm 1), rearrangement within each sublayer by the block Fisher, and least squares for
the values of the masks left. The baseline that K-prune is measured against.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.algorithms.budget import Budget, best, budget, select, uniform_counts
from compress.algorithms.fisher import curvature_probe
from compress.algorithms.least_squares import Pair, least_squares, normal_equations
from compress.algorithms.options import UnitLimits
from compress.algorithms.traits import Needs, Traits
from compress.model.shapes import record
from compress.model.structure import Sublayer, remove, set_parameter, shallow_copy
from compress.model.walk import Batch, frozen, masked, mean_length, row_weights, run
from transmeter.util.progress import track

TRAITS = Traits(Needs(matrices=4, copies=2, shrinks=True), changes="units")
LARGEST = 10.0  # of a tuned mask; beyond it least squares has lost its hold, and tuning ends (their section 4.3)


def compress(
    model: nn.Module,
    batches: Sequence[Batch],
    *,
    limits: UnitLimits = UnitLimits(),
    rearrange: bool = True,
    tune: bool = True,
    ridge: float = 1e-3,
    seed: int = 0,
) -> nn.Module:
    """Remove heads and neurons until the rest keeps a limit.

    Parameters
    ----------
    model
        The model, which is changed.
    batches
        Calibration texts; each entry (batch, tokens), perhaps with class ids (batch,) under "labels".
    limits
        What may stay, one of: share of the FLOPs of heads and neurons that goes, and size or seconds of the whole
        model; and with shape=uniform the same number of units in every layer, so that a plain model is left.
    rearrange
        Whether units are swapped within a sublayer by the block Fisher.
    tune
        Whether the values of the masks are fitted.
    ridge
        Pull of the mask values towards 1, relative to the mean squared effect of a unit.
    seed
        Seed of the labels drawn from the model where the batches bring none.

    Returns
    -------
    nn.Module
        `model`.

    Raises
    ------
    ValueError
        For an option out of range, and labels that do not fit.
    RuntimeError
        What is reached misses the request.

    References
    ----------
    arXiv 2204.09656
    """
    if ridge < 0:
        raise ValueError(f"ridge {ridge} is out of range: give at least 0")
    teacher = shallow_copy(model)
    limit = budget(model, mean_length(batches), limits)
    if limit.allowed >= limit.dense:
        return model
    gradients = mask_gradients(teacher, batches, limit.found, seed)
    importance = [g.double().square().sum(0) for g in gradients]
    if limit.shapes:
        scores = [i / c for i, c in zip(importance, limit.costs)]
        kept = [best(i, count) for i, count in zip(importance, uniform_counts(scores, limit))]
    else:
        kept = search(importance, limit)
    if rearrange:
        kept = [swapped(g, keep) for g, keep in zip(gradients, kept)]
    pair = Pair(teacher, model, batches)
    for sub, keep in zip(track(limit.found, "Kwon et al."), kept):
        values = None
        if tune:
            pair.advance(sub.block)
            values = tuned(pair, sub, keep, ridge)
            tune = bool((values.abs() <= LARGEST).all())
        remove(model, sub, keep)
        if tune and keep.any():
            weight = model.get_submodule(sub.output).weight
            set_parameter(
                model, f"{sub.output}.weight", weight.detach() * values.repeat_interleave(sub.columns).to(weight)
            )
    limit.require(model)
    if limit.shapes:
        record(model)
    return model


def mask_gradients(model: nn.Module, batches: Sequence[Batch], found: Sequence[Sublayer], seed: int) -> list[Tensor]:
    """Gradients of the loss of every sample to the masks of the units.

    Parameters
    ----------
    model
        The model.
    batches
        Calibration texts.
    found
        The sublayers.
    seed
        Of random draws.

    Returns
    -------
    list of Tensor
        (samples, units) a sublayer, on the CPU. The loss is the cross entropy of the labels, or where a batch has
        none the probe of the model's own Fisher information.
    """
    generator = torch.Generator(model.device).manual_seed(seed)
    gradients: list[list[Tensor]] = [[] for _ in found]
    for batch in batches:
        masks = [torch.ones(len(batch["input_ids"]), s.units, device=model.device).requires_grad_() for s in found]
        with frozen(model), masked(model, found, masks):  # also while a model that streams runs its blocks anew
            logits = run(model, batch).float()
            if "labels" in batch:
                loss = _task_loss(logits, batch["labels"])
            else:
                loss = curvature_probe(logits, row_weights(model, logits, batch), 1.0, generator)
            taken = torch.autograd.grad(loss.sum(), masks)
        for rows, gradient in zip(gradients, taken):
            rows.append(gradient.cpu())
    return [torch.cat(rows) for rows in gradients]


def _task_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy, or squared error where there is one class, of logits (batch, 1, classes): (batch,)."""
    if labels.shape != logits.shape[:1] or logits.shape[1] != 1:
        raise ValueError(
            f"labels of shape {tuple(labels.shape)} for {len(logits)} sequences of {logits.shape[1]} outputs each: "
            "give one label a sequence to a model that classifies sequences, or leave labels out"
        )
    if logits.shape[-1] == 1:
        return (logits[:, 0, 0] - labels).square()
    return F.cross_entropy(logits[:, 0], labels.long(), reduction="none")


def search(importance: Sequence[Tensor], limit: Budget) -> list[Tensor]:
    """The units of most importance that a budget allows (Algorithm 1).

    Parameters
    ----------
    importance
        (units,) a sublayer.
    limit
        The budget.

    Returns
    -------
    list of Tensor
        Boolean (units,) a sublayer. Tries every number of heads, the most important of all layers first, and fills
        what each leaves of the budget with neurons.
    """
    scores = [i / c for i, c in zip(importance, limit.costs)]
    heads = [i for i, s in enumerate(limit.found) if s.kind == "attention"]
    pooled = sorted(((-score, i, u) for i in heads for u, score in enumerate(scores[i].tolist())), reverse=True)
    forced = [torch.full_like(score, float("inf")) if i in heads else score for i, score in enumerate(scores)]
    spent = sum(limit.costs[i] * len(scores[i]) for i in heads)
    least, chosen = float("inf"), []
    for number in range(len(pooled), -1, -1):  # of heads; those left out, by importance, score lower than any neuron
        if spent <= limit.allowed:
            kept = select(forced, limit.costs, limit.allowed, limit.multiples)
            removed = sum(float(i[~k].sum()) for i, k in zip(importance, kept))
            if removed < least:
                least, chosen = removed, kept
        if number:
            _, i, u = pooled.pop(0)
            forced[i][u] = -float("inf")
            spent -= limit.costs[i]
    return chosen


def swapped(gradients: Tensor, keep: Tensor) -> Tensor:
    """Swap units one by one while that lowers the loss of the block Fisher.

    Parameters
    ----------
    gradients
        (samples, units); the loss of removing the units R is |sum_R g|^2.
    keep
        (units,): the units that stay.

    Returns
    -------
    Tensor
        As many units, (units,).
    """
    g, removed = gradients.double().T, (~keep).nonzero().squeeze(1).tolist()
    squares = g.square().sum(1)
    total = g[removed].sum(0)
    for unit in sorted(keep.nonzero().squeeze(1).tolist(), key=squares.tolist().__getitem__):
        candidates = torch.tensor([*removed, unit])
        # |total + g_unit - g_i|^2 without what all i share
        loss = squares[candidates] - 2 * g[candidates] @ (total + g[unit])
        back = int(loss.argmin())
        if removed and loss[back] < loss[-1]:
            total += g[unit] - g[removed[back]]
            removed[back] = unit
    kept = torch.ones_like(keep)
    kept[removed] = False
    return kept


def tuned(pair: Pair, sub: Sublayer, keep: Tensor, ridge: float) -> Tensor:
    """Values of the masks that bring the student's output nearest to the teacher's.

    Parameters
    ----------
    pair
        Teacher and student.
    sub
        The sublayer.
    keep
        (units,): the units that stay.
    ridge
        Pull towards the old values, relative to the mean of the diagonal.

    Returns
    -------
    Tensor
        (kept,) that minimise |(X_T + Sub_T(X_T)) - X_S - b - sum_u m_u A_u W_u^T|^2 over real tokens, from the normal
        equations of the output weights: those of m are their products with W, summed over the columns of a head.
    """
    output, kept = pair.student.get_submodule(sub.output), keep.repeat_interleave(sub.columns)
    weight = output.weight.detach()[:, kept].double()  # (width, features)
    gram, right, gain = normal_equations(pair, sub, keep)
    weight = weight * gain[:, None]
    gram, ones, right = gram[:-1, :-1], gram[:-1, -1:], right[:-1]
    if output.bias is not None:
        right = right - ones * output.bias.detach().double() * gain
    gram, right = gram * (weight.T @ weight), (right * weight.T).sum(1)
    units = int(keep.sum())
    gram = gram.view(units, sub.columns, units, sub.columns).sum((1, 3))
    right = right.view(units, sub.columns).sum(1, keepdim=True)
    return least_squares(gram, right, torch.ones_like(right), ridge).squeeze(1)
