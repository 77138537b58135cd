"""Storage and forward of changed layers, and the classes that rebuild a compressed model from its config.

This file is copied as `modeling_compressed.py` into every folder that needs it, so that transformers alone can
reload the model (`trust_remote_code=True`); it imports nothing but torch and transformers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
import transformers
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

SPARSE_FROM = 0.25  # share of zeros from which a bitmask is worth its bytes (it breaks even at 1/16 in fp16)


class NoAttention(nn.Module):
    """Stands where every head was removed: gives zeros of width `features`, plus a bias where there was one."""

    def __init__(self, features: int, bias: bool, layer_idx: int | None):
        super().__init__()
        self.features, self.layer_idx = features, layer_idx
        self.bias = nn.Parameter(torch.zeros(features)) if bias else None

    def forward(self, hidden_states: Tensor, *_, past_key_values=None, **__) -> tuple[Tensor, None]:
        """hidden_states (batch, tokens, width); architectures pass much else to their attention, not needed here."""
        shape = hidden_states.shape[:-1]
        if past_key_values is not None:  # a cache counts the tokens it has seen in its first layer
            seen = hidden_states.new_zeros(shape[0], 1, shape[1], 1)
            past_key_values.update(seen, seen, self.layer_idx)
        output = hidden_states.new_zeros(*shape, self.features)
        return (output if self.bias is None else output + self.bias), None


class BitmaskLinear(nn.Module):
    """A linear layer stored as one bit a weight and the values that are not zero; dense from its first forward on.

    Saves disk and download, not time or memory. weight (out, in); mask uint8 (ceil(out*in/8),); values (nonzeros,).
    """

    def __init__(self, in_features: int, out_features: int, bias: bool, nonzeros: int):
        super().__init__()
        self.in_features, self.out_features, self.weight = in_features, out_features, None
        # not zeros: memory that nobody wrote to costs nothing, and the weights may be streamed from files
        self.register_buffer("mask", torch.empty(-(-out_features * in_features // 8), dtype=torch.uint8))
        self.register_buffer("values", torch.empty(nonzeros))
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None

    @classmethod
    def pack(cls, linear: nn.Linear) -> "BitmaskLinear":
        """The same layer with its zeros left out."""
        weight = linear.weight.detach()
        keep = weight.flatten() != 0
        packed = cls(linear.in_features, linear.out_features, linear.bias is not None, int(keep.sum()))
        bits = nn.functional.pad(keep, (0, -len(keep) % 8)).view(-1, 8).to(torch.uint8)
        packed.mask = (bits << torch.arange(8, dtype=torch.uint8, device=bits.device)).sum(1, dtype=torch.uint8)
        packed.values, packed.bias = weight.flatten()[keep], linear.bias
        return packed

    def unpack(self) -> Tensor:
        """The dense weight (out, in)."""
        bits = self.mask[:, None] >> torch.arange(8, dtype=torch.uint8, device=self.mask.device) & 1
        keep = bits.flatten()[: self.out_features * self.in_features].bool()
        weight = self.values.new_zeros(len(keep))
        weight[keep] = self.values
        return weight.view(self.out_features, self.in_features)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out)."""
        if self.weight is None:
            self.weight = self.unpack()
        return nn.functional.linear(x, self.weight, self.bias)


def densify(model: nn.Module) -> None:
    """Turn every `BitmaskLinear` of `model` into a plain linear layer, in place."""
    for path, module in list(model.named_modules()):
        if isinstance(module, BitmaskLinear):
            linear = nn.Linear(module.in_features, module.out_features, bias=False)
            linear.weight, linear.bias = nn.Parameter(module.unpack()), module.bias
            model.set_submodule(path, linear)


def linearise(model: nn.Module) -> None:
    """Turn every `Conv1D` of `model` (GPT-2's linear layer, weight (in, out)) into a linear layer, in place."""
    for path, module in list(model.named_modules()):
        if isinstance(module, Conv1D):
            linear = nn.utils.skip_init(nn.Linear, *module.weight.shape, device=module.weight.device)
            linear.weight, linear.bias = nn.Parameter(module.weight.detach().T.contiguous()), module.bias
            model.set_submodule(path, linear)


def convolutions(model: nn.Module) -> list[str]:
    """Paths of the linear layers that the class of `model` has as `Conv1D`."""
    return [path for path, module in _fresh(model).named_modules() if isinstance(module, Conv1D)]


