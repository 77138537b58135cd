"""One flat training loop for many stacked networks; no callbacks."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from transmeter.network import losses
from transmeter.network.modules import Branch, Discriminators, Trunk, represent, reverse


@dataclass(frozen=True)
class Terms:
    """Weights of the terms of the loss; zero switches a term off.

    Attributes
    ----------
    source_loss, reconstruction, discriminator, mean_distance, distillation : float
        a, r, g, m and k in `fit`.
    """

    source_loss: float = 1.0
    reconstruction: float = 0.0
    discriminator: float = 0.0
    mean_distance: float = 0.0
    distillation: float = 1.0

    def __post_init__(self) -> None:
        for name, weight in vars(self).items():
            if not 0 <= weight < float("inf"):
                raise ValueError(f"{name} {weight} is no weight of a term: give a number of at least 0")


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train; the same in every arm of a comparison.

    Attributes
    ----------
    steps, batch : int
        Number of steps, and rows of each.
    rate, decay : float
        Learning rate and weight decay of AdamW.
    noise : float
        Standard deviation of what is added to the target's (standardised) features at every step.
    """

    steps: int = 80
    rate: float = 3e-3
    decay: float = 1e-2
    batch: int = 64
    noise: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps {self.steps} is too few: give at least 1")


@dataclass
class Stack:
    """B networks in training, B = arms x splits (arm-major), and what they are made of.

    Attributes
    ----------
    target, source : Branch
        Layers of the feature spaces; no source where None.
    trunk : Trunk
        Layers that both share.
    discriminators : Discriminators or None
        One per class.
    pace : dict
        Parameter -> share of the learning rate of each of its values (broadcastable), 1 where none is set.
    """

    target: Branch
    trunk: Trunk
    source: Branch | None = None
    discriminators: Discriminators | None = None
    pace: dict[nn.Parameter, Tensor] = field(default_factory=dict)

    def parameters(self) -> list[nn.Parameter]:
        """All weights."""
        modules = (self.target, self.trunk, self.source, self.discriminators)
        return [p for m in modules if m is not None for p in m.parameters()]


@dataclass(frozen=True)
class Data:
    """What B networks train on: A arms (sources, then the target alone), P splits, B = A * P.

    Attributes
    ----------
    x_t : Tensor of shape (n_t, d_t)
        Target rows.
    q_t : Tensor of shape (n_t, classes)
        Their labels.
    train : Tensor of shape (P, shots)
        Labelled rows that a split may train on.
    x_u : Tensor of shape (n_u, d_t)
        Unlabelled rows.
    rows, features : Tensor of shape (A,)
        True sizes of the sources, 0 where there is none.
    x_s : Tensor of shape (A, n_s, d_s) or None
        Source rows, padded with zeros.
    codes_s : Tensor of shape (A, n_s) or None
        Their classes.
    mapping : Tensor of shape (B, classes) or None
        Source class of every target class, -1 where there is none.
    taught : Tensor of shape (A, n_u, classes) or None
        Probabilities by the source's classifier of unlabelled target rows that it has seen in its own columns, zero
        where it has not.
    """

    x_t: Tensor
    q_t: Tensor
    train: Tensor
    x_u: Tensor
    rows: Tensor
    x_s: Tensor | None = None
    features: Tensor | None = None
    codes_s: Tensor | None = None
    mapping: Tensor | None = None
    taught: Tensor | None = None


@torch.enable_grad()  # sources are trained when first asked for, wherever that is
def fit(stack: Stack, data: Data, terms: Terms, schedule: Schedule, seed: int) -> None:
    """Minimise CE_t + a CE_s + r (R_s + R_t) + g sum_c BCE(G_c) + m sum_c |mean distance|^2 + k CE_u, in place.

    CE_u: cross-entropy of unlabelled target rows with what the source's classifier says of the same things.

    Parameters
    ----------
    stack : Stack
        Networks to train.
    data : Data
        Rows.
    terms : Terms
        Weights a, r, g, m and k.
    schedule : Schedule
        Steps and rates.
    seed : int
        Seed of batches and noise.
    """
    generator = torch.Generator().manual_seed(seed)
    other = torch.Generator().manual_seed(seed + 1)  # of taught rows, which not every stack has
    optimiser = torch.optim.AdamW(stack.parameters(), lr=schedule.rate, weight_decay=schedule.decay, fused=True)
    arms, splits = len(data.rows), len(data.train)
    with one_thread():
        for _ in range(schedule.steps):
            loss = _loss(stack, data, terms, schedule, arms, splits, generator, other).sum()
            optimiser.zero_grad()
            loss.backward()
            before = [p.detach().clone() for p in stack.pace]
            optimiser.step()
            with torch.no_grad():  # AdamW has one rate for all values of a parameter
                for (parameter, share), old in zip(stack.pace.items(), before):
                    parameter.copy_(old.lerp(parameter, share))


