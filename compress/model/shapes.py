"""Shapes that a plain config can say: as many heads in every layer, and as many neurons.

Such a model needs no code of its own: transformers loads it, and so does what reads plain folders.
"""

import warnings

from torch import nn

from compress.model import modeling
from compress.model.architectures import architecture, kind_of
from compress.model.structure import queries_per_key, sublayers


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
        Layers differ in size.

    Warns
    -----
    UserWarning
        There is only the present number.
    """
    found, blocks = sublayers(model), model.config.num_hidden_layers
    for kind in ("attention", "ffn"):
        sizes = [s.units for s in found if s.kind == kind]
        if len(sizes) < blocks or len(set(sizes)) > 1:
            raise ValueError(f"shape=uniform takes layers of one size, but {kind} differs: give the dense model")
    units, why = found[0].units, ""
    counts = [units]
    if not hasattr(model.config, "head_dim"):
        why = f"the config of a {kind_of(model)} has no head_dim, so that fewer heads would be wider"
    else:
        counts += [count for count in range(units - 1, 0, -1) if _fits(model, count)]
        if len(counts) == 1:
            why = f"a {kind_of(model)} of width {model.config.hidden_size} takes no smaller number of them"
    if why:
        warnings.warn(f"shape=uniform removes neurons alone and leaves the {units} heads: {why}", stacklevel=3)
    return counts


def _settings(model: nn.Module, groups: int) -> dict[str, int]:
    """Settings of the config for a number of key-value groups."""
    settings = {"num_attention_heads": groups * queries_per_key(model)}
    return settings | ({"num_key_value_heads": groups} if hasattr(model.config, "num_key_value_heads") else {})


def _fits(model: nn.Module, groups: int) -> bool:
    """Whether transformers takes the config with a number of key-value groups."""
    plain = modeling.base_class(model).config_class
    try:
        config = plain.from_dict(model.config.to_dict() | _settings(model, groups))
    except Exception:  # each type checks its config in a way of its own
        return False
    return bool(config.head_dim == model.config.head_dim)


def record(model: nn.Module) -> None:
    """Write the number of heads and neurons that every layer of a model has into its config.

    Parameters
    ----------
    model
        Changed in place; with as many in every layer.
    """
    heads, neurons = sublayers(model)[:2]
    for name, value in _settings(model, heads.units).items():
        setattr(model.config, name, value)
    setattr(model.config, architecture(model).neurons, neurons.units)
