"""The classes that rebuild a compressed model from its config.

This file is copied into every folder that needs it, beside layers.py, so that transformers alone can reload the model
(`trust_remote_code=True`); it imports nothing else but torch and transformers.
"""

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, wraps

import torch
import transformers
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D
from transformers.utils import ModelOutput

from .layers import CHANGED, Bitmask, Exits, Expert, Experts, PackedLinear, find_cache, make

INPUTS = {"input_ids", "attention_mask", "token_type_ids", "position_ids", "inputs_embeds"}
OF_BLOCKS = ("layer_types", "mlp_layer_types", "no_rope_layers")  # settings of a config with a value for every block
# the layers of an expert in the files of a type: the gate, what it multiplies, and the output
EXPERTS = {
    "mixtral": ("w1", "w3", "w2"),
    **dict.fromkeys(("olmoe", "qwen3_moe"), ("gate_proj", "up_proj", "down_proj")),
}
FORMAT = 1  # of the section `compressed` of config.json and of the code beside it; a folder without one is older
SPARSE_FROM = 0.25  # share of zeros from which a bitmask is worth its bytes (it breaks even at 1/16 in fp16)


def densify(model: nn.Module) -> None:
    """Turn every linear layer that is stored as a bitmask into a plain one.

    Parameters
    ----------
    model
        Changed in place.
    """
    for path, module in list(model.named_modules()):
        if isinstance(module, PackedLinear) and isinstance(module.packed, Bitmask):
            linear = nn.utils.skip_init(nn.Linear, module.in_features, module.out_features, bias=False)
            linear.weight, linear.bias = nn.Parameter(module.packed.unpack().detach()), module.bias
            model.set_submodule(path, linear)


def sparsify(model: nn.Module) -> None:
    """Turn every linear layer with many zeros into one that is stored as a bitmask.

    Parameters
    ----------
    model
        Changed in place.
    """
    for path, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and is_sparse(module):
            packed = PackedLinear(Bitmask.pack(module.weight), False)
            packed.bias = module.bias
            model.set_submodule(path, packed)


def is_sparse(linear: nn.Linear) -> bool:
    """Whether a layer has zeros enough to be stored as a bitmask.

    Parameters
    ----------
    linear
        A layer whose weight is in memory or streams.

    Returns
    -------
    bool
        Whether at least the share `SPARSE_FROM` of its weight is 0.
    """
    size = linear.weight.numel()
    return bool(size) and 1 - int(torch.count_nonzero(linear.weight)) / size >= SPARSE_FROM


def linearise(model: nn.Module) -> None:
    """Turn every `Conv1D` (GPT-2's linear layer, weight (in, out)) into a linear layer, and split experts.

    Parameters
    ----------
    model
        Changed in place.
    """
    split_experts(model)
    for path, module in list(model.named_modules()):
        if isinstance(module, Conv1D):
            linear = nn.utils.skip_init(nn.Linear, *module.weight.shape, device=module.weight.device)
            linear.weight, linear.bias = nn.Parameter(module.weight.detach().T.contiguous()), module.bias
            model.set_submodule(path, linear)


def split_experts(model: nn.Module) -> None:
    """Give every expert of a mixture linear layers of its own, where a model has one of the types `EXPERTS`.

    Parameters
    ----------
    model
        Changed in place.
    """
    names = EXPERTS.get(model.config.model_type.removeprefix("compressed_"))
    for path, module in list(model.named_modules()) if names else ():
        if holds_experts(module):
            both = zip(module.gate_up_proj.detach(), module.down_proj.detach())
            weights = ([w.clone() for w in (*gate_up.chunk(2), down)] for gate_up, down in both)
            model.set_submodule(path, Experts(Expert(each, names, module.act_fn) for each in weights))


def holds_experts(module: nn.Module) -> bool:
    """Whether a module is the experts of a mixture as transformers has them, in tensors of all of them.

    Parameters
    ----------
    module
        Of any kind.

    Returns
    -------
    bool
        By a parameter `down_proj` of three dimensions.
    """
    weight = module._parameters.get("down_proj")
    return weight is not None and weight.dim() == 3


