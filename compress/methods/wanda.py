"""Wanda: a weight matters by its size times the norm of the feature that it meets.

Sun et al., "A Simple and Effective Pruning Approach for Large Language Models", ICLR 2024, arXiv 2306.11695:
score |W_oi| * |X_i|_2, compared within each output row, block after block on the inputs of the pruned blocks before.
"""

from collections.abc import Sequence

import torch
from torch import nn

from compress.algorithms.hessian import blocks, squares
from compress.algorithms.resume import Progress
from compress.algorithms.sparsity import sparsity_for
from compress.algorithms.traits import Needs, Traits
from compress.model.structure import set_parameter
from compress.model.walk import Batch

TRAITS = Traits(Needs(models=1, states=1, gradients=False, matrices=0, copies=5), resumes=True)


@torch.no_grad()
def compress(
    model: nn.Module,
    batches: Sequence[Batch],
    *,
    ratio: float | None = None,
    pattern: str | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """Set a share of the weights of every row of every linear layer in the blocks to zero.

    The sparse weights save disk (a bitmask), not time.

    Parameters
    ----------
    model
        The model, which is changed.
    batches
        Calibration texts; each entry (batch, tokens).
    ratio
        Share of the weights; None: 0.5.
    pattern
        Instead of a ratio N:M: N of every M consecutive inputs stay.
    progress
        Where finished blocks are kept; None: nowhere.

    Returns
    -------
    nn.Module
        `model`.

    Raises
    ------
    ValueError
        For an option out of range.
    RuntimeError
        The sparsity reached misses the request.

    References
    ----------
    arXiv 2306.11695
    """
    sparsity = sparsity_for(model, ratio, pattern)
    for shared in blocks(model, batches, squares, "Wanda", progress):
        for paths, square in shared:
            for path in paths:
                weight = model.get_submodule(path).weight
                scores = weight.float().abs() * square.sqrt().float()
                set_parameter(model, f"{path}.weight", sparsity.zero(weight, scores))
    return model