def convolve(model: nn.Module) -> None:
    """Undo `linearise`, in place."""
    for path in convolutions(model):
        linear, conv = model.get_submodule(path), Conv1D(0, 0)
        conv.nf, conv.nx = linear.weight.shape
        conv.weight, conv.bias = nn.Parameter(linear.weight.detach().T.contiguous()), linear.bias
        model.set_submodule(path, conv)


def refresh(model: nn.Module, path: str) -> None:
    """Tell the module around `path` the new size of a projection that gives queries, keys and values side by side."""
    parent = model.get_submodule(path.rpartition(".")[0])
    if hasattr(parent, "split_size") and path.endswith("c_attn"):
        parent.split_size = model.get_submodule(path).out_features // 3


def changes(model: nn.Module) -> dict[str, dict]:
    """How the layers of `model` differ from those its config alone would build.

    Returns {"shapes": {path: [out, in]}, "no_attention": {path: [features, bias]}, "bitmask": {path: nonzeros}}.
    """
    new = _fresh(model)
    linearise(new)
    fresh = dict(new.named_modules())
    found: dict[str, dict] = {"shapes": {}, "no_attention": {}, "bitmask": {}}
    for path, module in model.named_modules():
        if isinstance(module, NoAttention):
            found["no_attention"][path] = [module.features, module.bias is not None]
        elif isinstance(module, nn.Linear):
            if module.weight.shape != fresh[path].weight.shape:
                found["shapes"][path] = list(module.weight.shape)
            zeros = int((module.weight == 0).sum())
            if module.weight.numel() and zeros / module.weight.numel() >= SPARSE_FROM:
                found["bitmask"][path] = module.weight.numel() - zeros
    return found


def rebuild(model: nn.Module, changed: dict[str, dict]) -> None:
    """Give a freshly built `model` the layers that `changes` described, in place, weights yet to be loaded."""
    linearise(model)
    for path, (features, bias) in changed["no_attention"].items():
        model.set_submodule(path, NoAttention(features, bias, getattr(model.get_submodule(path), "layer_idx", None)))
    for path in changed["shapes"] | changed["bitmask"]:
        linear = model.get_submodule(path)
        out_features, in_features = changed["shapes"].get(path, (linear.out_features, linear.in_features))
        bias = linear.bias is not None
        if path in changed["bitmask"]:
            layer = BitmaskLinear(in_features, out_features, bias, changed["bitmask"][path])
        else:
            layer = nn.utils.skip_init(nn.Linear, in_features, out_features, bias=bias)
        model.set_submodule(path, layer)
        refresh(model, path)


def _fresh(model: nn.Module) -> nn.Module:
    """What the config of `model` alone would build, without memory for weights."""
    base = base_class(model)
    with torch.device("meta"), _plain(model.config, base):
        return base(model.config)


@contextmanager
def _plain(config, base: type) -> Iterator[None]:
    """Let a config be of the class that `base` knows: some heads look up the rest of their model by it."""
    kind, config.__class__ = type(config), base.config_class
    try:
        yield
    finally:
        config.__class__ = kind


@cache
def compressed_config(base: type) -> type:
    """The config class of the compressed kind of `base`, a transformers config class.

    The model type is a new one on purpose: without `trust_remote_code` transformers refuses it, where it would load
    a folder of type `bert` with removed sublayers, fill them with random weights and only warn.
    """
    return type(f"Compressed{base.__name__}", (base,), {"model_type": f"compressed_{base.model_type}"})


@cache
def compressed_model(base: type) -> type:
    """The model class of the compressed kind of `base`, a transformers model class."""

    def build(self, config) -> None:
        with _plain(config, base):
            base.__init__(self, config)
        rebuild(self, config.compressed)

    members = {"config_class": compressed_config(base.config_class), "__init__": build}
    return type(f"Compressed{base.__name__}", (base,), members)


def base_class(model: nn.Module) -> type:
    """The transformers class that `model` is, or is the compressed kind of."""
    cls = type(model)
    return cls.__base__ if cls.__name__.startswith("Compressed") else cls


def __getattr__(name: str) -> type:
    """CompressedLlamaForCausalLM and the like, made when transformers asks this module for them by name."""
    base = getattr(transformers, name.removeprefix("Compressed"), None)
    if not name.startswith("Compressed") or base is None:
        raise AttributeError(name)
    return compressed_model(base) if issubclass(base, transformers.PreTrainedModel) else compressed_config(base)
