"""Mixed precision: every layer gets the bits that its share of the loss is worth, so that all together keep a budget.

What a layer loses at so many bits is what rounding it to nearest changes its weights by, squared, times the squared
gradients: about what the loss grows by, as in HAWQ-V2 (Dong et al., NeurIPS 2020, arXiv 1911.03852), the squares being
the diagonal of the Fisher information. The square of a weight is taken as that of its output times that of its input,
means over the weights of each: of single weights they are too many to keep, and the mean over a layer misses that
inputs may be largest where gradients are not (benchmarks/mixed_sensitivity.py). Bits then go where they lower the sum
most (compress.algorithms.bit_allocation), and GPTQ (arXiv 2210.17323) rounds.
"""

from collections.abc import Sequence

import torch
from torch import nn

from compress.algorithms.bit_allocation import Choice, allocate
from compress.algorithms.fisher import fisher
from compress.algorithms.hessian import blocks, gram
from compress.algorithms.quantization import SLACK, Grid, check_divides, chosen, put, round_rest
from compress.algorithms.resume import Progress
from compress.algorithms.traits import Needs, Traits
from compress.methods.gptq import arranged, quantize
from compress.model.storage import stored_type
from compress.model.walk import Batch
from transmeter.util.progress import track

TRAITS = Traits(Needs(models=1, states=1, blockwise=True), changes="bits", resumes=True)
COLUMNS = 128  # whose errors reach the later ones together


def compress(
    model: nn.Module,
    batches: Sequence[Batch],
    *,
    bits: float = 3.0,
    group: int | None = 64,
    symmetric: bool = False,
    choices: str = "2,3,4,8",
    damping: float = 0.01,
    seed: int = 0,
    embeddings: bool = False,
    head: bool = False,
    progress: Progress | None = None,
) -> nn.Module:
    """Store the weights of the linear layers in the blocks in few bits on average, each layer in its own number.

    Saves disk, not time.

    Parameters
    ----------
    model
        The model, which is changed.
    batches
        Calibration texts; each entry (batch, tokens).
    bits
        Bits of a weight on average.
    group
        Number of inputs of an output that share a scale; None: all.
    symmetric
        Whether zero is the middle level.
    choices
        Numbers of bits, separated by commas.
    damping
        Added to the diagonal of the Hessian, relative to its mean.
    seed
        Of the labels drawn for the gradients.
    embeddings
        Whether embeddings are rounded too, in the most of the choices that `bits` allows.
    head
        Whether linear layers outside the blocks are rounded too; with tied weights the same as `embeddings`.
    progress
        Where the choice and finished blocks are kept; None: nowhere.

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
    arXiv 1911.03852, 2210.17323
    """
    grids = _grids(bits, group, symmetric, choices)
    if damping <= 0:
        raise ValueError(f"damping {damping}: give more than 0, for example 0.01")
    paths = chosen(model, embeddings, head)
    check_divides(model, paths, group)
    dtype = stored_type(model)

    def measure() -> dict[str, int]:
        return _assigned(model, batches, grids, bits, dtype, seed)

    found = progress.once("bits", measure) if progress else measure()
    rest = max((g for g in grids if g.bits <= bits), key=lambda g: g.bits)
    with torch.no_grad():
        for shared in blocks(model, batches, gram, "Mixed precision", progress):
            for inputs, hessian in shared:
                places = arranged(hessian.diagonal(), group)
                for grid in grids:
                    alike = [path for path in inputs if found.get(path, rest.bits) == grid.bits]
                    weights = [model.get_submodule(path).weight for path in alike]
                    packed = quantize(weights, hessian, places, grid, dtype, damping, COLUMNS) if alike else []
                    for path, form in zip(alike, packed):
                        put(model, path, form)
        for grid in grids:  # what no token reaches behind the rounded blocks before, though one did in the dense model
            round_rest(model, [path for path, number in found.items() if number == grid.bits], grid)
        _require(model, list(found), bits)
        round_rest(model, paths, rest)
    return model


def _grids(bits: float, group: int | None, symmetric: bool, choices: str) -> list[Grid]:
    """A grid for each of the choices, fewest bits first."""
    try:
        numbers = sorted({int(part) for part in choices.split(",")})
    except ValueError:
        raise ValueError(f"choices '{choices}': give numbers of bits such as 2,3,4,8") from None
    grids = [Grid(number, group, symmetric) for number in numbers]
    if not numbers[0] <= bits <= numbers[-1]:
        raise ValueError(f"bits {bits} cannot be the mean of {choices}: give {numbers[0]} to {numbers[-1]}")
    return grids


def _require(model: nn.Module, paths: Sequence[str], bits: float) -> None:
    """Raise RuntimeError where the codes of the layers at `paths` take more than `bits` a weight on average."""
    forms = [model.get_submodule(path).packed for path in paths]
    reached = 8 * sum(f.codes.nbytes for f in forms) / max(sum(f.rows * f.columns for f in forms), 1)
    if reached > bits * SLACK:
        raise RuntimeError(f"bits: {reached:.3f} a weight reached, {bits:.3f} requested")


@torch.no_grad()
def _assigned(
    model: nn.Module, batches: Sequence[Batch], grids: Sequence[Grid], bits: float, dtype: torch.dtype, seed: int
) -> dict[str, int]:
    """The bits of every linear layer of the blocks that the loss hangs on, by path, `bits` a weight on average at most.

    The model is dense.
    """
    squared = fisher(model, batches, seed, lambda squares: torch.cat([squares.mean(1), squares.mean(0)]))
    found = {path: means for path, means in squared.items() if means.any()}
    options: list[list[Choice]] = []
    for path, means in track(found.items(), "Sensitivity"):
        weight = model.get_submodule(path).weight.detach().float()
        by_output, by_input = means.split(list(weight.shape))
        unit = by_input.max()  # squares of small gradients are below the smallest float32
        outputs, inputs = (by_output / by_output.mean()).float(), (by_input / unit).float()
        errors = (grid.rounded(weight, dtype, inputs) - weight for grid in grids)
        losses = [float(outputs @ error.square() @ inputs) * float(unit) for error in errors]
        options.append([(g.bits * weight.numel(), loss) for g, loss in zip(grids, losses)])
    numel = sum(option[0][0] for option in options) / grids[0].bits
    taken = allocate(options, bits * numel)
    return {path: grids[i].bits for path, i in zip(found, taken)}
