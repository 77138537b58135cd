"""Seconds that sublayers take on this machine, so that a budget can be a time."""

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

from compress.offload import refuse
from compress.structure import Sublayer, fork, remove, sublayers

REPEATS = 15


def seconds(call: Callable[[], object], repeats: int = REPEATS) -> float:
    """Median seconds of one call, after two calls to warm up."""
    found = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return statistics.median(found[2:])


@torch.no_grad()
def table(model: nn.Module, found: Sequence[Sublayer], tokens: int) -> tuple[float, list[float]]:
    """(seconds that no unit takes, seconds of one unit of each sublayer) of one sequence of `tokens`.

    Sublayers of one kind and size are measured once, all of that kind with a quarter of their units against all.
    """
    refuse(model, "a latency is measured on the model as it runs")
    ids = (torch.arange(tokens, device=model.device) * 37 % model.config.vocab_size)[None]
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    dense = seconds(partial(model, **batch))
    slopes = {}
    for key in {(s.kind, s.units) for s in found}:
        smaller, gone = fork(model), 0
        for sub in sublayers(smaller):
            if (sub.kind, sub.units) == key and sub.units > 1:
                keep = torch.arange(sub.units) < max(1, sub.units // 4)
                remove(smaller, sub, keep)
                gone += int((~keep).sum())
        slopes[key] = max(dense - seconds(partial(smaller, **batch)), 0.0) / max(gone, 1)
    costs = [slopes[s.kind, s.units] for s in found]
    return dense - sum(s.units * c for s, c in zip(found, costs)), costs
