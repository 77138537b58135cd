"""Magnitude pruning: what has small weights goes, without looking at data. The baseline of every comparison.

unit=structured removes heads and neurons, those of the smallest mean squared weight first, over all layers;
unit=weights sets single weights to zero, layer by layer (Han et al., NeurIPS 2015, arXiv 1506.02626).
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from compress.algorithms.budget import best, budget, select, uniform_counts
from compress.algorithms.options import UnitLimits
from compress.algorithms.sparsity import sparsity_for
from compress.algorithms.traits import Needs, Traits
from compress.model.shapes import record
from compress.model.structure import Sublayer, block_linears, remove, set_parameter
from compress.model.walk import Batch, mean_length
from transmeter.util import heap

# topk of a whole layer at once
TRAITS = Traits(Needs(models=1, states=0, gradients=False, matrices=0, copies=14), changes="units")


@torch.no_grad()
def compress(
    model: nn.Module,
    batches: Sequence[Batch],
    *,
    limits: UnitLimits = UnitLimits(),
    unit: Literal["structured", "weights"] = "structured",
    pattern: str | None = None,
) -> nn.Module:
    """Remove the smallest heads and neurons, or single weights.

    Parameters
    ----------
    model
        The model, which is changed.
    batches
        Give only the mean sequence length that FLOPs are counted at.
    limits
        What may stay, one of: share of the FLOPs of heads and neurons that goes, and size or seconds of the whole
        model; and with shape=uniform the same number of units in every layer, so that a plain model is left.
    unit
        structured: heads and neurons go; weights: a share of the weights of every layer becomes zero.
    pattern
        With unit=weights, instead of a ratio N:M: N of every M consecutive inputs stay.

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
    arXiv 1506.02626
    """
    if unit == "weights" and limits != UnitLimits(limits.ratio):
        raise ValueError("unit=weights takes only ratio or pattern: what goes is a share of each layer's weights")
    if unit == "structured" and pattern is not None:
        raise ValueError(f"pattern {pattern} is of single weights: give unit=weights with it")
    if unit == "weights":
        sparsity = sparsity_for(model, limits.ratio, pattern)
        for block in range(model.config.num_hidden_layers):
            for path, linear in block_linears(model, block):
                set_parameter(model, f"{path}.weight", sparsity.zero(linear.weight, linear.weight.abs().view(1, -1)))
            heap.trim()  # what the choice took lies in pieces between the new weights
        return model
    limit = budget(model, mean_length(batches), limits)
    scores = [_mean_square(model, s) for s in limit.found]
    if limit.shapes:
        kept = [best(s, count) for s, count in zip(scores, uniform_counts(scores, limit))]
    else:
        kept = select(scores, limit.costs, limit.allowed, limit.multiples)
    for sub, keep in zip(limit.found, kept):
        remove(model, sub, keep)
    limit.require(model)
    if limit.shapes:
        record(model)
    return model


def _mean_square(model: nn.Module, sub: Sublayer) -> Tensor:
    """Mean squared weight of every unit, (units,), over the rows that produce it and the columns behind it."""
    total = model.get_submodule(sub.output).weight.square().sum(0).view(sub.units, -1).sum(1)
    for path, parts in sub.producers.items():
        squares = model.get_submodule(path).weight.square().sum(1)
        for rows in squares.split([sub.units * part for part in parts]):
            total = total + rows.view(sub.units, -1).sum(1)
    return total / (sub.width * (sub.rows + sub.columns))
