"""What the weights of a model take on disk: their type, their bytes, and the values that are left of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from compress.model import modeling, offload


def stored_type(model: nn.Module) -> torch.dtype:
    """The type that the numbers of a model take on disk.

    Parameters
    ----------
    model
        A model of transformers.

    Returns
    -------
    torch.dtype
        `config.dtype`; float32 where it says none.
    """
    dtype = model.config.dtype or torch.float32
    return getattr(torch, dtype) if isinstance(dtype, str) else dtype  # transformers writes its name when it saves


def stored_bytes(model: nn.Module) -> int:
    """The size of the weights of a model on disk.

    Parameters
    ----------
    model
        A model of transformers.

    Returns
    -------
    int
        Bytes, headers left out.
    """
    each = stored_type(model).itemsize
    total = sum(p.numel() * (each if p.is_floating_point() else 1) for p in model.parameters())
    for module in model.modules():
        if isinstance(module, nn.Linear) and modeling.is_sparse(module):
            weight = module.weight
            total += weight.numel() // 8 - each * (weight.numel() - int(torch.count_nonzero(weight)))
    return total


def cast(model: nn.Module, dtype: torch.dtype) -> None:
    """Convert the weights of a model, in place; buffers and packed codes stay.

    Parameters
    ----------
    model
        In memory or streaming.
    dtype
        The type that floating-point weights get.
    """
    for parameter in model.parameters():  # not buffers: rotary frequencies are recomputed in float32 at reload
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
    if offload.store_of(model):
        offload.cast(model, dtype)


def round_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """Give the weights of a model the values that are stored of them, in place.

    Parameters
    ----------
    model
        In memory or streaming.
    dtype
        The type that it computes in from now on.
    """
    cast(model, stored_type(model))
    cast(model, dtype)
    forget(model)


def forget(model: nn.Module) -> None:
    """Drop the dense copies that packed weights leave in memory from their first use on; the next use makes them anew.

    Parameters
    ----------
    model
        Changed in place, but for what it computes.
    """
    for module in _packed(model):
        module.forget()


@contextmanager
def forgetting(model: nn.Module) -> Iterator[None]:
    """While the context is open, a packed weight is dense for no longer than its layer runs.

    Parameters
    ----------
    model
        Any; its packed layers may be of the code in its folder.

    Yields
    ------
    None
        Nothing.
    """
    handles = [module.register_forward_hook(lambda module, *_: module.forget()) for module in _packed(model)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _packed(model: nn.Module) -> list[Any]:
    """The modules with a packed weight; told by what they can do, since code in a folder has classes of its own."""
    return [module for module in model.modules() if hasattr(module, "forget")]
