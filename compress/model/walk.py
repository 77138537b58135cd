"""The one layer walk: run a model block by block from hidden states, and look at what enters a module.

Methods never loop over a model by themselves: `run` starts at any block and stops before any other, so that a stream
of hidden states (one (batch, tokens, width) a batch) replaces a cache of every layer's inputs.
"""

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.utils import ModelOutput

from compress.model import modeling
from compress.model.architectures import blocks_path
from compress.model.embedding import has_head, pooling_of
from compress.model.structure import Sublayer

Batch = dict[str, Tensor]  # input_ids and attention_mask, both (batch, tokens); perhaps token_type_ids, labels


class _Stop(Exception):
    pass


class _Seen(Exception):
    pass


def run(
    model: nn.Module, batch: Batch, start: int = 0, stop: int | None = None, hidden: Tensor | None = None
) -> Tensor:
    """Run some blocks of a model. Masks and positions are the model's own; exits are not asked.

    Parameters
    ----------
    model
        Any.
    batch
        What it reads.
    start, stop
        The first block, and the one behind the last; None: to the end.
    hidden
        What enters block `start`, (batch, tokens, width); None: what the embeddings give, for start 0.

    Returns
    -------
    Tensor
        What enters block `stop`, (batch, tokens, width), or the logits of `outputs` when `stop` is None.
    """

    def leave(module, args, output=None):
        states = args if output is None else output
        raise _Stop(states[0] if isinstance(states, tuple) else states)

    handle = None
    with (
        modeling.leaving_at(model, None),
        modeling.block_range(model, blocks_path(model), start, None, hidden) as blocks,
    ):
        if stop == start:
            handle = blocks[start].register_forward_pre_hook(leave)
        elif stop is not None:
            handle = blocks[stop - 1].register_forward_hook(leave)
        try:
            return outputs(model, model(**{k: v for k, v in batch.items() if k != "labels"}), batch)
        except _Stop as reached:
            return reached.args[0]
        finally:
            if handle:
                handle.remove()


def outputs(model: nn.Module, output: ModelOutput, batch: Batch) -> Tensor:
    """Logits of every task in one shape.

    Rows are tokens, the sequence as a whole, or the start and the end of an answer, whose classes are the tokens. Of a
    model without a head they are the numbers of the embedding, each a value (a row of one class); where embeddings have
    length 1, numbers whose mean square is 1, so that the mean of squared differences is 2 (1 - cosine).

    Parameters
    ----------
    model
        The model.
    output
        What its forward returns.
    batch
        What it has read.

    Returns
    -------
    Tensor
        (batch, rows, classes).
    """
    if not has_head(model):
        pooling = pooling_of(model)
        found = pooling.embed(output.last_hidden_state, batch["attention_mask"])
        return (found * found.shape[1] ** 0.5 if pooling.normalize else found)[:, :, None]
    if "start_logits" in output:
        spans = torch.stack([output.start_logits, output.end_logits], 1)
        return spans.masked_fill(batch["attention_mask"][:, None] == 0, torch.finfo(spans.dtype).min / 2)
    return output.logits if output.logits.dim() == 3 else output.logits[:, None]


def empty_cache(model: nn.Module) -> dict[str, DynamicCache]:
    """A cache that a model fills.

    Parameters
    ----------
    model
        One that generates.

    Returns
    -------
    dict
        The cache, by the name of the argument that its forward takes it by, which differs between versions.
    """
    taken = inspect.signature(modeling.base_class(model).forward).parameters
    name = "cache" if "cache" in taken else "past_key_values"
    return {name: DynamicCache(config=model.config)}


def row_weights(model: nn.Module, logits: Tensor, batch: Batch) -> Tensor:
    """Which rows of `outputs` count.

    Parameters
    ----------
    model
        The model.
    logits
        (batch, rows, classes).
    batch
        What the model has read.

    Returns
    -------
    Tensor
        (batch, rows), 0 for padding, else 1.
    """
    mask = batch["attention_mask"]
    if has_head(model) and logits.shape[1] == mask.shape[1] and logits.shape[1] != 1:
        return mask.to(logits.dtype)
    return logits.new_ones(logits.shape[:2])