def join_experts(model: nn.Module) -> None:
    """Undo `split_experts`; every layer has its size and is dense.

    Parameters
    ----------
    model
        Changed in place.
    """
    split = [(path, module) for path, module in model.named_modules() if isinstance(module, Experts)]
    fresh = _fresh(model) if split else model
    for path, experts in split:
        gates, ups, outputs = zip(*([expert.get_submodule(n).weight for n in expert.names] for expert in experts))
        joined = fresh.get_submodule(path)
        joined.gate_up_proj = nn.Parameter(torch.stack([torch.cat(both) for both in zip(gates, ups)]).detach())
        joined.down_proj = nn.Parameter(torch.stack(outputs).detach())
        model.set_submodule(path, joined)


def convolutions(model: nn.Module) -> list[str]:
    """The linear layers that the class of a model has as `Conv1D`.

    Parameters
    ----------
    model
        Its layers are linear by now.

    Returns
    -------
    list of str
        Their paths.
    """
    return [path for path, module in _fresh(model).named_modules() if isinstance(module, Conv1D)]


def convolve(model: nn.Module) -> None:
    """Undo `linearise`.

    Parameters
    ----------
    model
        Changed in place.
    """
    join_experts(model)
    for path in convolutions(model):
        linear, conv = model.get_submodule(path), Conv1D(0, 0)
        conv.nf, conv.nx = linear.weight.shape
        conv.weight, conv.bias = nn.Parameter(linear.weight.detach().T.contiguous()), linear.bias
        model.set_submodule(path, conv)


def refresh(model: nn.Module, path: str) -> None:
    """Tell a module the new size of a projection where it does not look for itself.

    Parameters
    ----------
    model
        Changed in place.
    path
        Of the projection, which is inside that module.
    """
    parent = model.get_submodule(path.rpartition(".")[0])
    if hasattr(parent, "split_size") and path.endswith("c_attn"):
        parent.split_size = model.get_submodule(path).out_features // 3
    if hasattr(parent, "pos_att_type") and path.endswith(".query_proj"):  # DeBERTa
        parent.num_attention_heads = model.get_submodule(path).out_features // parent.attention_head_size
    if path.endswith("qkv_proj"):  # Phi-3, which takes the number of heads from its config
        key_heads = model.get_submodule(path).out_features // parent.head_dim // (parent.num_key_value_groups + 2)
        parent.num_key_value_heads = key_heads
        parent.config = HeadsConfig(model.config, key_heads * parent.num_key_value_groups)


class HeadsConfig:
    """The config of a model as an attention with fewer heads sees it: everything but their number is the model's.

    Parameters
    ----------
    config
        Of the model.
    heads
        Of the attention.
    """

    def __init__(self, config: object, heads: int):
        self.whole, self.num_attention_heads = config, heads

    def __getattr__(self, name: str) -> object:
        """Whatever else is asked for."""
        if name == "whole":  # while it is copied
            raise AttributeError(name)
        return getattr(self.whole, name)


def changes(model: nn.Module) -> dict[str, dict]:
    """How a model differs from what its config alone would build.

    Parameters
    ----------
    model
        With layers of the kinds `CHANGED`, or linear layers of other sizes.

    Returns
    -------
    dict
        {"layers": {path: [class, its arguments]}, "tied": {name: the name of the same tensor before it}}; empty for a
        model that does not differ.
    """
    new = _fresh(model)
    linearise(new)
    fresh = dict(new.named_modules())
    found: dict[str, list] = {}
    for path, module in model.named_modules():
        if isinstance(module, CHANGED):
            found[path] = [type(module).__name__, module.spec()]
        elif isinstance(module, nn.Linear):
            out_features, in_features = module.weight.shape
            if is_sparse(module):
                form = {"form": "Bitmask", "rows": out_features, "columns": in_features}
                form["nonzeros"] = int((module.weight != 0).sum())
                found[path] = ["PackedLinear", {"packed": form, "bias": module.bias is not None}]
            elif path in fresh and module.weight.shape != fresh[path].weight.shape:  # else its parent makes it
                sizes = {"in_features": in_features, "out_features": out_features}
                found[path] = ["Linear", sizes | {"bias": module.bias is not None}]
        elif path in fresh and (norm := _norm(module, fresh[path])):
            found[path] = norm
    same = tied(model)
    return {"layers": found, "tied": same} if found or same != _tied_by_config(model) else {}


