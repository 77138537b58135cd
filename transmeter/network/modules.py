"""The networks of Transmeter, stacked: every module holds B independent networks and runs them as one batch.

Reconstructed from the published abstracts of Park et al., arXiv 1912.13366: feature transformation layers, an encoder
and a classifier that both tables share, decoders back to each feature space, and one discriminator a class.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class StackedLinear(nn.Module):
    """B linear layers: x (B, n, in) -> (B, n, out). weight (B, in, out), bias (B, 1, out)."""

    def __init__(self, stack: int, inputs: int, outputs: int, generator: torch.Generator):
        super().__init__()
        scale = (2 / max(inputs, 1)) ** 0.5
        self.weight = nn.Parameter(scale * torch.randn(stack, inputs, outputs, generator=generator))
        self.bias = nn.Parameter(torch.zeros(stack, 1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


class Branch(nn.Module):
    """What belongs to one feature space: its transformation T (d -> m) and its decoder D (h -> d)."""

    def __init__(self, stack: int, features: int, width: int, hidden: int, generator: torch.Generator):
        super().__init__()
        self.transform = StackedLinear(stack, features, width, generator)
        self.decode = StackedLinear(stack, hidden, features, generator)


class Trunk(nn.Module):
    """What both feature spaces share: the encoder E (m -> h) and the classifier head C (h -> classes)."""

    def __init__(self, stack: int, width: int, hidden: int, classes: int, generator: torch.Generator):
        super().__init__()
        self.encode = StackedLinear(stack, width, hidden, generator)
        self.head = StackedLinear(stack, hidden, classes, generator)


class Discriminators(nn.Module):
    """One discriminator a class: z (B, n, h) -> logits (B, n, classes) that z comes from the source."""

    def __init__(self, stack: int, hidden: int, classes: int, generator: torch.Generator, width: int = 8):
        super().__init__()
        self.classes = classes
        self.first = StackedLinear(stack, hidden, classes * width, generator)
        self.second = nn.Parameter(torch.randn(stack, 1, classes, width, generator=generator) / width**0.5)
        self.bias = nn.Parameter(torch.zeros(stack, 1, classes))

    def forward(self, z: Tensor) -> Tensor:
        hidden = F.relu(self.first(z)).unflatten(2, (self.classes, -1))  # (B, n, classes, width)
        return (hidden * self.second).sum(3) + self.bias


def represent(branch: Branch, trunk: Trunk, x: Tensor) -> Tensor:
    """z = E(T(x)).

    Parameters
    ----------
    branch, trunk : Branch, Trunk
        Networks of B stacks.
    x : Tensor of shape (B, n, d)
        Encoded rows.

    Returns
    -------
    Tensor of shape (B, n, h)
        Representations.
    """
    return F.relu(trunk.encode(F.relu(branch.transform(x))))


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z: Tensor) -> Tensor:
        return z.view_as(z)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return -gradient


def reverse(z: Tensor) -> Tensor:
    """z itself, with its gradient turned around: what fools the discriminators is learned.

    Parameters
    ----------
    z : Tensor
        Of any shape.

    Returns
    -------
    Tensor
        Equal to `z`.

    References
    ----------
    Ganin & Lempitsky, "Unsupervised Domain Adaptation by Backpropagation", 2015, arXiv 1409.7495.
    """
    return _Reverse.apply(z)
