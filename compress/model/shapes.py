"""Shapes that a plain config can say: as many heads in every layer, and as many neurons.

Such a model needs no code of its own: transformers loads it, and so does what reads plain folders.
"""

import warnings
from typing import Any

import torch
from torch import nn

from compress.model import modeling
from compress.model.architectures import architecture, kind_of
from compress.model.structure import experts, head_width, queries_per_key, sublayers


def head_counts(model: nn.Module) -> list[int]:
    """The numbers of key-value groups (heads, where none are shared) that the config of a model can say.

    Parameters
    ----------
    model
        With as many heads, and as many neurons, in every layer.

    Returns
    -------
    list of int
        From the present number down to 1.

    Raises
    ------
    ValueError
        Layers differ in size, or there are experts.

    Warns
    -----
    UserWarning
        There is only the present number.
    """
    found, blocks = sublayers(model), model.config.num_hidden_layers
    if experts(model):
        raise ValueError("shape=uniform cuts the neurons of every layer, those of experts stay: give shape=free")
    for kind in ("attention", "ffn"):
        sizes = [s.units for s in found if s.kind == kind]
        if len(sizes) < blocks or len(set(sizes)) > 1:
            raise ValueError(f"shape=uniform takes layers of one size, but {kind} differs: give the dense model")
    units = found[0].units
    fewer = [count for count in range(units - 1, 0, -1) if _fits(model, count)]
    if not fewer:
        what = "heads" if queries_per_key(model) == 1 else "key-value groups"
        why = f"no {kind_of(model)} of width {model.config.hidden_size} has fewer {what} than {units}"
        warnings.warn(f"shape=uniform removes neurons alone: {why}", stacklevel=4)
    return [units, *fewer]


def _settings(model: nn.Module, groups: int) -> dict[str, int]:
    """Settings of the config for a number of key-value groups, where it is not the present one."""
    heads = groups * queries_per_key(model)
    if heads == model.config.num_attention_heads:
        return {}
    shared = {"num_key_value_heads": groups} if hasattr(model.config, "num_key_value_heads") else {}
    return {"num_attention_heads": heads, "head_dim": head_width(model), **shared}


def _fits(model: nn.Module, groups: int) -> bool:
    """Whether transformers builds a block with a number of key-value groups that are as wide as they are now."""
    base: Any = modeling.base_class(model)
    try:
        config = base.config_class.from_dict(model.config.to_dict() | _settings(model, groups))
        config.num_hidden_layers = 1
        for setting in modeling.OF_BLOCKS:
            if config.__dict__.get(setting):  # a property follows from other settings
                setattr(config, setting, getattr(config, setting)[:1])
        with torch.device("meta"):
            first = sublayers(base(config))[0]
    except Exception:  # each type checks its config in a way of its own
        return False
    return first.units == groups and config.head_dim == head_width(model)


def record(model: nn.Module) -> None:
    """Write the number of heads and neurons that every layer of a model has into its config.

    Parameters
    ----------
    model
        Changed in place; with as many in every layer.

    Warns
    -----
    UserWarning
        The config gets a setting that programs other than transformers may not read.
    """
    heads, neurons = sublayers(model)[:2]
    settings = _settings(model, heads.units)
    if settings and not hasattr(model.config, "head_dim"):
        what = f"head_dim={settings['head_dim']} is in the config of a {kind_of(model)} now"
        warnings.warn(f"{what}: transformers reads it there, other programs may not", stacklevel=3)
    for name, value in settings.items():
        setattr(model.config, name, value)
    setattr(model.config, architecture(model).neurons, neurons.units)
