"""How many single weights of a linear layer go to zero, and which: a share of them, or all but N of every M (N:M)."""

import math
import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compress.algorithms.options import check_ratio
from compress.model.structure import block_linears


@dataclass(frozen=True)
class Sparsity:
    """The share of a layer's weights that is to be zero.

    Attributes
    ----------
    ratio
        The share.
    group
        It is that of every so many consecutive inputs of an output, the M of N:M; None: of the layer.
    """

    ratio: float
    group: int | None = None

    def zero(self, weight: Tensor, scores: Tensor) -> Tensor:
        """`weight` (out, in) with the lowest of every row of `scores` at zero; scores (rows, size), out * in in all.

        Raises RuntimeError when what is reached misses the request.
        """
        rows = scores.reshape(-1, self.group) if self.group else scores
        mask = lowest(rows, round(self.ratio * rows.shape[1]))
        pruned = weight.masked_fill(mask.view_as(weight), 0.0)
        self.require(pruned)
        return pruned

    def require(self, weight: Tensor) -> None:
        """Raise RuntimeError unless `weight` (out, in) has that share of zeros, in whole weights of every row, or in
        every group."""
        if not weight.numel():
            return
        zero = weight == 0
        if self.group:
            reached = float(zero.view(-1, self.group).double().mean(1).min())
            missed = reached < self.ratio - 1e-9
        else:
            reached = float(zero.double().mean())
            missed = reached < self.ratio - 0.5 / weight.shape[1] - 1e-9
        if missed:
            raise RuntimeError(f"sparsity: {reached:.4f} reached, {self.ratio:.4f} requested")


def parse(ratio: float | None, pattern: str | None) -> Sparsity:
    """What a ratio or a pattern asks for.

    Parameters
    ----------
    ratio
        Share of the weights; None: as the pattern, or 0.5.
    pattern
        N:M, of which N stay; None: by the ratio.

    Returns
    -------
    Sparsity
        The share of zeros.

    Raises
    ------
    ValueError
        For both, and for one out of its range.
    """
    if pattern is None:
        check_ratio(0.5 if ratio is None else ratio)
        return Sparsity(0.5 if ratio is None else ratio)
    if ratio is not None:
        raise ValueError("ratio and pattern are both given: give one limit")
    found = re.fullmatch(r"(\d+):(\d+)", pattern)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise ValueError(f"pattern '{pattern}' is not understood: give N:M, N of every M inputs stay, for example 2:4")
    return Sparsity(1 - int(found[1]) / int(found[2]), int(found[2]))


def sparsity_for(model: nn.Module, ratio: float | None, pattern: str | None) -> Sparsity:
    """What a ratio or a pattern asks for, of a model.

    Parameters
    ----------
    model
        The model.
    ratio
        Share of the weights; None: as the pattern, or 0.5.
    pattern
        N:M, of which N stay; None: by the ratio.

    Returns
    -------
    Sparsity
        The share of zeros.

    Raises
    ------
    ValueError
        As `parse`, and where M does not divide the inputs of every linear layer in the blocks.
    """
    sparsity = parse(ratio, pattern)
    blocks, group = range(model.config.num_hidden_layers), sparsity.group or 1
    inputs = {path: linear.in_features for block in blocks for path, linear in block_linears(model, block)}
    for path, width in inputs.items():
        if width % group:
            common = math.gcd(*inputs.values())
            nearest = min((m for m in range(1, common + 1) if common % m == 0), key=lambda m: abs(m - group))
            raise ValueError(
                f"pattern {pattern} does not fit {path}: its {width} inputs are no multiple of {group}; "
                f"the nearest M that divides the inputs of every layer is {nearest}"
            )
    return sparsity


def lowest(scores: Tensor, count: int) -> Tensor:
    """The lowest scores of every row.

    Parameters
    ----------
    scores
        (rows, size).
    count
        How many.

    Returns
    -------
    Tensor
        Bool, (rows, size).
    """
    found = scores.topk(count, dim=1, largest=False, sorted=False).indices
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, found, True)
