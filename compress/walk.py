"""The one layer walk: run a model block by block from hidden states, and look at what enters a module.

Methods never loop over a model by themselves: `run` starts at any block and stops before any other, so that a stream
of hidden states (one (batch, tokens, width) a batch) replaces a cache of every layer's inputs.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from rich import progress
from rich.console import Console
from torch import Tensor, nn

from compress.structure import blocks_path

T = TypeVar("T")
Batch = dict[str, Tensor]  # input_ids and attention_mask, both (batch, tokens)


class _Stop(Exception):
    pass


def run(
    model: nn.Module, batch: Batch, start: int = 0, stop: int | None = None, hidden: Tensor | None = None
) -> Tensor:
    """Run the blocks start..stop-1 of `model`.

    hidden (batch, tokens, width) enters block `start` (None: what the embeddings give, for start 0). Returns what
    enters block `stop`, or the logits when `stop` is None. Masks and positions are the model's own.
    """
    holder, _, name = blocks_path(model).rpartition(".")
    parent = model.get_submodule(holder)
    blocks: nn.ModuleList = getattr(parent, name)
    caught: list[Tensor] = []

    def enter(module, args, kwargs):
        return (hidden, *args[1:]), kwargs

    def leave(module, args, output):
        caught.append(output[0] if isinstance(output, tuple) else output)
        raise _Stop

    def leave_before(module, args):
        caught.append(args[0])
        raise _Stop

    handles = []
    if hidden is not None:
        handles.append(blocks[start].register_forward_pre_hook(enter, with_kwargs=True))
    if stop == start:
        handles.append(blocks[start].register_forward_pre_hook(leave_before))
    elif stop is not None:
        handles.append(blocks[stop - 1].register_forward_hook(leave))
    setattr(parent, name, blocks[start:])
    try:
        return model(**batch).logits
    except _Stop:
        return caught[0]
    finally:
        setattr(parent, name, blocks)
        for handle in handles:
            handle.remove()


@contextmanager
def inputs(model: nn.Module, paths: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """While the context is open, the dictionary it gives holds what last entered each module of `paths`."""
    seen: dict[str, Tensor] = {}

    def look(path: str):
        def hook(module, args):
            seen[path] = args[0]

        return hook

    handles = [model.get_submodule(p).register_forward_pre_hook(look(p)) for p in paths]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def real(batch: Batch, states: Tensor) -> Tensor:
    """The rows of `states` (batch, tokens, features) that are not padding, as (real tokens, features)."""
    return states[batch["attention_mask"].bool()]


def mean_length(batches: Sequence[Batch]) -> float:
    """Mean number of real tokens a sequence."""
    lengths = torch.cat([b["attention_mask"].sum(1) for b in batches])
    return float(lengths.double().mean())


def track(steps: Iterable[T], what: str) -> Iterable[T]:
    """`steps` with a progress bar on stderr, quiet when that is not a terminal."""
    console = Console(stderr=True)
    return progress.track(steps, what, console=console, disable=not console.is_terminal)
