"""Magnitude pruning: what has small weights goes, without looking at data. The baseline of every comparison.

unit=structured removes heads and neurons, those of the smallest mean squared weight first, over all layers;
unit=weights sets single weights to zero, layer by layer (Han et al., NeurIPS 2015, arXiv 1506.02626).
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from compress.budget import Limits, budget, select
from compress.structure import Sublayer, block_linears, fork, own, place, remove
from compress.walk import Batch, mean_length


@torch.no_grad()
def compress(
    model: nn.Module,
    batches: Sequence[Batch],
    *,
    ratio: float | None = None,
    parameters: int | None = None,
    bytes: int | None = None,
    latency: float | None = None,
    multiple: int = 1,
    unit: Literal["structured", "weights"] = "structured",
    in_place: bool = False,
) -> nn.Module:
    """Remove heads and neurons down to a budget (compress.budget), or with unit=weights the share `ratio` of weights.

    batches give only the mean sequence length that FLOPs are counted at. Raises ValueError for an option out of range
    or an unknown unit, RuntimeError when what is reached misses the request.
    """
    limits = Limits(ratio, parameters, bytes, latency, multiple)
    if unit not in ("structured", "weights"):
        raise ValueError(f"unit '{unit}' is unknown: give structured or weights")
    if unit == "weights" and limits != Limits(ratio):
        raise ValueError("unit=weights takes only ratio: what goes is a share of each layer's weights")
    student = model if in_place else fork(model)
    if unit == "weights":
        for block in range(model.config.num_hidden_layers):
            for path, linear in block_linears(student, block):
                size = linear.weight.abs().view(1, -1)
                place(student, f"{path}.weight", smallest_zero(linear.weight, size, limits.share))
        return own(student, model)
    limit = budget(model, mean_length(batches), limits)
    scores = [_mean_square(student, s) for s in limit.found]
    for sub, keep in zip(limit.found, select(scores, limit.costs, limit.allowed, limit.multiples)):
        remove(student, sub, keep)
    limit.require(student)
    return own(student, model)


def smallest_zero(weight: Tensor, scores: Tensor, ratio: float) -> Tensor:
    """`weight` (out, in) with the share `ratio` of lowest score set to zero in every row of scores (groups, size)."""
    drop = round(ratio * scores.shape[1])
    lowest = scores.argsort(dim=1, stable=True)[:, :drop]
    pruned = weight.reshape(scores.shape).scatter(1, lowest, 0.0).view_as(weight)
    zeros = float((pruned == 0).double().mean()) if weight.numel() else ratio
    if zeros < drop / max(scores.shape[1], 1) - 1e-9:
        raise RuntimeError(f"sparsity: {zeros:.4f} reached, {ratio:.4f} requested")
    return pruned


def _mean_square(model: nn.Module, sub: Sublayer) -> Tensor:
    """Mean squared weight of every unit, (units,), over the rows that produce it and the columns behind it."""
    total = model.get_submodule(sub.output).weight.square().sum(0).view(sub.units, -1).sum(1)
    for path in sub.producers:
        rows = model.get_submodule(path).weight.square().sum(1)
        total = total + rows.view(sub.parts, sub.units, -1).sum((0, 2))
    return total / (sub.width * (sub.parts * sum(sub.producers.values()) + sub.columns))