def _norm(module: nn.Module, fresh: nn.Module) -> list | None:
    """How a norm differs from the `fresh` one: it has fewer features, or there is none in its place."""
    weight = getattr(module, "weight", None)
    if weight is None or weight.dim() != 1:
        return None
    if isinstance(module, nn.LayerNorm) and not hasattr(fresh, "weight"):
        spec = {"normalized_shape": list(module.normalized_shape), "eps": module.eps, "bias": module.bias is not None}
        return ["LayerNorm", spec]
    return None if weight.shape == fresh.weight.shape else ["Norm", {"features": len(weight)}]


def tied(model: nn.Module) -> dict[str, str]:
    """Which stored tensors of a model are the same.

    Parameters
    ----------
    model
        Any.

    Returns
    -------
    dict
        Names of tensors that are the same as an earlier one, and that one's name.
    """
    first: dict[int, str] = {}
    stored = model.state_dict(keep_vars=True)
    return {name: first[id(t)] for name, t in stored.items() if first.setdefault(id(t), name) != name}


def _tied_by_config(model: nn.Module) -> dict[str, str]:
    """`tied` of what the config of `model` alone would build."""
    return tied(_fresh(model))


def _rebuild(model: nn.Module, changed: dict[str, dict]) -> None:
    """Give a freshly built `model` the layers that `changes` described, in place, weights yet to be loaded."""
    linearise(model)
    for path, (kind, spec) in changed["layers"].items():
        if kind == "Norm":
            model.get_submodule(path).weight = nn.Parameter(torch.empty(spec["features"]))
            continue
        model.set_submodule(path, make(kind, spec))
        refresh(model, path)


def _fresh(model: nn.Module) -> nn.Module:
    """What the config of `model` alone would build, without memory for weights."""
    base = base_class(model)
    with torch.device("meta"), _plain(model.config, base):
        new = base(model.config)
    new.tie_weights()
    return new


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
    """The config class of the compressed kind of a model.

    The model type is a new one on purpose: without `trust_remote_code` transformers refuses it, where it would load
    a folder of type `bert` with removed sublayers, fill them with random weights and only warn.

    Parameters
    ----------
    base
        A config class of transformers.

    Returns
    -------
    type
        Its subclass, the same one every time.
    """
    return type(f"Compressed{base.__name__}", (base,), {"model_type": f"compressed_{base.model_type}"})


@cache
def compressed_model(base: type) -> type:
    """The model class of the compressed kind of a model.

    Parameters
    ----------
    base
        A model class of transformers.

    Returns
    -------
    type
        Its subclass, the same one every time.
    """

    def build(self, config) -> None:
        self._rebuilt = False
        with _plain(config, base):
            base.__init__(self, config)
        _rebuild(self, config.compressed)
        tie(self)

    def names(self, all_submodels: bool = False) -> dict[str, str]:
        """What transformers ties: before the changed layers are in their place, nothing."""
        if not hasattr(self.config, "compressed"):  # `attach` alone made it of this class
            return base.get_expanded_tied_weights_keys(self, all_submodels)
        return dict(self.config.compressed["tied"]) if self._rebuilt else {}

    members = {"config_class": compressed_config(base.config_class), "__init__": build}
    members |= {"get_expanded_tied_weights_keys": names, "forward": _leaving(base)}
    return type(f"Compressed{base.__name__}", (base,), members)


