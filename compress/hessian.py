"""Second moments of what enters the linear layers, block after block, and the factor of their inverse.

X X^T over the inputs X of a layer is the Hessian of its squared output error; its diagonal is all that Wanda needs.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from compress.progress import Progress
from compress.structure import block_linears
from compress.walk import Batch, entered, real, run, track

Shared = tuple[list[str], Tensor]  # paths of the linear layers that get one and the same input, and its moment


@torch.no_grad()
def blocks(
    model: nn.Module,
    batches: Sequence[Batch],
    moment: Callable[[Tensor], Tensor],
    what: str,
    progress: Progress | None = None,
) -> Iterator[list[Shared]]:
    """Give the moments of every block in turn, measured on the changed blocks before it.

    The caller changes the weights of the block before it asks for the next one. moment: `gram` or `squares`; what:
    name of the progress bar; progress: where finished blocks are kept, and taken from.
    """
    done, end = progress.restore(model) if progress else 0, model.config.num_hidden_layers
    stream = [run(model, batch, stop=done) for batch in batches] if done < end else []
    for block in track(range(done, end), what):
        yield _moments(model, block, batches, stream, moment)
        if progress:
            progress.keep(block, model, [block])
        if block + 1 < end:
            for i, batch in enumerate(batches):
                stream[i] = run(model, batch, block, block + 1, stream[i])


def _moments(
    model: nn.Module, block: int, batches: Sequence[Batch], stream: Sequence[Tensor], moment: Callable[[Tensor], Tensor]
) -> list[Shared]:
    """The moment of every input of the linear layers of one block, summed over the batches; stream: what enters it."""
    paths = [path for path, _ in block_linears(model, block)]
    first: dict[str, str] = {}  # of every path the first one that gets the same input
    totals: dict[str, Tensor] = {}
    for batch, hidden in zip(batches, stream):
        firsts: dict[int, str] = {}
        for path, states in entered(model, batch, block, hidden, paths).items():
            first[path] = firsts.setdefault(id(states), path)
            if first[path] == path:
                added = moment(real(batch, states))
                totals[path] = totals[path].add_(added) if path in totals else added
    return [([p for p in first if first[p] == path], total) for path, total in totals.items()]


def gram(states: Tensor) -> Tensor:
    """X^T X of states (tokens, features) in float64.

    The product itself in float32: what it loses is far below any damping, and it takes half the time on a CPU.
    """
    states = states.float()
    return (states.T @ states).double()


def squares(states: Tensor) -> Tensor:
    """The diagonal of `gram`, (features,)."""
    return states.float().square().sum(0, dtype=torch.float64)


def inverse_factor(gram: Tensor, damping: float) -> Tensor:
    """Upper triangular U with U^T U = (gram + d I)^-1, d = damping * mean(diag), all (features, features).

    damping above 0, so that dead features (a zero row) have an inverse too. From one Cholesky: with the order of the
    features reversed, gram = R R^T for an upper triangular R, and U = R^-1.
    """
    eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    pull = damping * float(gram.diagonal().mean()) or 1.0  # nothing ever enters: any inverse will do
    upper = torch.linalg.cholesky((gram + pull * eye).flip(0, 1)).flip(0, 1)
    return torch.linalg.solve_triangular(upper, eye, upper=True)
