"""Vector quantization: every `width` weights of an output share one code, the nearest of 2^bits vectors of a book.

van Baalen et al., "GPTVQ: The Blessing of Dimensionality for LLM Quantization", 2024, arXiv 2402.15319. The vectors
start from k-means weighted by the mean squares of the inputs (k-means++, Arthur, Vassilvitskii, SODA 2007); then codes
are chosen sub-vector by sub-vector while later inputs make up for the error, and the vectors fitted to the codes.

A weight takes bits / width bits of code and 16 * 2^bits * width / (rows * inputs) bits of book in half precision: 2 and
0.17 to 0.44 with the defaults on layers of 192 x 512 and 192 x 192. Measured on such a small Llama at no more bytes:
perplexity 33.0, k-means alone 35.2, GPTQ in 2 bits 35.3, round to nearest 40.0 (dense 29.1).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compress.algorithms.codebooks import packed, refitted, rows_of_a_book, swept
from compress.algorithms.hessian import blocks, gram, inverse_factor, squares
from compress.algorithms.quantization import BITS, check_divides, chosen, put, weights
from compress.algorithms.resume import Progress
from compress.algorithms.traits import Needs, Traits
from compress.model.storage import stored_type
from compress.model.walk import Batch
from transmeter.util.progress import track

TRAITS = Traits(Needs(models=1, states=1, gradients=False), changes="bits", resumes=True)
FLOOR = 0.01  # of the mean importance, which every input has at least
ROUNDS = 25  # of k-means at most
SAMPLE = 32  # sub-vectors a code, among which k-means++ draws
CHUNK = 2**16  # sub-vectors at once


@torch.no_grad()
def compress(
    model: nn.Module,
    batches: Sequence[Batch],
    *,
    bits: int = 8,
    width: int = 4,
    rows: int | None = None,
    update: bool = True,
    damping: float = 0.01,
    seed: int = 0,
    embeddings: bool = False,
    head: bool = False,
    progress: Progress | None = None,
) -> nn.Module:
    """Store the weights of every linear layer in the blocks as codes, one for several inputs.

    Saves disk, not time.

    Parameters
    ----------
    model
        The model, which is changed.
    batches
        Calibration texts; each entry (batch, tokens).
    bits
        Bits of a code; a book has 2^bits vectors.
    width
        Number of inputs that share a code.
    rows
        Number of outputs (tokens of an embedding) that share a book, or the next that divides them; None: all.
    update
        Whether later inputs make up for errors, and vectors are fitted.
    damping
        Added to the diagonal of the Hessian, relative to its mean.
    seed
        Seed of the first vectors.
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
    arXiv 2402.15319
    """
    paths = chosen(model, embeddings, head)
    if bits not in BITS or width < 1 or (rows is not None and rows < 1) or damping <= 0:
        allowed = f"give {BITS[0]} to {BITS[-1]}, 1 or more, 1 or more (or 'none'), above 0"
        raise ValueError(f"bits {bits}, width {width}, rows {rows}, damping {damping}: {allowed}")
    check_divides(model, paths, width, "width")
    _check_smaller(model, paths, bits, width, rows)
    dtype = stored_type(model)
    for shared in blocks(model, batches, gram if update else squares, "Vectors", progress):
        for inputs, moment in shared:
            factor = inverse_factor(moment, damping, torch.float32) if update else None
            for path in inputs:
                weight = model.get_submodule(path).weight.detach().float()
                importance = moment.diagonal() if update else moment
                values, codes = _clustered(weight, importance, bits, width, rows, seed, dtype)
                if factor is not None:
                    codes = swept(weight, factor, values)
                    pull = damping * float(moment.diagonal().mean()) or 1.0
                    damped = moment + pull * torch.eye(len(moment), dtype=moment.dtype, device=moment.device)
                    values = refitted(weight, damped, codes, values).to(dtype).to(weight.dtype)
                put(model, path, packed(codes, values, bits))
    for path, weight in track(list(weights(model, paths)), "Vectors, outside the blocks"):
        values, codes = _clustered(weight, weight.new_ones(weight.shape[1]), bits, width, rows, seed, dtype)
        put(model, path, packed(codes, values, bits))
    return model


def _check_smaller(model: nn.Module, paths: Sequence[str], bits: int, width: int, rows: int | None) -> None:
    """Raise ValueError for a layer whose books and codes would take more than its weights, each of 16 bits."""
    for path in paths:
        out, inside = model.get_submodule(path).weight.shape
        books = out // rows_of_a_book(out, rows) * 2**bits * width
        if books + out * inside * bits / width / 16 >= out * inside:
            what = f"bits {bits}, width {width}: {books} numbers in books for the {out} x {inside} weights of {path}"
            raise ValueError(f"{what} save nothing: give fewer bits, or more rows per book")


def _clustered(
    weight: Tensor, importance: Tensor, bits: int, width: int, rows: int | None, seed: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Values (books, 2^bits, width), exact in `dtype`, and nearest codes (out, in / width) of weight (out, in).

    importance (in,): of the squared errors of an input's weights.
    """
    generator = torch.Generator(weight.device).manual_seed(seed)
    importance = (importance / (float(importance.mean()) or 1.0) + FLOOR).to(weight.dtype).view(-1, width)
    books, codes = [], []
    for part in weight.split(rows_of_a_book(len(weight), rows)):
        points, each = part.reshape(-1, width), importance.repeat(len(part), 1)
        books.append(centers(points, each, 2**bits, generator).to(dtype).to(weight.dtype))
        codes.append(nearest(points, each, books[-1]))
    return torch.stack(books), torch.cat(codes).view(len(weight), -1).to(torch.uint8)


def centers(points: Tensor, importance: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Centers of weighted k-means of sub-vectors.

    Parameters
    ----------
    points
        (n, width).
    importance
        (n, width), of squared errors.
    count
        Number of centers.
    generator
        Draws.

    Returns
    -------
    Tensor
        (count, width).
    """
    sample = torch.randperm(len(points), generator=generator, device=points.device)[: SAMPLE * count]
    some, weighs = points[sample], importance[sample]
    found, away = [], weighs.sum(1)
    for _ in range(count):  # the next one where the error is; anywhere once there is none
        place = torch.multinomial(away if away.sum() > 0 else torch.ones_like(away), 1, generator=generator)
        found.append(some[place])
        error = (weighs * (some - found[-1]).square()).sum(1)
        away = error if len(found) == 1 else torch.minimum(away, error)
    found, before = torch.cat(found), None
    for _ in range(ROUNDS):
        codes = nearest(points, importance, found)
        if before is not None and torch.equal(codes, before):
            break
        before = codes
        mass, total = (torch.zeros_like(found).index_add_(0, codes, t) for t in (importance, importance * points))
        found = torch.where(mass > 0, total / mass, found)
    return found


def nearest(points: Tensor, importance: Tensor, values: Tensor) -> Tensor:
    """Nearest values of sub-vectors.

    Parameters
    ----------
    points
        (n, width).
    importance
        (n, width), of squared errors.
    values
        (size, width).

    Returns
    -------
    Tensor
        (n,): codes.
    """
    squared = values.square().T
    return torch.cat(
        [(h @ squared - 2 * (h * p) @ values.T).argmin(1) for p, h in zip(points.split(CHUNK), importance.split(CHUNK))]
    )
