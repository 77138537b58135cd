"""Wanda: a weight matters by its size times the norm of the feature that it meets.

Sun et al., "A Simple and Effective Pruning Approach for Large Language Models", ICLR 2024, arXiv 2306.11695:
score |W_oi| * |X_i|_2, compared within each output row, block after block on the inputs of the pruned blocks before.
"""

from collections.abc import Sequence

import torch
from torch import nn

from compress.budget import check_ratio
from compress.methods.magnitude import smallest_zero
from compress.structure import block_linears, fork, own, place
from compress.walk import Batch, inputs, real, run, track


@torch.no_grad()
def compress(model: nn.Module, batches: Sequence[Batch], *, ratio: float = 0.5, in_place: bool = False) -> nn.Module:
    """Set the share `ratio` of the weights of every row of every linear layer in the blocks to zero.

    The sparse weights save disk (a bitmask), not time. Raises ValueError for a ratio outside [0, 1) and RuntimeError
    when the sparsity reached misses the request.
    """
    check_ratio(ratio)
    student = model if in_place else fork(model)
    stream = [run(student, b, stop=0) for b in batches]
    for block in track(range(model.config.num_hidden_layers), "Wanda"):
        linears = dict(block_linears(student, block))
        squares = {p: torch.zeros(linear.in_features, dtype=torch.float64) for p, linear in linears.items()}
        for batch, hidden in zip(batches, stream):
            with inputs(student, list(linears)) as seen:
                run(student, batch, block, block + 1, hidden)
            for path, features in seen.items():
                squares[path] += real(batch, features).double().square().sum(0)
        for path, linear in linears.items():
            scores = linear.weight.abs() * squares[path].sqrt().to(linear.weight.dtype)
            place(student, f"{path}.weight", smallest_zero(linear.weight, scores, ratio))
        stream = [run(student, b, block, block + 1, h) for b, h in zip(batches, stream)]
    return own(student, model)
