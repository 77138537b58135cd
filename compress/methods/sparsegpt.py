"""SparseGPT: zero the weights that cost least, column by column, and let the later columns make up for the error.

Frantar, Alistarh, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot", ICML 2023,
arXiv 2301.00774, algorithm 1: scores w^2 / U_jj^2 with U the Cholesky factor of the inverse Hessian, chosen a block of
columns at a time (N:M: a group at a time), block after block of the model on the inputs of the pruned ones before.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compress.algorithms.hessian import STEP, blocks, gram, inverse_factor, side_by_side, sweep
from compress.algorithms.resume import Progress
from compress.algorithms.sparsity import Sparsity, lowest, sparsity_for
from compress.algorithms.traits import Needs, Traits
from compress.model.structure import set_parameter
from compress.model.walk import Batch

TRAITS = Traits(Needs(models=1, states=1, gradients=False, matrices=5, copies=5), resumes=True)


@torch.no_grad()
def compress(
    model: nn.Module,
    batches: Sequence[Batch],
    *,
    ratio: float | None = None,
    pattern: str | None = None,
    block: int = 128,
    damping: float = 0.01,
    progress: Progress | None = None,
) -> nn.Module:
    """Set a share of the weights of every linear layer in the blocks to zero, and update the others.

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
    block
        Number of columns whose zeros are chosen together.
    damping
        Added to the diagonal of the Hessian, relative to its mean.
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
    arXiv 2301.00774
    """
    sparsity = sparsity_for(model, ratio, pattern)
    if block < 1 or damping <= 0:
        raise ValueError(f"block {block} must be at least 1 and damping {damping} above 0, for example 128 and 0.01")
    for shared in blocks(model, batches, gram, "SparseGPT", progress):
        for paths, hessian in shared:
            weights = [model.get_submodule(path).weight for path in paths]
            for path, pruned in zip(
                paths, prune(weights, inverse_factor(hessian, damping, torch.float32), sparsity, block)
            ):
                sparsity.require(pruned)
                set_parameter(model, f"{path}.weight", pruned)
    return model


def prune(weights: Sequence[Tensor], factor: Tensor, sparsity: Sparsity, block: int) -> list[Tensor]:
    """Prune layers that get the same input.

    Parameters
    ----------
    weights
        (out, in) each, of layers that get the same input.
    factor
        (in, in), of `inverse_factor`.
    sparsity
        The request.
    block
        Number of columns whose zeros are chosen together.

    Returns
    -------
    list of Tensor
        The pruned weights. The error of column j is e_j = w_j / U_jj where w_j goes.
    """
    columns, outs = side_by_side(weights), [len(w) for w in weights]
    factor, step = factor.to(columns.dtype), sparsity.group or STEP
    if sparsity.group:
        block = max(block // step, 1) * step
    drop, share = torch.zeros_like(columns, dtype=torch.bool), torch.empty_like(columns)
    edges, diagonal = [*range(0, len(columns), block), len(columns)], factor.diagonal()
    for j, values, error, current in sweep(columns, factor, edges, step):
        if sparsity.group and j % step == 0:
            part = slice(j, j + step)
            drop[part] = _lowest_of_each_output(current, diagonal[part], sparsity)
            share[part] = drop[part] / diagonal[part, None]
        elif not sparsity.group and j % block == 0:
            part = slice(j, j + block)
            drop[part] = _lowest_of_each_layer(columns[part], diagonal[part], sparsity, outs, j)
            share[part] = drop[part] / diagonal[part, None]
        torch.mul(values, share[j], out=error)
    columns.masked_fill_(drop, 0.0)
    return [w.T.to(weights[0].dtype).clone(memory_format=torch.contiguous_format) for w in columns.split(outs, 1)]


def _lowest_of_each_output(columns: Tensor, diagonal: Tensor, sparsity: Sparsity) -> Tensor:
    """Which of a group of `columns` (M, all outs) go: the same number of every output; diagonal (M,) of the factor."""
    return lowest((columns / diagonal[:, None]).square().T, round(sparsity.ratio * len(columns))).T


def _lowest_of_each_layer(
    columns: Tensor, diagonal: Tensor, sparsity: Sparsity, outs: Sequence[int], start: int
) -> Tensor:
    """Which of a block of `columns` (some, all outs) go, the first of them column `start`; diagonal of the factor.

    Of every layer its share, counted so that those of all blocks add up to it.
    """
    parts = []
    for scores in (columns / diagonal[:, None]).square().split(list(outs), 1):
        each = sparsity.ratio * scores.shape[1]
        count = round(each * (start + len(columns))) - round(each * start)
        parts.append(lowest(scores.reshape(1, -1), count).view_as(scores))
    return torch.cat(parts, 1)
