"""Codes of a weight in books of free values, chosen so that the layer's output stays as it is.

Codes by GPTQ's sweep for sub-vectors, then the values by least squares: van Baalen et al., "GPTVQ: The Blessing of
Dimensionality for LLM Quantization", 2024, arXiv 2402.15319 (algorithm 1; for the values they descend a gradient).
"""

import torch
from torch import Tensor

from compress.algorithms.hessian import side_by_side, sweep
from compress.algorithms.quantization import require
from compress.model import layers

STEPS = 30  # of conjugate gradients
EDGE = 128  # about as many columns get the errors of those before in one matrix product


def rows_of_a_book(height: int, wanted: int | None) -> int:
    """How many rows share a book.

    Parameters
    ----------
    height
        Number of rows.
    wanted
        At least so many; None: all.

    Returns
    -------
    int
        The fewest that divide the rows.
    """
    least = min(wanted or height, height)
    return next(n for n in range(least, height + 1) if height % n == 0)


def swept(weight: Tensor, factor: Tensor, values: Tensor) -> Tensor:
    """Codes of least error, for which later columns make up.

    Parameters
    ----------
    weight
        (out, in).
    factor
        (in, in), of `inverse_factor`.
    values
        (books, 2^bits, width).

    Returns
    -------
    Tensor
        (out, in / width). With U the rows and columns of the factor at its inputs, what w costs as q is |(w - q)
        U^-1|^2.
    """
    books, _, width = values.shape
    columns = side_by_side([weight])
    factor = factor.to(columns.dtype)
    if width == 1:
        return _swept_singly(columns, factor, values.squeeze(2))
    codes, taken = [], columns[:0]
    step = max(EDGE // width, 1) * width
    edges = [*range(0, len(columns), step), len(columns)]
    inverses = torch.linalg.inv(
        torch.stack([factor[j : j + width, j : j + width] for j in range(0, len(factor), width)])
    )
    for j, column, error, current in sweep(columns, factor, edges, width):
        if j % width == 0:
            inverse = inverses[j // width]
            points = (current.T @ inverse).reshape(books, -1, width)
            found = torch.cdist(points, values @ inverse).argmin(2)  # (books, rows)
            codes.append(found.flatten())
            taken = values.gather(1, found[:, :, None].expand(-1, -1, width)).reshape(-1, width)
        torch.sub(column, taken[:, j % width], out=error).div_(factor[j, j])
    return torch.stack(codes, 1).to(torch.uint8)


def _swept_singly(columns: Tensor, factor: Tensor, values: Tensor) -> Tensor:
    """`swept` for numbers, of columns (in, out) and values (books, 2^bits): the nearest is found among sorted ones."""
    values, order = values.sort(1)
    middles, pivots, codes = (values[:, 1:] + values[:, :-1]) / 2, factor.diagonal().tolist(), []
    for j, column, error, _ in sweep(columns, factor, [*range(0, len(columns), EDGE), len(columns)]):
        places = torch.searchsorted(middles, column.view(len(values), -1))
        codes.append(order.gather(1, places).flatten())
        torch.sub(column, values.gather(1, places).flatten(), out=error).div_(pivots[j])
    return torch.stack(codes, 1).to(torch.uint8)


def refitted(weight: Tensor, hessian: Tensor, codes: Tensor, values: Tensor) -> Tensor:
    """The values of least error for given codes, by conjugate gradients.

    Parameters
    ----------
    weight
        (out, in).
    hessian
        (in, in).
    codes
        (out, in / width).
    values
        (books, size, width), to start from.

    Returns
    -------
    Tensor
        (books, size, width) that minimise tr((W - Q) H (W - Q)^T).
    """
    books, size, width = values.shape
    first = torch.arange(books, device=codes.device).repeat_interleave(len(codes) // books)[:, None] * size
    index = (codes + first).flatten()
    weight, hessian = weight.detach().to(values.dtype), hessian.to(values.dtype)
    found = values.flatten(0, 1)

    def dense(of: Tensor) -> Tensor:
        return of[index].view_as(weight)

    def sums(of: Tensor) -> Tensor:
        return torch.zeros_like(found).index_add_(0, index, of.view(-1, width))

    scale = sums(hessian.diagonal().expand_as(weight).contiguous())
    scale = torch.where(scale > 0, 1 / scale, torch.zeros_like(scale))  # values without a code stay
    residual = sums((weight - dense(found)) @ hessian)
    direction = scale * residual
    power = (residual * direction).sum()
    for _ in range(STEPS):
        if power <= 0:
            break
        curved = sums(dense(direction) @ hessian)
        bend = (direction * curved).sum()
        if not bend > 0:  # what no input tells apart
            break
        along = power / bend
        found, residual = found + along * direction, residual - along * curved
        fresh = (residual * scale * residual).sum()
        direction, power = scale * residual + fresh / power * direction, fresh
    return found.view_as(values)


def packed(codes: Tensor, values: Tensor, bits: int) -> layers.Codebook:
    """What is stored of a weight.

    Parameters
    ----------
    codes
        (out, in / width).
    values
        (books, 2^bits, width).
    bits
        Bits of a code.

    Returns
    -------
    Codebook
        Codes and values.

    Raises
    ------
    RuntimeError
        More bits are stored than requested.
    """
    found = layers.Codebook.pack(codes, values)
    require(found, bits / values.shape[2])
    return found