def attach(model: nn.Module, exits: Exits) -> None:
    """Let samples leave a model early.

    Parameters
    ----------
    model
        Changed in place.
    exits
        Where and when they leave.
    """
    model.exits = exits
    model.__class__ = compressed_model(base_class(model))


def _leaving(base: type) -> Callable[..., ModelOutput]:
    """The forward of a model of the class `base` that may have exits."""
    names = list(inspect.signature(base.forward).parameters)[1:]

    @wraps(base.forward)
    def forward(self, *args, **kwargs):
        """Every row (a sequence, or a token) has the logits of the first exit that is sure of it, else of the end.

        A sequence whose rows all have some leaves, and the others go on without it. With a cache, labels or anything
        else asked for than logits, and in training, no exit is asked.
        """
        given = dict(zip(names, args)) | kwargs
        asked = {k: v for k, v in given.items() if k in INPUTS and v is not None}
        others = [v for k, v in given.items() if k not in {*INPUTS, "return_dict"}]
        more = find_cache(others) is not None or any(isinstance(v, Tensor) or v for v in others)
        exits = getattr(self, "exits", None)
        if exits is None or exits.threshold is None or more or self.training:
            return base.forward(self, *args, **kwargs)
        output = _leave(self, asked, exits)
        return output.to_tuple() if given.get("return_dict") is False else output

    return forward


def _leave(model: nn.Module, given: dict[str, Tensor], exits: Exits) -> ModelOutput:
    """The output of `model` on the inputs `given`, of which every sequence runs only as many blocks as it needs."""
    hidden, index = None, None  # of the sequences that are still there, in the first batch
    for number, temperature in enumerate([*exits.temperatures, None]):
        found, hidden = _stage(model, given, exits, number, hidden)
        logits = found.logits if found.logits.dim() == 3 else found.logits[:, None]  # (sequences, rows, classes)
        if index is None:
            output, merged = found, logits.clone()
            index = torch.arange(len(logits), device=logits.device)
            mask = given.get("attention_mask")
            open_ = logits.new_ones(logits.shape[:2], dtype=torch.bool)  # rows without an answer
            if mask is not None and mask.shape == open_.shape:
                open_ &= mask.bool()
        sure = torch.ones_like(open_)
        if temperature is not None:
            sure = confidence(logits, temperature) >= exits.threshold
        merged[index] = torch.where(open_[:, :, None], logits, merged[index])
        open_ &= ~sure
        stays = open_.any(1)
        exits.left[number] += len(stays) - int(stays.sum())
        if not stays.any():
            break
        size = len(stays)
        given = {k: v[stays] if v.shape[0] == size else v for k, v in given.items()}
        index, open_, hidden = index[stays], open_[stays], hidden[stays]
    output.logits = merged.view(-1, *output.logits.shape[1:])
    return output


def confidence(logits: Tensor, temperature: float) -> Tensor:
    """The probability of the likeliest class.

    Parameters
    ----------
    logits
        (..., rows, classes).
    temperature
        What they are divided by.

    Returns
    -------
    Tensor
        (..., rows).
    """
    return (logits.float() / temperature).softmax(-1).amax(-1)


def _stage(
    model: nn.Module, given: Mapping[str, Tensor], exits: Exits, number: int, hidden: Tensor | None
) -> tuple[ModelOutput, Tensor]:
    """Run `model` from exit `number` - 1 to exit `number`, counted from 0; the one behind the last exit is the end.

    hidden (batch, tokens, width): what left the block before the first exit, None: start with the embeddings. Returns
    what the head makes of the exit's map, and what left the block before it.
    """
    holder, _, name = exits.blocks.rpartition(".")
    blocks = getattr(model.get_submodule(holder), name)
    start, stop = [0, *exits.after, len(blocks)][number : number + 2]
    left: list[Tensor] = []

    def leave(module, args, output):
        tensors = output if isinstance(output, tuple) else (output,)
        left.append(tensors[0])
        if number < len(exits.maps):
            mapped = exits.maps[number](exits.features(tensors[0], given.get("attention_mask")))
            tensors = (mapped, *tensors[1:])
        return tensors if isinstance(output, tuple) else tensors[0]

    handle = blocks[stop - 1].register_forward_hook(leave)
    try:
        with block_range(model, exits.blocks, start, stop, hidden):
            return base_class(model).forward(model, **given, return_dict=True), left[0]
    finally:
        handle.remove()