@contextmanager
def _hooks(model: nn.Module, hooks: Mapping[str, Callable]) -> Iterator[None]:
    """While the context is open, modules call hooks, by path, before their forward."""
    handles = [model.get_submodule(path).register_forward_pre_hook(hook) for path, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def inputs(
    model: nn.Module, paths: Sequence[str], of: Callable[[Tensor], Tensor] = lambda states: states
) -> Iterator[dict[str, Tensor]]:
    """Note what enters modules while a block of code runs.

    To be left after gradients are taken: the backward pass of a model that streams runs its blocks anew.

    Parameters
    ----------
    model
        Any.
    paths
        Of the modules.
    of
        What is noted of an input; by default all of it.

    Yields
    ------
    dict
        What last entered each module, by path.
    """
    states: dict[str, Tensor] = {}

    def note(path, module, args):
        states[path] = of(args[0])

    with _hooks(model, {path: partial(note, path) for path in paths}):
        yield states


def capture_inputs(
    model: nn.Module, batch: Batch, block: int, hidden: Tensor, paths: Sequence[str]
) -> dict[str, Tensor]:
    """What first enters modules of one block; the block runs no further than the last of them needs.

    Parameters
    ----------
    model
        Any.
    batch
        What it reads.
    block
        Number of the block, from 0.
    hidden
        What enters the block, (batch, tokens, width).
    paths
        Of the modules.

    Returns
    -------
    dict
        The inputs, by path.
    """
    states: dict[str, Tensor] = {}

    def note(path, module, args):
        states.setdefault(path, args[0])
        if len(states) == len(paths):
            raise _Seen

    with suppress(_Seen), _hooks(model, {path: partial(note, path) for path in paths}):
        run(model, batch, block, block + 1, hidden)
    return states


@contextmanager
def masked(model: nn.Module, sublayers: Sequence[Sublayer], masks: Sequence[Tensor]) -> Iterator[None]:
    """Multiply what enters output projections by masks of their units while a block of code runs.

    Parameters
    ----------
    model
        Any.
    sublayers
        Sublayers.
    masks
        One (batch, units) per sublayer, so that gradients are those of single samples.

    Yields
    ------
    None
        Nothing.
    """

    def multiply(columns, mask, module, args):
        return args[0] * mask.repeat_interleave(columns, dim=1)[:, None]

    with _hooks(model, {s.output: partial(multiply, s.columns, mask) for s, mask in zip(sublayers, masks)}):
        yield


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Let no weight ask for a gradient while a block of code runs, so that autograd keeps nothing for it.

    Parameters
    ----------
    model
        Restored afterwards.

    Yields
    ------
    None
        Nothing.
    """
    asking = [p for p in model.parameters() if p.requires_grad]
    for parameter in asking:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)


def drop_padding(batch: Batch, states: Tensor, tokens: Tensor | None = None) -> Tensor:
    """The states of the real tokens.

    Parameters
    ----------
    batch
        What the model has read.
    states
        (batch, tokens, ...), or (batch * tokens, features) as some feed-forward networks have it; other rows than those
        of the tokens, such as a table of relative positions, (1, rows, features), are all real.
    tokens
        The numbers of those that the states (tokens, features) are of, as those of an expert; None: all of the batch.

    Returns
    -------
    Tensor
        (real tokens, ...); where there is no padding perhaps the states themselves in another shape.
    """
    mask = batch["attention_mask"].bool()
    if tokens is not None:
        return states[mask.flatten()[tokens]]
    if states.dim() == 3 and len(states) == 1 and states.shape[:2] != mask.shape:
        return states[0]
    states = states if states.shape[:2] == mask.shape else states.view(*mask.shape, -1)
    return states.flatten(0, 1) if mask.all() else states[mask]


def sums_of_squares(batch: Batch, states: Tensor) -> Tensor:
    """Sum of squares over the real tokens.

    Parameters
    ----------
    batch
        What the model has read.
    states
        (batch, tokens, features).

    Returns
    -------
    Tensor
        (features,).
    """
    tokens = batch["attention_mask"][:, :, None]
    return torch.linalg.vector_norm(states.detach() * tokens, dim=(0, 1)).square()


def mean_length(batches: Sequence[Batch]) -> float:
    """Mean number of real tokens per sequence.

    Parameters
    ----------
    batches
        What a model reads.

    Returns
    -------
    float
        Tokens.
    """
    lengths = torch.cat([b["attention_mask"].sum(1) for b in batches])
    return float(lengths.double().mean())


def warn_of_few_tokens(batches: Sequence[Batch], features: int) -> None:
    """Warn where a least-squares fit has fewer real tokens than weights per output.

    Parameters
    ----------
    batches
        What the model reads.
    features
        Of the widest layer.

    Warns
    -----
    UserWarning
        There are fewer tokens than that.
    """
    tokens = sum(int(b["attention_mask"].sum()) for b in batches)
    if tokens < features:
        why = f"fewer than the {features} features of the widest layer: the fit leans on the ridge"
        warnings.warn(f"{tokens} calibration tokens are {why}; give at least {features}", stacklevel=3)
