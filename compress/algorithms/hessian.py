"""Second moments of what enters the linear layers, block after block, the factor of their inverse, and its use.

X X^T over the inputs X of a layer is the Hessian of its squared output error; its diagonal is all that Wanda needs.
SparseGPT and GPTQ sweep over the columns of a layer with the factor of its inverse.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from compress.algorithms.resume import Progress
from compress.model.architectures import blocks_path
from compress.model.layers import Expert
from compress.model.storage import forget
from compress.model.structure import block_linears
from compress.model.walk import Batch, capture_inputs, drop_padding, inputs, run
from transmeter.util import heap
from transmeter.util.progress import track

TILE = 192  # features of a product, and of a triangle that is inverted as a whole
STEP = 16  # columns between two matrix products inside a block of a sweep

Shared = tuple[list[str], Tensor]  # paths of the linear layers that get one and the same input, and its moment


class _Turn(NamedTuple):
    """The turn of one column in a `sweep`.

    column: its number; values (all outs,); error (all outs,): where the caller puts what it changes the values by, over
    U_jj; current (step, all outs): this column and those up to the next step as they are when the step begins.
    """

    column: int
    values: Tensor
    error: Tensor
    current: Tensor


@torch.no_grad()
def blocks(
    model: nn.Module,
    batches: Sequence[Batch],
    moment: Callable[[Tensor], Tensor],
    what: str,
    progress: Progress | None = None,
    join: Callable[[Tensor, Tensor], Tensor] = Tensor.add_,
) -> Iterator[list[Shared]]:
    """The moments of what enters the layers, block after block, on the changed blocks before.

    Parameters
    ----------
    model
        The model.
    batches
        Calibration texts.
    moment
        Of states (tokens, features): `gram`, `squares` or another.
    what
        Name of the progress bar.
    progress
        Where finished parts are kept; None: nowhere.
    join
        Makes one of the moments of two batches, the first of which it may overwrite.

    Yields
    ------
    list
        Paths of layers that get the same input, and its moment. The caller changes the weights of a block before
        it asks for the next one. Layers of an expert that no real token reaches are in none of them.

    Warns
    -----
    UserWarning
        There are such experts.
    """
    unreached: list[str] = []
    number = 0  # of experts
    done, end = progress.restore(model) if progress else 0, model.config.num_hidden_layers
    stream = [run(model, batch, stop=done) for batch in batches] if done < end else []
    for block in track(range(done, end), what):
        experts = _experts(model, block)
        shared = _moments(model, block, batches, stream, moment, join, experts)
        seen = {experts.get(path) for paths, _ in shared for path in paths}
        number += len(set(experts.values()))
        unreached += [expert for expert in dict.fromkeys(experts.values()) if expert not in seen]
        yield shared
        if progress:
            progress.keep(block, model, [block])
        if block + 1 < end:
            for i, batch in enumerate(batches):
                stream[i] = run(model, batch, block, block + 1, stream[i])
        forget(model.get_submodule(f"{blocks_path(model)}.{block}"))
        heap.trim()  # the weights before were made by other threads, whose memory this one does not use again
    if unreached:
        what = f"no calibration token reaches {len(unreached)} of {number} experts ({unreached[0]} first)"
        outcome = "quantizers round them to nearest, other methods leave them as they are"
        warnings.warn(f"{what}: {outcome}: give more texts to fit them", stacklevel=3)


def _experts(model: nn.Module, block: int) -> dict[str, str]:
    """The expert that every linear layer of the experts of one block belongs to, both by path."""
    inside = f"{blocks_path(model)}.{block}"
    modules = model.get_submodule(inside).named_modules(prefix=inside)
    experts = {path: module for path, module in modules if isinstance(module, Expert)}
    return {name: path for path, module in experts.items() for name, _ in module.named_modules(prefix=path)}


def _moments(
    model: nn.Module,
    block: int,
    batches: Sequence[Batch],
    stream: Sequence[Tensor],
    moment: Callable[[Tensor], Tensor],
    join: Callable[[Tensor, Tensor], Tensor],
    experts: Mapping[str, str],
) -> list[Shared]:
    """The moment of every input of the linear layers of one block, joined over the batches.

    stream: what enters the block; experts: those that its layers belong to.
    """
    paths = [path for path, _ in block_linears(model, block)]
    first: dict[str, str] = {}  # of every path the first one that gets the same input
    totals: dict[str, Tensor] = {}
    for batch, hidden in zip(batches, stream):
        firsts: dict[int, str] = {}
        with inputs(model, list(set(experts.values()))) as routed:  # numbers of the tokens that each expert is for
            captured = capture_inputs(model, batch, block, hidden, paths)
        for path, states in captured.items():
            rows = drop_padding(batch, states, routed.get(experts.get(path, "")))
            if not len(rows):
                continue
            first[path] = firsts.setdefault(id(states), path)
            if first[path] == path:
                added = moment(rows)
                totals[path] = join(totals[path], added) if path in totals else added
    return [([p for p in first if first[p] == path], total) for path, total in totals.items()]


def gram(states: Tensor) -> Tensor:
    """Second moments of states.

    Parameters
    ----------
    states
        (tokens, features).

    Returns
    -------
    Tensor
        X^T X in float64, (features, features); the product itself is in float32, which loses far less than any damping,
        and of its upper half, the other being the same.
    """
    states = states.float()
    found = torch.empty(2 * states.shape[1:], dtype=torch.float64, device=states.device)
    for start in range(0, len(found), TILE):
        end = start + TILE
        found[start:end, start:] = states[:, start:end].T @ states[:, start:]
        found[end:, start:end] = found[start:end, end:].T
    return found


def squares(states: Tensor) -> Tensor:
    """The diagonal of `gram`.

    Parameters
    ----------
    states
        (tokens, features).

    Returns
    -------
    Tensor
        (features,).
    """
    return states.float().square().sum(0, dtype=torch.float64)


def inverse_factor(gram: Tensor, damping: float, dtype: torch.dtype | None = None) -> Tensor:
    """Factor of the inverse of second moments.

    Parameters
    ----------
    gram
        (features, features).
    damping
        Above 0, so that dead features have an inverse too; relative to the mean of the diagonal.
    dtype
        Of the result, in which the Cholesky factor of `gram` is inverted: its condition is but the square root of that
        of `gram`; None: that of `gram`.

    Returns
    -------
    Tensor
        Upper triangular U with U^T U = (gram + d I)^-1. From one Cholesky: with the order of the features reversed,
        gram = R R^T for an upper triangular R, and U = R^-1.
    """
    damped = gram.flip(0, 1)
    damped.diagonal().add_(damping * float(gram.diagonal().mean()) or 1.0)  # nothing ever enters: any inverse will do
    return _inverse(torch.linalg.cholesky(damped).flip(0, 1).to(dtype or gram.dtype))


def _inverse(upper: Tensor) -> Tensor:
    """The inverse of an upper triangular matrix: of its quarters, so that matrix products do most of the work."""
    if len(upper) <= TILE:
        return torch.linalg.solve_triangular(upper, torch.eye(len(upper)).to(upper), upper=True)
    half, found = len(upper) // 2, torch.zeros_like(upper)
    found[:half, :half], found[half:, half:] = _inverse(upper[:half, :half]), _inverse(upper[half:, half:])
    found[:half, half:] = found[:half, :half] @ upper[:half, half:] @ found[half:, half:].neg()
    return found


def side_by_side(weights: Sequence[Tensor]) -> Tensor:
    """The weights of layers that get the same input, in one tensor.

    Parameters
    ----------
    weights
        (out, in) each, of layers that get the same input.

    Returns
    -------
    Tensor
        (in, all outs), new, in float32 at least.
    """
    exact = torch.promote_types(weights[0].dtype, torch.float32)
    return torch.cat(list(weights)).to(exact).T.clone(memory_format=torch.contiguous_format)


def sweep(columns: Tensor, factor: Tensor, edges: Sequence[int], step: int = STEP) -> Iterator[_Turn]:
    """Give the columns of a weight their turn, one by one; those behind make up for the error of each.

    Parameters
    ----------
    columns
        (in, all outs) of `side_by_side`, changed in place: in the end, every column is what it was at its turn.
    factor
        (in, in), of `inverse_factor`.
    edges
        0, rising, up to len(columns): behind the next edge an error reaches in one matrix product.
    step
        Before it, an error reaches behind the next multiple of this.

    Yields
    ------
    _Turn
        An error e_j takes e_j U_jk from every later column k.
    """
    for start, end in pairwise(edges):
        now, upper = columns[start:end], factor[start:end, start:end]
        errors = torch.zeros_like(now)  # of a column whose turn is still to come
        for a in range(0, len(now), step):
            part = slice(a, a + step)
            current = now[part] - upper[:a, part].T @ errors[:a]
            turns = zip(current, upper[part, part].unbind(1), errors[part])
            for j, (column, shares, error) in enumerate(turns, start + a):
                yield _Turn(j, torch.addmv(column, errors[part].T, shares, alpha=-1), error, current)
        now -= upper.triu(1).T @ errors
        columns[end:] -= factor[start:end, end:].T @ errors