def stages(model: nn.Module, given: Mapping[str, Tensor], exits: Exits) -> Iterator[ModelOutput]:
    """The output of every exit of a model, and of the end, no sequence leaving.

    Parameters
    ----------
    model
        With exits.
    given
        Arguments of its forward.
    exits
        Those of the model.

    Yields
    ------
    ModelOutput
        From the first exit to the end.
    """
    hidden = None
    for number in range(len(exits.maps) + 1):
        output, hidden = _stage(model, given, exits, number, hidden)
        yield output


@contextmanager
def block_range(
    model: nn.Module, path: str, start: int, stop: int | None, hidden: Tensor | None
) -> Iterator[nn.ModuleList]:
    """Let a model have only some of its blocks, and no cache, while a block of code runs.

    Parameters
    ----------
    model
        Restored afterwards.
    path
        Of its list of blocks.
    start, stop
        The first block, and the one behind the last; None: to the end.
    hidden
        What enters the first of them, (batch, tokens, width); None: what the embeddings give.

    Yields
    ------
    nn.ModuleList
        All blocks.
    """
    config, before = model.config, copy.copy(model.config.__dict__)
    holder, _, name = path.rpartition(".")
    parent = model.get_submodule(holder)
    blocks: nn.ModuleList = getattr(parent, name)

    def enter(module, args, kwargs):
        return (hidden, *args[1:]), kwargs

    handle = None if hidden is None else blocks[start].register_forward_pre_hook(enter, with_kwargs=True)
    setattr(parent, name, blocks[start:stop])
    config.use_cache = False
    for setting in OF_BLOCKS:  # some models look up by place what kind of attention a block has
        if config.__dict__.get(setting):  # a property follows from other settings
            setattr(config, setting, getattr(config, setting)[start:stop])
    try:
        yield blocks
    finally:
        setattr(parent, name, blocks)
        config.__dict__.update(before)
        if handle:
            handle.remove()


@contextmanager
def leaving_at(model: nn.Module, threshold: float | None) -> Iterator[None]:
    """Let samples leave a model, if it has exits, at a confidence while a block of code runs.

    Parameters
    ----------
    model
        Restored afterwards.
    threshold
        The confidence; None: they do not leave.

    Yields
    ------
    None
        Nothing.
    """
    exits = getattr(model, "exits", None)
    before = exits.threshold if exits else None
    try:
        if exits:
            exits.threshold = threshold
        yield
    finally:
        if exits:
            exits.threshold = before


def tie(model: nn.Module) -> None:
    """Make what the config of a compressed model says to be the same tensor the same.

    Parameters
    ----------
    model
        Changed in place.
    """
    model._rebuilt = True
    model._tied_weights_keys = model.all_tied_weights_keys = dict(model.config.compressed["tied"])
    model.tie_weights()


def base_class(model: nn.Module) -> "type[transformers.PreTrainedModel]":
    """The transformers class that a model is, or is the compressed kind of.

    Parameters
    ----------
    model
        Any of transformers.

    Returns
    -------
    type
        The class.
    """
    # transformers may derive a class of the same name from one that it got from a folder
    return next(cls for cls in type(model).__mro__ if not cls.__name__.startswith("Compressed"))


def __getattr__(name: str) -> type:
    """CompressedLlamaForCausalLM and the like, made when transformers asks this module for them by name."""
    base = getattr(transformers, name.removeprefix("Compressed"), None)
    if not name.startswith("Compressed") or base is None:
        raise AttributeError(name)
    return compressed_model(base) if issubclass(base, transformers.PreTrainedModel) else compressed_config(base)
