"""How much the loss changes with the weights of each linear layer, without labels."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.model.offload import refuse
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
    refuse(model, "squared gradients of all weights at once")
    generator = torch.Generator(model.device).manual_seed(seed)
    blocks = range(model.config.num_hidden_layers)
    weights = {path: linear.weight for block in blocks for path, linear in block_linears(model, block)}
    found: dict[str, Tensor] = {}
    with torch.enable_grad(), frozen(model):
        for weight in weights.values():
            weight.requires_grad_(True)
        for batch in track(batches, "Squared gradients"):
            logits = run(model, batch).float()
            loss = curvature_probe(logits, row_weights(model, logits, batch), 1.0, generator).sum()
            gradients = torch.autograd.grad(
                loss, list(weights.values()), materialize_grads=True
            )  # 0 where none reaches
            for path, gradient in zip(weights, gradients):
                added = of(gradient.double().square())
                found[path] = found[path] + added if path in found else added
        for weight in weights.values():
            weight.requires_grad_(False)
    return found


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
