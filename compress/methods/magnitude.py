"""Magnitude pruning: what has small weights goes, without looking at data. The baseline of every comparison.

unit=structured removes heads and neurons, those of the smallest mean squared weight first, over all layers;
unit=weights sets single weights to zero, layer by layer (Han et al., NeurIPS 2015, arXiv 1506.02626).
"""

import copy
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from compress.structure import Sublayer, block_linears, check_ratio, flops, remove, require_flops, select, sublayers
from compress.walk import Batch, mean_length


@torch.no_grad()
def compress(
    model: nn.Module,
    batches: Sequence[Batch],
    *,
    ratio: float = 0.5,
    unit: Literal["structured", "weights"] = "structured",
    in_place: bool = False,
) -> nn.Module:
    """Remove the share `ratio`: of the FLOPs of heads and neurons (structured), or of each layer's weights.

    batches give only the mean sequence length that FLOPs are counted at. Raises ValueError for a ratio outside [0, 1)
    or an unknown unit, RuntimeError when what is reached misses the request.
    """
    check_ratio(ratio)
    if unit not in ("structured", "weights"):
        raise ValueError(f"unit '{unit}' is unknown: give structured or weights")
    student = model if in_place else copy.deepcopy(model)
    if unit == "weights":
        for block in range(model.config.num_hidden_layers):
            for _, linear in block_linears(student, block):
                zero_smallest(linear.weight, linear.weight.abs().flatten()[None], ratio)
        return student
    tokens = mean_length(batches)
    dense = flops(student, tokens)
    found = sublayers(student)
    scores, costs = [_mean_square(student, s) for s in found], [s.unit_flops(tokens) for s in found]
    for sub, keep in zip(found, select(scores, costs, (1 - ratio) * dense)):
        remove(student, sub, keep)
    require_flops(flops(student, tokens), dense, max(costs), ratio)
    return student


def zero_smallest(weight: Tensor, scores: Tensor, ratio: float) -> None:
    """Set the share `ratio` of lowest score to zero in every row of scores (groups, size), in place on `weight`."""
    drop = round(ratio * scores.shape[1])
    lowest = scores.argsort(dim=1, stable=True)[:, :drop]
    weight.data.view(scores.shape).scatter_(1, lowest, 0.0)
    zeros = float((weight == 0).double().mean()) if weight.numel() else ratio
    if zeros < drop / max(scores.shape[1], 1) - 1e-9:
        raise RuntimeError(f"sparsity: {zeros:.4f} reached, {ratio:.4f} requested")


def _mean_square(model: nn.Module, sub: Sublayer) -> Tensor:
    """Mean squared weight of every unit, (units,), over the rows that produce it and the columns behind it."""
    total = model.get_submodule(sub.output).weight.square().sum(0).view(sub.units, -1).sum(1)
    for path in sub.producers:
        total = total + model.get_submodule(path).weight.square().sum(1).view(sub.units, -1).sum(1)
    return total / (sub.width * (sum(sub.producers.values()) + sub.columns))
