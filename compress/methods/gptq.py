"""GPTQ: round the weights column by column, and let the later columns make up for the error.

Frantar, Ashkboos, Hoefler, Alistarh, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers", ICLR 2023, arXiv 2210.17323, algorithm 1: e_j = (w_j - quant(w_j)) / U_jj with U the Cholesky factor of
the inverse Hessian, block after block of the model on the inputs of the quantized ones before.

Two deviations, both measured (benchmarks/compress_quality.py). A group's range is not that of its weights: it shrinks
to where the sum of (w_j - quant(w_j))^2 / U_jj^2, what its columns will cost, is smallest. And the columns that matter
most come first only as far as groups stay together, so that what is stored is in the order of the inputs.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compress.algorithms.hessian import blocks, gram, inverse_factor, side_by_side, sweep
from compress.algorithms.quantization import Grid, check_divides, chosen, put, round_rest
from compress.algorithms.resume import Progress
from compress.algorithms.traits import Needs, Traits
from compress.model import layers
from compress.model.storage import stored_type
from compress.model.walk import Batch

TRAITS = Traits(Needs(models=1, states=1, gradients=False, copies=10), changes="bits", resumes=True)


@torch.no_grad()
def compress(
    model: nn.Module,
    batches: Sequence[Batch],
    *,
    bits: int = 4,
    group: int | None = 64,
    symmetric: bool = False,
    order: bool = True,
    damping: float = 0.01,
    block: int = 128,
    embeddings: bool = False,
    head: bool = False,
    progress: Progress | None = None,
) -> nn.Module:
    """Store the weights of every linear layer in the blocks in few bits, fitted to what enters the layer.

    Saves disk, not time.

    Parameters
    ----------
    model
        The model, which is changed.
    batches
        Calibration texts; each entry (batch, tokens).
    bits
        Bits of a weight.
    group
        Number of inputs of an output that share a scale; None: all.
    symmetric
        Whether zero is the middle level.
    order
        Whether groups with the largest inputs come first.
    damping
        Added to the diagonal of the Hessian, relative to its mean.
    block
        Number of columns whose errors reach the later ones together.
    embeddings
        Whether embeddings are rounded too, to the nearest level.
    head
        Whether linear layers outside the blocks are rounded too; with tied weights the same as `embeddings`.
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
        More bits are stored than requested.

    References
    ----------
    arXiv 2210.17323
    """
    grid, paths = Grid(bits, group, symmetric), chosen(model, embeddings, head)
    check_divides(model, paths, group)
    if block < 1 or damping <= 0:
        raise ValueError(f"block {block} must be at least 1 and damping {damping} above 0, for example 128 and 0.01")
    dtype = stored_type(model)
    for shared in blocks(model, batches, gram, "GPTQ", progress):
        for inputs, hessian in shared:
            weights = [model.get_submodule(path).weight for path in inputs]
            places = arranged(hessian.diagonal(), group) if order else torch.arange(len(hessian), device=hessian.device)
            for path, packed in zip(inputs, quantize(weights, hessian, places, grid, dtype, damping, block)):
                put(model, path, packed)
    round_rest(model, paths, grid)
    return model


def arranged(diagonal: Tensor, group: int | None) -> Tensor:
    """The order in which columns have their turns.

    Parameters
    ----------
    diagonal
        Of the Hessian, (in,).
    group
        Number of columns that stay together; None: all.

    Returns
    -------
    Tensor
        (in,): in a group the largest first; the groups, each as a whole, by their largest.
    """
    grouped = diagonal.view(-1, group or len(diagonal))
    inside = (
        grouped.argsort(1, descending=True)
        + grouped.shape[1] * torch.arange(len(grouped), device=diagonal.device)[:, None]
    )
    return inside[grouped.amax(1).argsort(descending=True)].flatten()


def quantize(
    weights: Sequence[Tensor],
    hessian: Tensor,
    places: Tensor,
    grid: Grid,
    dtype: torch.dtype,
    damping: float,
    block: int,
) -> list[layers.Uniform]:
    """Round the weights of layers that get the same input.

    Parameters
    ----------
    weights
        (out, in) each, of layers that get the same input.
    hessian
        (in, in).
    places
        (in,): the columns in the order of their turns, groups whole.
    grid
        The levels.
    dtype
        That scales and values are stored in.
    damping
        Added to the diagonal, relative to its mean.
    block
        Number of columns whose errors reach the later ones together.

    Returns
    -------
    list
        What is stored of each. A group's scale is fitted when its turn comes, to the weights as they are then.
    """
    size, top = grid.group or len(hessian), 2**grid.bits - 1
    columns, outs = side_by_side(weights)[places], [len(w) for w in weights]
    factor = inverse_factor(hessian[places[:, None], places], damping, columns.dtype)
    pivots, costs = factor.diagonal().tolist(), factor.diagonal() ** -2
    edges = sorted({*range(0, len(columns), block), *range(0, len(columns), size), len(columns)})
    steps, fits = torch.empty_like(columns), []  # steps: how many levels a weight is above zero
    for (j, values, error, _), step in zip(sweep(columns, factor, edges), steps):
        if j % size == 0:
            fits.append(grid.fit(columns[j : j + size].T, dtype, costs[j : j + size]))
            scale, low = fits[-1][0].squeeze(1), -_zero(grid, *fits[-1]).squeeze(1)
            high = low + top
        torch.clamp(torch.div(values, scale, out=step).round_(), low, high, out=step)
        torch.addcmul(values, step, scale, value=-1, out=error).div_(pivots[j])
    back = places[::size].argsort()  # of groups
    scale, zero = (torch.cat([(s, _zero(grid, s, z))[k] for s, z in fits], 1)[:, back] for k in (0, 1))
    codes = grid.split(steps[places.argsort()].T).add_(zero[:, :, None]).flatten(1).to(torch.uint8)
    parts = zip(*(t.split(outs) for t in (codes, scale, zero.to(torch.uint8))))
    return [grid.pack(c, s, None if grid.symmetric else z) for c, s, z in parts]


def _zero(grid: Grid, scale: Tensor, zero: Tensor | None) -> Tensor:
    """The level of zero of every group, in the type of `scale`."""
    return torch.full_like(scale, 2 ** (grid.bits - 1)) if zero is None else zero.to(scale.dtype)
