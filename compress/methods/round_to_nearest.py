"""Round to nearest: every weight goes to the nearest of 2^bits evenly spaced levels of its group.

The baseline of all quantizers. A group's range shrinks to where its squared error is smallest, as in Banner et al.,
"Post training 4-bit quantization of convolutional networks", NeurIPS 2019, arXiv 1810.05723.
"""

from collections.abc import Sequence

import torch
from torch import nn

from compress.algorithms.quantization import Grid, check_divides, chosen, put, weights
from compress.algorithms.traits import Needs, Traits
from compress.model.storage import stored_type
from compress.model.walk import Batch
from transmeter.util.progress import track

TRAITS = Traits(Needs(models=1, states=0, gradients=False, matrices=0, copies=5), changes="bits", texts=False)


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
) -> nn.Module:
    """Store the weights of every linear layer in the blocks in few bits.

    Saves disk, not time.

    Parameters
    ----------
    model
        The model, which is changed.
    batches
        Not used.
    bits
        Bits of a weight.
    group
        Number of inputs of an output that share a scale; None: all.
    symmetric
        Whether zero is the middle level.
    clip
        Whether the range of a group shrinks to the least error.
    embeddings
        Whether embeddings are rounded too.
    head
        Whether linear layers outside the blocks are rounded too; with tied weights the same as `embeddings`.

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
    arXiv 1810.05723
    """
    grid, paths = Grid(bits, group, symmetric), chosen(model, embeddings, head)
    check_divides(model, paths, group)
    for path, weight in weights(model, track(paths, "Rounding")):
        importance = weight.new_ones(weight.shape[1]) if clip else None
        put(model, path, grid.nearest(weight, stored_type(model), importance))
    return model
