"""Magnitude pruning: what has small weights goes, without looking at data. The baseline of every comparison.

unit=structured removes heads and neurons, those of the smallest mean squared weight first, over all layers;
unit=weights sets single weights to zero, layer by layer (Han et al., NeurIPS 2015, arXiv 1506.02626).
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from compress.algorithms.budget import Limits, budget, select
from compress.algorithms.memory import Needs
from compress.algorithms.sparsity import wanted
from compress.model.structure import Sublayer, block_linears, remove, set_parameter, shallow_copy, unshare
from compress.model.walk import Batch, mean_length

NEEDS = Needs(models=1, streams=0, gradients=False, matrices=0, copies=38)  # topk of a whole layer at once


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
    pattern: str | None = None,
    in_place: bool = False,
) -> nn.Module:
    """Remove heads and neurons down to a budget (algorithms.budget), or with unit=weights the share `ratio` of weights.

    pattern: with unit=weights instead of a ratio, N:M, N of every M consecutive inputs stay. batches give only the mean
    sequence length that FLOPs are counted at. Raises ValueError for an option out of range or an unknown unit,
    RuntimeError when what is reached misses the request.
    """
    limits = Limits(ratio, parameters, bytes, latency, multiple)
    if unit not in ("structured", "weights"):
        raise ValueError(f"unit '{unit}' is unknown: give structured or weights")
    if unit == "weights" and limits != Limits(ratio):
        raise ValueError("unit=weights takes only ratio or pattern: what goes is a share of each layer's weights")
    if unit == "structured" and pattern is not None:
        raise ValueError(f"pattern {pattern} is of single weights: give unit=weights with it")
    student = model if in_place else shallow_copy(model)
    if unit == "weights":
        sparsity = wanted(model, ratio, pattern)
        for block in range(model.config.num_hidden_layers):
            for path, linear in block_linears(student, block):
                set_parameter(student, f"{path}.weight", sparsity.zero(linear.weight, linear.weight.abs().view(1, -1)))
        return unshare(student, model)
    limit = budget(model, mean_length(batches), limits)
    scores = [_mean_square(student, s) for s in limit.found]
    for sub, keep in zip(limit.found, select(scores, limit.costs, limit.allowed, limit.multiples)):
        remove(student, sub, keep)
    limit.require(student)
    return unshare(student, model)


def _mean_square(model: nn.Module, sub: Sublayer) -> Tensor:
    """Mean squared weight of every unit, (units,), over the rows that produce it and the columns behind it."""
    total = model.get_submodule(sub.output).weight.square().sum(0).view(sub.units, -1).sum(1)
    for path in sub.producers:
        rows = model.get_submodule(path).weight.square().sum(1)
        total = total + rows.view(sub.parts, sub.units, -1).sum((0, 2))
    return total / (sub.width * (sub.parts * sum(sub.producers.values()) + sub.columns))
