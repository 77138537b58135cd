"""What can be removed from a transformer: heads and neurons, what they cost, and their removal.

A sublayer is one attention or one feed-forward network. Its units are heads (key-value groups where heads share
them) and neurons. Every unit owns rows of the projections that produce it and columns of the output projection.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn

from compress.model import layers, modeling


@dataclass(frozen=True)
class Names:
    """Module names of one architecture, relative to its base model and to its blocks.

    Attributes
    ----------
    blocks
        The list of blocks.
    attention
        The projections of queries, keys and values, or the one that gives all three side by side.
    attention_output, ffn_output
        The projections whose results are added to the residual stream.
    attention_entry, ffn_entry
        The modules whose input is the residual stream.
    ffn
        The projections that give the neurons.
    """

    blocks: str
    attention: tuple[str, ...]
    attention_output: str
    attention_entry: str
    ffn: tuple[str, ...]
    ffn_output: str
    ffn_entry: str


_BERT = Names(
    blocks="encoder.layer",
    attention=("attention.self.query", "attention.self.key", "attention.self.value"),
    attention_output="attention.output.dense",
    attention_entry="attention.self",
    ffn=("intermediate.dense",),
    ffn_output="output.dense",
    ffn_entry="intermediate.dense",
)
_DISTILBERT = Names(
    blocks="transformer.layer",
    attention=("attention.q_lin", "attention.k_lin", "attention.v_lin"),
    attention_output="attention.out_lin",
    attention_entry="attention",
    ffn=("ffn.lin1",),
    ffn_output="ffn.lin2",
    ffn_entry="ffn",
)
_LLAMA = Names(
    blocks="layers",
    attention=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    attention_output="self_attn.o_proj",
    attention_entry="input_layernorm",
    ffn=("mlp.gate_proj", "mlp.up_proj"),
    ffn_output="mlp.down_proj",
    ffn_entry="post_attention_layernorm",
)
_GPT2 = Names(
    blocks="h",
    attention=("attn.c_attn",),
    attention_output="attn.c_proj",
    attention_entry="ln_1",
    ffn=("mlp.c_fc",),
    ffn_output="mlp.c_proj",
    ffn_entry="ln_2",
)
ARCHITECTURES = {
    "bert": _BERT,
    "roberta": _BERT,
    "electra": _BERT,
    "distilbert": _DISTILBERT,
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "gpt2": _GPT2,
}


@dataclass(frozen=True)
class Sublayer:
    """One attention or feed-forward network of one block.

    Attributes
    ----------
    kind
        "attention" or "ffn".
    block
        Number of the block, from 0.
    producers
        Rows that a unit has in each of the `parts` of each producing projection, by path.
    output
        Path of the output projection.
    entry
        Path of the module whose input is the residual stream that the sublayer adds to.
    columns
        Columns that a unit has in the output projection.
    units
        Number of heads or neurons.
    width
        Features of the residual stream.
    parts
        3 where one projection gives queries, keys and values, else 1.
    """

    kind: str
    block: int
    producers: dict[str, int]
    output: str
    entry: str
    columns: int
    units: int
    width: int
    parts: int = 1

    def unit_flops(self, tokens: float) -> float:
        """Multiply-adds x 2 of one unit on a sequence of `tokens` (8 n d d_h + 4 n^2 d_h; 4 n d)."""
        projections = 2 * tokens * self.width * (self.parts * sum(self.producers.values()) + self.columns)
        return projections + (4 * tokens**2 * self.columns if self.kind == "attention" else 0)


def names(model: nn.Module) -> Names:
    """The module names of the architecture of a model.

    Parameters
    ----------
    model
        Any of transformers, or compressed.

    Returns
    -------
    Names
        Its entry in `ARCHITECTURES`.

    Raises
    ------
    ValueError
        There is none.
    """
    kind = model.config.model_type.removeprefix("compressed_")
    if kind not in ARCHITECTURES:
        allowed = ", ".join(sorted(ARCHITECTURES))
        adding = "another one needs its module names in ARCHITECTURES of compress/model/structure.py"
        raise ValueError(f"model type '{kind}' cannot be compressed: supported are {allowed}; {adding}")
    return ARCHITECTURES[kind]


def context(model: nn.Module, limit: int) -> int:
    """How many tokens a model can read at once, up to a limit.

    Parameters
    ----------
    model
        Any.
    limit
        The limit, in tokens.

    Returns
    -------
    int
        The limit, or fewer where the model has not that many positions.
    """
    # RoBERTa counts its positions from behind the padding index
    lost = model.config.pad_token_id + 1 if model.config.model_type.endswith("roberta") else 0
    return min(limit, getattr(model.config, "max_position_embeddings", limit) - lost)


def head_width(model: nn.Module) -> int:
    """Features of one attention head.

    Parameters
    ----------
    model
        Any.

    Returns
    -------
    int
        Their number.
    """
    return getattr(model.config, "head_dim", None) or model.config.hidden_size // model.config.num_attention_heads


def blocks_path(model: nn.Module) -> str:
    """Path of the list of transformer blocks.

    Parameters
    ----------
    model
        Of an architecture in `ARCHITECTURES`.

    Returns
    -------
    str
        The path inside the model.

    Raises
    ------
    ValueError
        As `names`.
    """
    base = model.base_model
    prefix = "" if base is model else model.base_model_prefix + "."
    return prefix + names(model).blocks


def sublayers(model: nn.Module) -> list[Sublayer]:
    """Every sublayer that has units left.

    Parameters
    ----------
    model
        Of an architecture in `ARCHITECTURES`.

    Returns
    -------
    list of Sublayer
        Bottom to top, attention before feed-forward.

    Raises
    ------
    ValueError
        Its units cannot be cut any more, as its layers are quantized or of low rank, or samples leave it early.
    """
    n, found = names(model), []
    refuse_changed(model, (layers.PackedLinear, layers.LowRankLinear, layers.Exits))
    head_dim = head_width(model)
    for i, block in enumerate(model.get_submodule(blocks_path(model))):
        path = f"{blocks_path(model)}.{i}."
        if not any(isinstance(m, layers.NoAttention) for m in block.modules()):
            sizes = [block.get_submodule(p).out_features for p in n.attention]
            group = sizes[0] // sizes[1] if len(sizes) == 3 else 1  # queries that share a key
            rows = dict(zip((path + p for p in n.attention), (head_dim * group, head_dim, head_dim)))
            parts = 3 if len(sizes) == 1 else 1
            names_ = (path + n.attention_output, path + n.attention_entry)
            found.append(_sublayer(model, "attention", i, rows, *names_, parts))
        rows = {path + p: 1 for p in n.ffn}
        found.append(_sublayer(model, "ffn", i, rows, path + n.ffn_output, path + n.ffn_entry, 1))
    return [s for s in found if s.units]


def _sublayer(
    model: nn.Module, kind: str, block: int, rows: dict[str, int], output: str, entry: str, parts: int
) -> Sublayer:
    projection, columns = model.get_submodule(output), next(iter(rows.values()))
    units = projection.in_features // columns
    return Sublayer(kind, block, rows, output, entry, columns, units, projection.out_features, parts)


def refuse_changed(model: nn.Module, kinds: tuple[type, ...]) -> None:
    """Refuse layers that cannot be changed any more.

    Parameters
    ----------
    model
        A model or a part of one.
    kinds
        Classes of compress.model.layers.

    Raises
    ------
    ValueError
        There are such layers.
    """
    for path, module in model.named_modules():
        if isinstance(module, kinds):
            if isinstance(module, layers.Exits):
                what = "the model has early exits, fitted to it as it is"
                raise ValueError(f"{what}: change it first, early_exit comes last")
            what = "of low rank" if isinstance(module, layers.LowRankLinear) else "quantized"
            order = "prune, then distil or factorise, and quantize last"
            raise ValueError(f"{path} is {what} already, which this method cannot change: {order}")


def block_linears(model: nn.Module, block: int) -> Iterator[tuple[str, nn.Linear]]:
    """Every linear layer of one block, but for those that pruning has left without a weight.

    Parameters
    ----------
    model
        Of an architecture in `ARCHITECTURES`.
    block
        Number of the block, from 0.

    Yields
    ------
    tuple
        Path and module.

    Raises
    ------
    ValueError
        They are quantized.
    """
    path = f"{blocks_path(model)}.{block}"
    refuse_changed(model.get_submodule(path), (layers.PackedLinear,))
    for name, module in model.get_submodule(path).named_modules(prefix=path):
        if isinstance(module, nn.Linear) and module.weight.numel():
            yield name, module


def shallow_copy(model: nn.Module) -> nn.Module:
    """A copy of a model that shares its weights until they are replaced (`set_parameter`, `remove`); see `unshare`.

    Parameters
    ----------
    model
        Any; it stays as it is.

    Returns
    -------
    nn.Module
        The copy.
    """
    return copy.deepcopy(model, {id(t): t for t in chain(model.parameters(), model.buffers())})


def unshare(model: nn.Module, other: nn.Module) -> nn.Module:
    """End the sharing of weights; tied weights stay tied.

    Parameters
    ----------
    model
        Gets its own copy of every weight that it still shares, in place.
    other
        The model that it shares them with; the same one: nothing is copied.

    Returns
    -------
    nn.Module
        The model.
    """
    shared = {id(p) for p in other.parameters()} if model is not other else set()
    copies: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            if id(parameter) in shared:
                if id(parameter) not in copies:
                    copies[id(parameter)] = nn.Parameter(parameter.detach().clone(), parameter.requires_grad)
                setattr(module, name, copies[id(parameter)])
    return model


def set_parameter(model: nn.Module, name: str, value: Tensor) -> None:
    """Replace a parameter; a linear layer takes the size of its weight.

    Parameters
    ----------
    model
        Changed in place.
    name
        Of the parameter.
    value
        Of any size.
    """
    path, _, kind = name.rpartition(".")
    module = model.get_submodule(path)
    setattr(module, kind, nn.Parameter(value, getattr(module, kind).requires_grad))
    if kind == "weight" and isinstance(module, nn.Linear):
        module.out_features, module.in_features = value.shape
        modeling.refresh(model, path)


@torch.no_grad()
def remove(model: nn.Module, sublayer: Sublayer, keep: Tensor) -> None:
    """Cut units from the weights of a model.

    Parameters
    ----------
    model
        Changed in place.
    sublayer
        Where the units are.
    keep
        (units,), False for those that go.
    """
    if bool(keep.all()):
        return
    for path, rows in sublayer.producers.items():
        linear, index = model.get_submodule(path), keep.repeat_interleave(rows).repeat(sublayer.parts)
        set_parameter(model, f"{path}.weight", linear.weight[index])
        if linear.bias is not None:
            set_parameter(model, f"{path}.bias", linear.bias[index])
    output = model.get_submodule(sublayer.output)
    set_parameter(model, f"{sublayer.output}.weight", output.weight[:, keep.repeat_interleave(sublayer.columns)])
    if sublayer.kind == "attention" and not keep.any():
        # attention modules reshape to (..., heads, head_dim), which has no meaning without a head
        attention = next(iter(sublayer.producers)).rpartition(".")[0]
        inside = sublayer.output.startswith(f"{attention}.")  # then it also projects and adds the bias
        layer_idx = getattr(model.get_submodule(attention), "layer_idx", None)
        nothing = layers.NoAttention(sublayer.width if inside else 0, inside and output.bias is not None, layer_idx)
        if nothing.bias is not None:
            nothing.bias = output.bias
        model.set_submodule(attention, nothing)


def keep_blocks(model: nn.Module, kept: Sequence[int]) -> None:
    """Leave only some blocks in a model, renumbered, and in its config, so that a plain model is left.

    Parameters
    ----------
    model
        Changed in place.
    kept
        Numbers of the blocks that stay, rising.
    """
    holder, _, name = blocks_path(model).rpartition(".")
    parent = model.get_submodule(holder)
    blocks = nn.ModuleList(getattr(parent, name)[i] for i in kept)
    setattr(parent, name, blocks)
    for i, (before, block) in enumerate(zip(kept, blocks)):
        for module in block.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = i
        if getattr(model.config, "scale_attn_by_inverse_layer_idx", False) and i != before:
            _fold_scale(model, i, before)
    model.config.num_hidden_layers = len(kept)
    for setting in modeling.OF_BLOCKS:
        if getattr(model.config, setting, None):
            setattr(model.config, setting, [getattr(model.config, setting)[i] for i in kept])
    if hasattr(model.config, "max_window_layers"):  # Qwen2: the blocks below it attend to all tokens
        model.config.max_window_layers = sum(i < model.config.max_window_layers for i in kept)


@torch.no_grad()
def _fold_scale(model: nn.Module, block: int, before: int) -> None:
    """Let block `block`, which was `before`, attend as it did: GPT-2 may divide its scores by its number, from 1.

    The queries take up what renumbering changes, so that a plain model is left.
    """
    attention = model.get_submodule(f"{blocks_path(model)}.{block}.attn")
    if isinstance(attention, layers.NoAttention):
        return
    path = f"{blocks_path(model)}.{block}.attn.c_attn"
    if isinstance(attention.c_attn, layers.LowRankLinear):
        path += ".up"
    linear = model.get_submodule(path)
    factor = torch.ones(linear.out_features, dtype=linear.weight.dtype, device=linear.weight.device)
    factor[: linear.out_features // 3] = (block + 1) / (before + 1)
    set_parameter(model, f"{path}.weight", linear.weight * factor[:, None])
    set_parameter(model, f"{path}.bias", linear.bias * factor)
    attention.scaling = (attention.head_dim**-0.5 if attention.scale_attn_weights else 1.0) / float(block + 1)
