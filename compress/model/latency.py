"""Seconds that heads, neurons, sublayers and blocks take on this machine, so that a budget can be a time."""

import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import nn

from compress.model.offload import refuse
from compress.model.structure import Sublayer, keep_blocks, remove, shallow_copy

Piece = Literal["unit", "sublayer", "block"]
ROUNDS = 25
PATIENCE = 10.0  # seconds after which five rounds are enough


@torch.no_grad()
def seconds(
    models: Sequence[nn.Module], tokens: int, batch: int = 1, timer: Callable[[], float] = time.perf_counter
) -> list[float]:
    """The time of one forward pass of several models, which take turns, so that other work hits all of them alike.

    Parameters
    ----------
    models
        On one device.
    tokens
        Length of the sequence.
    batch
        Sequences per forward pass.
    timer
        The clock, in seconds.

    Returns
    -------
    list of float
        Median seconds per sequence, one for each model.
    """
    device = models[0].device
    ids = (torch.arange(tokens, device=device) * 37 % models[0].config.vocab_size).repeat(batch, 1)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    found: list[list[float]] = [[] for _ in models]
    begin = time.perf_counter()
    for done in range(-2, ROUNDS):  # two rounds to warm up
        if done >= 5 and time.perf_counter() - begin > PATIENCE:
            break
        for model, times in zip(models, found):
            start = timer()
            model(**inputs)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(timer() - start)
    return [statistics.median(times[2:]) / batch for times in found]


class Clock:
    """The time of one sequence, at the speed that the machine has now.

    Whatever is measured later is measured beside the dense model (a shallow copy) and set in proportion to it, because
    a machine with other work to do may be half as fast a minute later. Proportions are of processor time, which other
    work disturbs least, where all work is done by one thread.

    Parameters
    ----------
    model
        The dense model, in memory.
    tokens
        Length of the sequence.
    request
        Seconds that are requested.

    Raises
    ------
    ValueError
        The model streams from files.
    """

    def __init__(self, model: nn.Module, tokens: int, request: float):
        refuse(model, "a latency is measured on the model as it runs")
        self.model, self.tokens, self.request = shallow_copy(model), tokens, request
        self.dense = seconds([model], tokens)[0]
        alone = model.device.type == "cpu" and torch.get_num_threads() == 1
        self.timer = time.process_time if alone else time.perf_counter

    def measure(self, models: Sequence[nn.Module]) -> list[float]:
        """Seconds of each of `models`."""
        now, *found = seconds([self.model, *models], self.tokens, timer=self.timer)
        return [self.dense * s / now for s in found]

    def check(self, model: nn.Module) -> None:
        """Warn where `model` takes a tenth more than the request."""
        found = self.measure([model])[0]
        if found > 1.1 * self.request:
            warnings.warn(
                f"latency: {self.request:.3g} seconds requested, {found:.3g} measured on one sequence of {self.tokens} "
                f"tokens, where the dense model takes {self.dense:.3g}",
                stacklevel=2,
            )


@torch.no_grad()
def table(clock: Clock, sublayers: Sequence[Sublayer], piece: Piece) -> tuple[float, list[float]]:
    """The time of every unit.

    Sublayers of one kind and size, or blocks of the same ones, are measured together by what the model saves without
    them; where single units go, without three quarters of them. There time is not quite a straight line, so that the
    table is set right where it is needed: by a model that has the share of every sublayer that the request allows.

    Parameters
    ----------
    clock
        Of the dense model.
    sublayers
        All sublayers of the model.
    piece
        What can be removed.

    Returns
    -------
    tuple
        Seconds that no unit takes, and seconds of one unit of each sublayer.
    """
    shapes: dict[int, list[tuple[str, int]]] = {}
    for s in sublayers:
        shapes.setdefault(s.block, []).append((s.kind, s.units))
    keys = [tuple(shapes[s.block]) if piece == "block" else (s.kind, s.units) for s in sublayers]
    groups = {key: [s for s, k in zip(sublayers, keys) if k == key] for key in keys}
    share = 0.25 if piece == "unit" else 0.0
    without, dense = clock.measure([_smaller(clock.model, g, share, piece) for g in groups.values()]), clock.dense
    # a sublayer that the noise lets seem free would never be removed
    saved = {k: max(dense - t, 0.001 * dense) / len(groups[k]) for k, t in zip(groups, without)}
    costs = [saved[k] / max(s.units - _left(s, share), 1) for s, k in zip(sublayers, keys)]
    rest = dense - sum(s.units * c for s, c in zip(sublayers, costs))
    if piece == "unit" and rest < clock.request < dense:
        share = (clock.request - rest) / (dense - rest)
        rest = clock.measure([_smaller(clock.model, sublayers, share, piece)])[0]
        rest -= sum(_left(s, share) * c for s, c in zip(sublayers, costs))
    return rest, costs


def _left(sub: Sublayer, share: float) -> int:
    return max(1, round(share * sub.units)) if share else 0


def _smaller(model: nn.Module, group: Sequence[Sublayer], share: float, piece: Piece) -> nn.Module:
    """`model` with the share of the units of `group`, or without its blocks."""
    smaller = shallow_copy(model)
    if piece == "block":
        gone = {s.block for s in group}
        keep_blocks(smaller, [i for i in range(model.config.num_hidden_layers) if i not in gone])
    else:
        for sub in group:
            remove(smaller, sub, torch.arange(sub.units) < _left(sub, share))
    return smaller