@contextmanager
def one_thread() -> Iterator[None]:
    """Run with one thread inside: these matrices are small, and a second costs ten times the time on a busy machine.

    Yields
    ------
    None
        The number of threads is restored at the end.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _loss(
    stack: Stack,
    data: Data,
    terms: Terms,
    schedule: Schedule,
    arms: int,
    splits: int,
    generator: torch.Generator,
    other: torch.Generator,
) -> Tensor:
    """(B,) the loss of every network on rows drawn at random.

    The arms of a split draw the same target rows, and sources of one size the same places.
    """
    batch = schedule.batch
    drawn = data.train.gather(1, _draw(splits, batch, data.train.shape[1], generator))  # (P, b)
    x_t, q_t = data.x_t[drawn], data.q_t[drawn].repeat(arms, 1, 1)
    if schedule.noise:
        x_t = x_t + schedule.noise * torch.randn(x_t.shape, generator=generator)
    x_t = x_t.repeat(arms, 1, 1)
    z_t = represent(stack.target, stack.trunk, x_t)
    loss = losses.cross_entropy(stack.trunk.head(z_t), q_t)
    if data.taught is not None and terms.distillation:
        rows = torch.randint(len(data.x_u), (splits, min(batch, len(data.x_u))), generator=other)
        z_u = represent(stack.target, stack.trunk, data.x_u[rows].repeat(arms, 1, 1))
        q_u = data.taught[:, rows].flatten(0, 1)
        loss = loss + terms.distillation * losses.cross_entropy(stack.trunk.head(z_u), q_u)
    aligned = data.x_s is not None and (terms.discriminator or terms.mean_distance)
    if len(data.x_u) and (terms.reconstruction or aligned):
        rows = torch.randint(len(data.x_u), (min(batch, len(data.x_u)),), generator=generator)
        x_t = torch.cat([x_t, data.x_u[rows].expand(arms * splits, -1, -1)], 1)
        z_u = represent(stack.target, stack.trunk, x_t[:, z_t.shape[1] :])
        q_t = torch.cat([q_t, F.softmax(stack.trunk.head(z_u), 2).detach()], 1)
        z_t = torch.cat([z_t, z_u], 1)
    if terms.reconstruction:
        features = torch.full((arms * splits,), x_t.shape[2])
        loss = loss + terms.reconstruction * losses.reconstruction(stack.target.decode(z_t), x_t, features)
    if data.x_s is None or not (terms.source_loss or aligned):
        return loss
    place = torch.rand(splits, batch, generator=generator).repeat(arms, 1)
    index = (place * data.rows.repeat_interleave(splits)[:, None]).long()  # (B, b)
    arm = torch.arange(arms).repeat_interleave(splits)[:, None]
    x_s, codes = data.x_s[arm, index], data.codes_s[arm, index]
    q_s = ((codes[:, :, None] == data.mapping[:, None]) & (codes >= 0)[:, :, None]).float()
    z_s = represent(stack.source, stack.trunk, x_s)
    extra = terms.source_loss * losses.cross_entropy(stack.trunk.head(z_s), q_s)
    if terms.reconstruction:
        features = data.features.repeat_interleave(splits)
        extra = extra + terms.reconstruction * losses.reconstruction(stack.source.decode(z_s), x_s, features)
    if terms.discriminator:
        logits_s, logits_t = stack.discriminators(reverse(z_s)), stack.discriminators(reverse(z_t))
        extra = extra + terms.discriminator * losses.discrimination(logits_s, q_s, logits_t, q_t)
    if terms.mean_distance:
        extra = extra + terms.mean_distance * losses.mean_distance(z_s, q_s, z_t, q_t)
    return loss + (data.rows > 0).repeat_interleave(splits) * extra


def _draw(splits: int, batch: int, rows: int, generator: torch.Generator) -> Tensor:
    """(splits, min(batch, rows)) indices without repetition within a split."""
    return torch.rand(splits, rows, generator=generator).argsort(1)[:, :batch]
