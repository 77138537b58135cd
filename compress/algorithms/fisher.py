"""How much the loss changes with the weights of each linear layer, without labels."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from compress.methods.kprune import curvature_probe
from compress.model.offload import refuse
from compress.model.structure import block_linears
from compress.model.walk import Batch, frozen, row_weights, run
from transmeter.util.progress import track


def fisher(model: nn.Module, batches: Sequence[Batch], seed: int, of: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """`of` the squared gradients (out, in) of every linear layer of the blocks, summed over the batches; by path.

    Of the log-probability of labels that the model itself draws, one a row. As these are independent and their
    gradients zero on average, the square of a batch's gradient is on average the sum of those of its sequences.
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
            loss = curvature_probe(logits, row_weights(logits, batch), 1.0, generator).sum()
            for path, gradient in zip(weights, torch.autograd.grad(loss, list(weights.values()))):
                added = of(gradient.double().square())
                found[path] = found[path] + added if path in found else added
        for weight in weights.values():
            weight.requires_grad_(False)
    return found
