"""Weights as the nearest of 2^bits free values, found by k-means that minds what the layer's output is sensitive to.

Kim et al., "SqueezeLLM: Dense-and-Sparse Quantization", ICML 2024, arXiv 2306.07629, equation 4: the values of a book
minimise the sum of h_ij (w_ij - value)^2. Two deviations, both measured. h is the mean square of the input, not the
squared gradient of the loss: perplexity 31.19 against 31.18 on a small Llama in 3 bits, and neither labels nor
gradients. And as in GPTQ (arXiv 2210.17323) later inputs make up for the error of a code, which takes it to 30.5, where
a grid with 2 % more bytes has 30.9 by rounding and 30.5 by GPTQ (dense 29.1); update=false leaves that out. Outliers
are not kept apart.

A book is shared by `rows` outputs, so that it costs little on narrow layers too: 16 * 2^bits / (rows * inputs) bits a
weight in half precision.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compress.algorithms.codebooks import packed, rows_of_a_book, swept
from compress.algorithms.hessian import blocks, gram, inverse_factor, squares
from compress.algorithms.quantization import BITS, chosen, put, weights
from compress.algorithms.resume import Progress
from compress.algorithms.traits import Needs, Traits
from compress.model.storage import stored_type
from compress.model.walk import Batch
from transmeter.util.progress import track

TRAITS = Traits(Needs(models=1, states=1, gradients=False, copies=12), changes="bits", resumes=True)
FLOOR = 0.01  # of the mean importance, which every input has at least
ROUNDS = 100  # of k-means at most


@torch.no_grad()
def compress(
    model: nn.Module,
    batches: Sequence[Batch],
    *,
    bits: int = 4,
    rows: int = 16,
    update: bool = True,
    damping: float = 0.01,
    embeddings: bool = False,
    head: bool = False,
    progress: Progress | None = None,
) -> nn.Module:
    """Store the weights of every linear layer in the blocks as codes into books of free values.

    Saves disk, not time.

    Parameters
    ----------
    model
        The model, which is changed.
    batches
        Calibration texts; each entry (batch, tokens).
    bits
        Bits of a code; a book has 2^bits values.
    rows
        Number of outputs (tokens of an embedding) that share a book, or the next that divides them.
    update
        Whether later inputs make up for errors.
    damping
        Added to the diagonal of the Hessian, relative to its mean.
    embeddings
        Whether embeddings are stored so too, all weights counting the same.
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
    arXiv 2306.07629
    """
    paths = chosen(model, embeddings, head)
    if bits not in BITS or rows < 1 or damping <= 0:
        allowed = f"give {BITS[0]} to {BITS[-1]}, 1 or more, above 0"
        raise ValueError(f"bits {bits}, rows {rows}, damping {damping}: {allowed}")
    dtype = stored_type(model)
    for shared in blocks(model, batches, gram if update else squares, "k-means", progress):
        for inputs, moment in shared:
            factor = inverse_factor(moment, damping, torch.float32) if update else None
            for path in inputs:
                weight = model.get_submodule(path).weight.detach()
                values, codes = _clustered(weight, moment.diagonal() if update else moment, bits, rows, dtype)
                if factor is not None:
                    codes = swept(weight, factor, values)
                put(model, path, packed(codes, values, bits))
    for path, weight in track(list(weights(model, paths)), "k-means, outside the blocks"):
        values, codes = _clustered(weight, weight.new_ones(weight.shape[1]), bits, rows, dtype)
        put(model, path, packed(codes, values, bits))
    return model


def _clustered(weight: Tensor, importance: Tensor, bits: int, rows: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Values (books, 2^bits, 1), exact in `dtype`, and nearest codes (out, in) of weight (out, in).

    importance (in,): of the squared errors of an input's weights.
    """
    numbers = weight.reshape(len(weight) // rows_of_a_book(len(weight), rows), -1)
    importance = (importance / (float(importance.mean()) or 1.0) + FLOOR).expand_as(weight).reshape(numbers.shape)
    values = centers(numbers, importance, 2**bits).to(dtype).to(weight.dtype)
    codes = torch.searchsorted((values[:, 1:] + values[:, :-1]) / 2, numbers)
    return values[:, :, None], codes.view_as(weight).to(torch.uint8)


def centers(numbers: Tensor, importance: Tensor, count: int) -> Tensor:
    """Centers of weighted k-means of numbers.

    Parameters
    ----------
    numbers
        (books, n).
    importance
        (books, n), above 0.
    count
        Number of centers.

    Returns
    -------
    Tensor
        (books, count), rising. Of sorted numbers a cluster is a range, whose sums are differences of running sums.
        Starts
        where centers are as dense as the cube root of importance and density together, the optimum of many centers.
    """
    numbers, order = numbers.double().sort(1)
    importance = importance.double().gather(1, order)
    mass, moment = (nn.functional.pad(t.cumsum(1), (1, 0)) for t in (importance, importance * numbers))
    gaps = nn.functional.pad(numbers.diff(dim=1), (1, 0))
    dense = (importance.pow(1 / 3) * gaps.pow(2 / 3)).cumsum(1)
    places = (torch.arange(count, dtype=dense.dtype, device=dense.device) + 0.5) / count
    found = numbers.gather(1, torch.searchsorted(dense, dense[:, -1:] * places).clamp(max=numbers.shape[1] - 1))
    for _ in range(ROUNDS):
        inner = torch.searchsorted(numbers, (found[:, 1:] + found[:, :-1]) / 2)
        edges = nn.functional.pad(nn.functional.pad(inner, (1, 0)), (0, 1), value=numbers.shape[1])
        weight, total = (t.gather(1, edges).diff(dim=1) for t in (mass, moment))
        new = torch.where(edges.diff(dim=1) > 0, total / weight, found)
        if torch.equal(new, found):
            break
        found = new
    return found
