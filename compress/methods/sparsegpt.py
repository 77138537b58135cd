"""SparseGPT: zero the weights that cost least, column by column, and let the later columns make up for the error.

Frantar, Alistarh, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot", ICML 2023,
arXiv 2301.00774, algorithm 1: scores w^2 / U_jj^2 with U the Cholesky factor of the inverse Hessian, chosen a block of
columns at a time (N:M: a group at a time), block after block of the model on the inputs of the pruned ones before.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compress.hessian import blocks, gram, inverse_factor
from compress.memory import Needs
from compress.progress import Progress
from compress.sparsity import Sparsity, lowest, wanted
from compress.structure import fork, own, place
from compress.walk import Batch

NEEDS = Needs(models=1, streams=1, gradients=False, matrices=5, copies=5)
STEP = 16  # columns between two matrix products inside a block


@torch.no_grad()
def compress(
    model: nn.Module,
    batches: Sequence[Batch],
    *,
    ratio: float | None = None,
    pattern: str | None = None,
    block: int = 128,
    damping: float = 0.01,
    in_place: bool = False,
    progress: Progress | None = None,
) -> nn.Module:
    """Set the share `ratio` of the weights of every linear layer in the blocks to zero, and update the others.

    pattern: instead of a ratio, N:M, N of every M consecutive inputs stay; block: columns whose zeros are chosen
    together; damping: added to the Hessian's diagonal, relative to its mean; progress: where finished blocks are kept.
    Raises ValueError for an option out of range and RuntimeError when the sparsity reached misses the request.
    """
    sparsity = wanted(model, ratio, pattern)
    if block < 1 or damping <= 0:
        raise ValueError(f"block {block} must be at least 1 and damping {damping} above 0, for example 128 and 0.01")
    student = model if in_place else fork(model)
    for shared in blocks(student, batches, gram, "SparseGPT", progress):
        for paths, hessian in shared:
            weights = [student.get_submodule(path).weight for path in paths]
            for path, pruned in zip(paths, sweep(weights, inverse_factor(hessian, damping), sparsity, block)):
                sparsity.require(pruned)
                place(student, f"{path}.weight", pruned)
    return own(student, model)


def sweep(weights: Sequence[Tensor], factor: Tensor, sparsity: Sparsity, block: int) -> list[Tensor]:
    """The weights (out, in) of layers that get the same input, pruned; factor (in, in) of `inverse_factor`.

    The error of column j, e_j = w_j / U_jj where w_j goes, takes e_j U_jk from every later column k. Worked in rows of
    the transposed weights, in float32 at least. Errors reach the columns behind a block, and behind a step, in one
    matrix product.
    """
    exact = torch.promote_types(weights[0].dtype, torch.float32)
    columns = torch.cat(list(weights)).to(exact).T.clone(memory_format=torch.contiguous_format)  # (in, all outs)
    factor, outs = factor.to(exact), [len(w) for w in weights]
    step = sparsity.group or STEP
    if sparsity.group:
        block = max(block // step, 1) * step
    for start in range(0, len(columns), block):
        now, after = columns[start : start + block], columns[start + block :]
        upper = factor[start : start + block, start : start + block]
        drop, errors = torch.zeros_like(now, dtype=torch.bool), torch.zeros_like(now)
        for a in range(0, len(now), step):
            current = now[a : a + step] - upper[:a, a : a + step].T @ errors[:a]
            if sparsity.group:
                drop[a : a + step] = _lowest_of_each_output(current, upper.diagonal()[a : a + step], sparsity)
            elif a == 0:
                drop = _lowest_of_each_layer(now, upper.diagonal(), sparsity, outs, start)
            share = drop[a : a + step] / upper.diagonal()[a : a + step, None]
            for i, column in enumerate(current):
                row = torch.addmv(column, errors[a : a + i].T, upper[a : a + i, a + i], alpha=-1)
                torch.mul(row, share[i], out=errors[a + i])
        now -= upper.triu(1).T @ errors
        now.masked_fill_(drop, 0.0)
        after -= factor[start : start + block, start + block :].T @ errors
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
