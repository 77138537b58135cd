"""AWQ: columns that meet large inputs are scaled up before rounding, and what enters them is scaled down.

Lin et al., "AWQ: Activation-aware Weight Quantization for On-Device LLM Compression and Acceleration", MLSys 2024,
arXiv 2306.00978, equation 4: s = mean|x|^a with the a of least output error, then the range of every group by its
share of that error. The error of all layers that share an input is tr(E X^T X E^T), E what rounding does to their
weights.

Two deviations: the scales are stored beside the layer and its input is divided by them, where the paper folds them into
the layer before, which not every architecture allows, so that every linear layer of a block gets some; and the search
for a rounds into ranges that are shrunk already.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compress.algorithms.hessian import blocks, gram
from compress.algorithms.quantization import Grid, check_divides, chosen, put, round_rest, smoothing, stored_type
from compress.algorithms.resume import Progress
from compress.algorithms.traits import Needs, Traits
from compress.model.walk import Batch

TRAITS = Traits(Needs(models=1, states=1, gradients=False, matrices=5, copies=12), changes="bits", resumes=True)
EXPONENTS = torch.linspace(0.0, 0.9, 10)


@torch.no_grad()
def compress(
    model: nn.Module,
    batches: Sequence[Batch],
    *,
    bits: int = 4,
    group: int | None = 64,
    symmetric: bool = False,
    clip: bool = True,
    embeddings: bool = False,
    head: bool = False,
    progress: Progress | None = None,
) -> nn.Module:
    """Store the weights of every linear layer in the blocks in few bits, scaled by what enters the layer.

    Saves disk, not time. Beside the bits, one number an input of layers that share it is stored.

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
    clip
        Whether the range of a group shrinks to the least error.
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
    arXiv 2306.00978
    """
    grid, paths = Grid(bits, group, symmetric), chosen(model, embeddings, head)
    check_divides(model, paths, group)
    dtype = stored_type(model)
    for shared in blocks(model, batches, _moment, "AWQ", progress):
        for inputs, moment in shared:
            squares, means = moment[:-1].float(), moment[-1].float()
            weights = [model.get_submodule(path).weight.float() for path in inputs]
            smooth = nn.Parameter(scales(torch.cat(weights), squares, means, grid, dtype, clip), False)
            importance = _of_groups(squares / smooth / smooth[:, None], group) if clip else None
            for path, weight in zip(inputs, weights):
                put(model, path, grid.nearest(weight * smooth, dtype, importance), smooth)
    round_rest(model, paths, grid)
    return model


def _moment(states: Tensor) -> Tensor:
    """X^T X of states (tokens, in), and below it the sums of |x|; (in + 1, in)."""
    return torch.cat([gram(states), states.abs().sum(0, dtype=torch.float64)[None]])


def scales(weight: Tensor, squares: Tensor, means: Tensor, grid: Grid, dtype: torch.dtype, clip: bool = True) -> Tensor:
    """The scales of least error.

    Parameters
    ----------
    weight
        (out, in).
    squares
        X^T X, (in, in).
    means
        mean|x| times any number, (in,).
    grid
        The levels.
    dtype
        That scales and values are stored in.
    clip
        Whether to round into ranges that shrink to the least error, by the diagonal of squares.

    Returns
    -------
    Tensor
        (in,): what the columns of the weight are multiplied by before rounding.
    """
    least, best = None, None
    for exponent in EXPONENTS.tolist():
        smooth = smoothing(means**exponent, dtype)
        importance = squares.diagonal() / smooth.square() if clip else None
        error = grid.rounded(weight * smooth, dtype, importance) / smooth - weight
        lost = ((error @ squares) * error).sum()
        if least is None or lost < least:
            least, best = lost, smooth
    return best


def _of_groups(squares: Tensor, group: int | None) -> Tensor:
    """The blocks (groups, columns of a group, columns of a group) on the diagonal of squares (in, in)."""
    size = group or len(squares)
    return torch.stack([squares[i : i + size, i : i + size] for i in range(0, len(squares), size)])
