"""How much the loss changes with the weights of each linear layer, without labels."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.model.structure import block_linears
from compress.model.walk import Batch, frozen, row_weights, run
from transmeter.util.progress import track


def fisher(model: nn.Module, batches: Sequence[Batch], seed: int, of: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """Squared gradients of every linear layer of the blocks, without labels.

    Parameters
    ----------
    model
        The model.
    batches
        Calibration texts.
    seed
        Of random draws.
    of
        What is kept of the squares (out, in) of a batch.

    Returns
    -------
    dict
        By path, summed over the batches: of the log-probability of labels that the model itself draws, one a row.
        As these
        are independent and their gradients zero on average, the square of a batch's gradient is on average the sum
        of those of its sequences.
    """
    generator = torch.Generator(model.device).manual_seed(seed)
    paths = [[path for path, _ in block_linears(model, block)] for block in range(model.config.num_hidden_layers)]
    listed = dict(model.named_parameters(remove_duplicate=False))  # of a model that streams, without their values
    weights = {path: listed[f"{path}.weight"] for inside in paths for path in inside}
    found: dict[str, Tensor] = {}
    with torch.enable_grad(), frozen(model):
        for weight in weights.values():
            weight.requires_grad_(True)
        for batch in track(batches, "Squared gradients"):
            for same, gradient in _summed(_gradients(model, batch, paths, generator), weights):
                added = of(gradient.double().square())
                for path in same:
                    found[path] = found[path] + added if path in found else added
        for weight in weights.values():
            weight.requires_grad_(False)
    return found


def _gradients(
    model: nn.Module, batch: Batch, paths: Sequence[Sequence[str]], generator: torch.Generator
) -> Iterator[tuple[str, Tensor]]:
    """The gradient of the loss by the weight of every linear layer, by path, the last block first.

    Block by block from the hidden states before each, so that activations and gradients of one block are in memory.
    paths: of the linear layers of each block.
    """
    with torch.no_grad():
        states = [run(model, batch, stop=0)]
        for block in range(len(paths) - 1):
            states.append(run(model, batch, block, block + 1, states[-1]))
    above = None  # gradient by what leaves the block
    for block, inside in reversed(list(enumerate(paths))):
        above, *found = _through(model, batch, block, inside, states.pop(), above, generator)
        while found:
            yield inside[-len(found)], found.pop(0)  # held no longer than it is used


def _through(
    model: nn.Module,
    batch: Batch,
    block: int,
    inside: Sequence[str],
    hidden: Tensor,
    above: Tensor | None,
    generator: torch.Generator,
) -> Sequence[Tensor]:
    """The gradients by what enters a block, and by the weights `inside` it, 0 where none reaches.

    hidden: what enters; above: the gradient by what leaves; None: the last block, behind which the loss is.
    """
    hidden.requires_grad_(True)
    if above is None:
        logits = run(model, batch, block, None, hidden).float()
        result = curvature_probe(logits, row_weights(model, logits, batch), 1.0, generator).sum()
    else:
        result = run(model, batch, block, block + 1, hidden)
    weights = [model.get_submodule(path).weight for path in inside]
    return torch.autograd.grad(result, [hidden, *weights], above, materialize_grads=True)


def _summed(
    gradients: Iterable[tuple[str, Tensor]], weights: Mapping[str, Tensor]
) -> Iterator[tuple[list[str], Tensor]]:
    """The paths of every weight and its gradient, a sum where several layers share the weight."""
    sharing: dict[int, list[str]] = {}
    for path, weight in weights.items():
        sharing.setdefault(id(weight), []).append(path)
    missing = {key: len(same) for key, same in sharing.items()}
    sums: dict[int, Tensor] = {}
    for path, gradient in gradients:
        key = id(weights[path])
        sums[key] = sums[key] + gradient if key in sums else gradient
        missing[key] -= 1
        if not missing[key]:
            yield sharing[key], sums.pop(key)


def curvature_probe(logits: Tensor, weights: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """Values whose squared gradients are, on average, the second derivatives of `divergence` at zero.

    Parameters
    ----------
    logits
        (batch, rows, classes).
    weights
        (batch, rows).
    temperature
        Gamma.
    generator
        Draws.

    Returns
    -------
    Tensor
        (batch,): gamma times the log-probability of a label that the model itself draws (Fisher information), of
        one label a row, independently, over the root of their number.
    """
    if logits.shape[-1] == 1:
        signs = torch.randint(0, 2, weights.shape, generator=generator, device=logits.device) * 2 - 1
        each = 2**0.5 * logits.squeeze(-1) * signs
    else:
        logs = F.log_softmax(logits / temperature, -1)
        levels = logs.detach().exp().cumsum(-1)  # drawn by the inverse of the distribution function
        points = torch.rand(*weights.shape, 1, generator=generator, device=logits.device) * levels[..., -1:]
        drawn = torch.searchsorted(levels, points).clamp(max=logs.shape[-1] - 1)
        each = temperature * logs.gather(-1, drawn).squeeze(-1)
    return (each * weights).sum(1) / weights.sum(1).sqrt()
