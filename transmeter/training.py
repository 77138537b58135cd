"""One flat training loop for many stacked networks; no callbacks."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from rich import progress
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F

from transmeter import losses
from transmeter.modules import Branch, Discriminators, Trunk, represent, reverse

T = TypeVar("T")


@dataclass(frozen=True)
class Terms:
    """Weights of the terms of the loss; zero switches a term off (a, r, g, m below)."""

    source_loss: float = 1.0
    reconstruction: float = 0.1
    discriminator: float = 0.1
    mean_distance: float = 0.01

    def __post_init__(self) -> None:
        for name, weight in vars(self).items():
            if not 0 <= weight < float("inf"):
                raise ValueError(f"{name} {weight} is no weight of a term: give a number of at least 0")


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train; the same in every arm of a comparison."""

    steps: int = 60
    rate: float = 3e-3
    decay: float = 1e-2
    batch: int = 64

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps {self.steps} is too few: give at least 1")


@dataclass
class Stack:
    """B networks in training, B = arms x splits (arm-major), and what they are made of."""

    target: Branch
    trunk: Trunk
    source: Branch | None = None
    discriminators: Discriminators | None = None

    def parameters(self) -> list[nn.Parameter]:
        """All weights."""
        modules = (self.target, self.trunk, self.source, self.discriminators)
        return [p for m in modules if m is not None for p in m.parameters()]


@dataclass(frozen=True)
class Data:
    """What B networks train on. A = arms (sources, then the target alone), P = splits, B = A * P.

    x_t (n_t, d_t) target rows, q_t (n_t, classes) their labels; train (P, shots) the labelled rows that a split may
    train on; x_u (n_u, d_t) the unlabelled rows; x_s (A, n_s, d_s) source rows, zero-padded, rows (A,) and features
    (A,) the true sizes, 0 where there is no source; codes_s (A, n_s) their classes; mapping (B, classes) the source
    class of every target class, -1 where there is none.
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


@torch.enable_grad()  # sources are trained when first asked for, wherever that is
def fit(stack: Stack, data: Data, terms: Terms, schedule: Schedule, seed: int) -> None:
    """Minimise CE_t + a CE_s + r (R_s + R_t) + g sum_c BCE(G_c) + m sum_c |mean distance|^2, in place."""
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(stack.parameters(), lr=schedule.rate, weight_decay=schedule.decay)
    arms, splits = len(data.rows), len(data.train)
    with one_thread():
        for _ in range(schedule.steps):
            loss = _loss(stack, data, terms, schedule.batch, arms, splits, generator).sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()


@contextmanager
def one_thread() -> Iterator[None]:
    """These matrices are small: a second thread gains nothing, and costs ten times the time on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _loss(
    stack: Stack, data: Data, terms: Terms, batch: int, arms: int, splits: int, generator: torch.Generator
) -> Tensor:
    """(B,) the loss of every network on rows drawn at random.

    The arms of a split draw the same target rows, and sources of one size the same places.
    """
    drawn = data.train.gather(1, _draw(splits, batch, data.train.shape[1], generator))  # (P, b)
    x_t, q_t = data.x_t[drawn].repeat(arms, 1, 1), data.q_t[drawn].repeat(arms, 1, 1)
    z_t = represent(stack.target, stack.trunk, x_t)
    loss = losses.cross_entropy(stack.trunk.head(z_t), q_t)
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


def track(steps: Iterable[T], what: str) -> Iterable[T]:
    """`steps` with a progress bar on stderr, quiet when that is not a terminal."""
    console = Console(stderr=True)
    return progress.track(steps, what, console=console, disable=not console.is_terminal)
