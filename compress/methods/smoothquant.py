"""SmoothQuant: weights and activations in 8 bits, the outliers of the activations moved into the weights.

Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models", ICML 2023,
arXiv 2211.10438, equation 4: inputs are divided by, and the columns of the weights multiplied by,
s = max|x|^strength / max|w|^(1 - strength).

One deviation: s is stored beside the layer, where the paper folds it into the layer norm before; so that every linear
layer of a block gets its own.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compress.algorithms.hessian import blocks
from compress.algorithms.quantization import BITS, Grid, chosen, put, round_rest, smoothing, stored_type
from compress.algorithms.resume import Progress
from compress.algorithms.traits import Needs, Traits
from compress.model.walk import Batch

TRAITS = Traits(Needs(models=1, states=1, gradients=False, matrices=0), changes="bits", resumes=True)


@torch.no_grad()
def compress(
    model: nn.Module,
    batches: Sequence[Batch],
    *,
    bits: int = 8,
    activations: int = 8,
    strength: float | None = 0.5,
    embeddings: bool = False,
    head: bool = False,
    progress: Progress | None = None,
) -> nn.Module:
    """Store the weights of every linear layer in the blocks in few bits, and round its inputs too.

    Weights are symmetric with a scale a row, inputs with a scale a token. Saves disk, not time.

    Parameters
    ----------
    model
        The model, which is changed.
    batches
        Calibration texts; each entry (batch, tokens).
    bits
        Bits of a weight.
    activations
        Bits of an input.
    strength
        Share of the outliers that the weights take over; None: leave them.
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
    arXiv 2211.10438
    """
    grid, paths = Grid(bits, None, True), chosen(model, embeddings, head)
    if activations not in BITS:
        raise ValueError(f"activations {activations}: give {BITS[0]} to {BITS[-1]} bits")
    if strength is not None and not 0 <= strength <= 1:
        raise ValueError(f"strength {strength}: give 0 to 1, for example 0.5, or 'none' to move nothing")
    dtype = stored_type(model)
    for shared in blocks(model, batches, _largest, "SmoothQuant", progress, _larger):
        for inputs, peaks in shared:
            weights, smooth = [model.get_submodule(path).weight.float() for path in inputs], None
            if strength is not None:
                tops = torch.cat(weights).abs().amax(0)
                smooth = smoothing(peaks**strength / tops ** (1 - strength), dtype)
                smooth = nn.Parameter(smooth, requires_grad=False)
            for path, weight in zip(inputs, weights):
                scaled = weight if smooth is None else weight * smooth
                put(model, path, grid.nearest(scaled, dtype, scaled.new_ones(scaled.shape[1])), smooth, activations)
    round_rest(model, paths, grid)
    return model


def _largest(states: Tensor) -> Tensor:
    """max|x| of states (tokens, in), (in,)."""
    return states.float().abs().amax(0)


def _larger(one: Tensor, other: Tensor) -> Tensor:
    return torch.maximum(one, other, out=one)
