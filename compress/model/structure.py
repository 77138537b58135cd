"""What can be removed from a transformer: heads and neurons, what they cost, and their removal.

A sublayer is one attention or one feed-forward network. Its units are heads (key-value groups where heads share
them) and neurons. Every unit owns rows of the projections that produce it and columns of the output projection.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

import torch
from torch import Tensor, nn

from compress.model import layers, modeling
from compress.model.architectures import Branch, architecture, blocks_path


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
        Rows that a unit has in each of the parts that lie side by side in each producing projection, by path.
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
    vectors
        Paths of norms with a number for every row of a producing projection, by its path.
    norm
        Path of the norm between the output projection and the residual stream; "": none.
    multiplier
        What the result is multiplied by before it is added.
    parallel
        Whether the attention of the block is added to the residual stream beside it, not before it.
    """

    kind: str
    block: int
    producers: dict[str, tuple[int, ...]]
    output: str
    entry: str
    columns: int
    units: int
    width: int
    vectors: dict[str, str] = field(default_factory=dict)
    norm: str = ""
    multiplier: float = 1.0
    parallel: bool = False

    @property
    def rows(self) -> int:
        """Rows that a unit has in all producing projections."""
        return sum(map(sum, self.producers.values()))

    def unit_flops(self, tokens: float) -> float:
        """Multiply-adds x 2 of one unit on a sequence of `tokens` (8 n d d_h + 4 n^2 d_h; 4 n d)."""
        projections = 2 * tokens * self.width * (self.rows + self.columns)
        return projections + (4 * tokens**2 * self.columns if self.kind == "attention" else 0)


UNLIMITED = 2**31  # tokens, beyond any context


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
    # these count their positions from behind the padding index
    counted = model.config.model_type.endswith(("roberta", "camembert", "mpnet"))
    lost = model.config.pad_token_id + 1 if counted else 0
    return min(limit, getattr(model.config, "max_position_embeddings", limit) - lost)


def vocabulary(model: nn.Module) -> int:
    """How many tokens a model gives logits for, at every place.

    Parameters
    ----------
    model
        Any.

    Returns
    -------
    int
        Their number; 0 for a model that predicts something else.
    """
    head = model.get_output_embeddings()
    return 0 if head is None else head.out_features


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


def queries_per_key(model: nn.Module) -> int:
    """Attention heads that share a key and a value.

    Parameters
    ----------
    model
        Any.

    Returns
    -------
    int
        Their number, 1 where every head has its own.
    """
    heads = model.config.num_attention_heads
    return heads // (getattr(model.config, "num_key_value_heads", None) or heads)


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
        Its type has no entry in `ARCHITECTURES`, or its units cannot be cut any more, as its layers are quantized or of
        low rank, or samples leave it early.
    """
    entry, found = architecture(model), []
    refuse_changed(model, (layers.PackedLinear, layers.LowRankLinear, layers.Exits))
    for i, block in enumerate(model.get_submodule(blocks_path(model))):
        if not any(isinstance(m, layers.NoAttention) for m in block.modules()):
            found.append(_sublayer(model, "attention", i, entry.attention))
        if not experts(block):
            found.append(_sublayer(model, "ffn", i, entry.ffn))
    return [s for s in found if s.units]


def _sublayer(model: nn.Module, kind: str, block: int, branch: Branch) -> Sublayer:
    path, head, parallel = f"{blocks_path(model)}.{block}.", head_width(model), architecture(model).parallel
    there = {name for name, _ in model.get_submodule(path[:-1]).named_modules()}
    rows = {"q": queries_per_key(model) * head, "k": head, "v": head, "n": 1}
    projection, columns = model.get_submodule(path + branch.output), rows["q" if kind == "attention" else "n"]
    return Sublayer(
        kind,
        block,
        {
            path + p: tuple(sum(rows[c] for c in x) for x in parts)
            for p, parts in branch.producers.items()
            if p in there
        },
        path + branch.output,
        path + branch.entry,
        columns,
        projection.in_features // columns,
        projection.out_features,
        {path + p: path + norm for p, norm in branch.vectors.items()},
        branch.norm and path + branch.norm,
        getattr(model.config, branch.multiplier) if branch.multiplier else 1.0,
        kind == "ffn" and bool(parallel) and getattr(model.config, parallel),
    )


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
        There are such layers, or experts that are not split (compress.model.modeling.split_experts).
    """
    for path, module in model.named_modules():
        if modeling.holds_experts(module):
            what = f"{path} holds all experts in one tensor, which no method changes"
            raise ValueError(f"{what}: give a model of type {', '.join(modeling.EXPERTS)}")
        if isinstance(module, kinds):
            if isinstance(module, layers.Exits):
                what = "the model has early exits, fitted to it as it is"
                raise ValueError(f"{what}: change it first, early_exit comes last")
            what = "of low rank" if isinstance(module, layers.LowRankLinear) else "quantized"
            order = "prune, then distil or factorise, and quantize last"
            raise ValueError(f"{path} is {what} already, which this method cannot change: {order}")


def experts(model: nn.Module) -> list[layers.Experts]:
    """The mixtures of experts of a model.

    Parameters
    ----------
    model
        A model or a part of one.

    Returns
    -------
    list of layers.Experts
        One a block at most; empty for a model without.
    """
    return [module for module in model.modules() if isinstance(module, layers.Experts)]


def weights_of_layers(model: nn.Module) -> dict[str, int]:
    """Which linear layers have one and the same weight.

    Parameters
    ----------
    model
        Any.

    Returns
    -------
    dict
        By path, of a weight that is dense, packed or of low rank, what is equal for the layers that share it.
    """
    found = {}
    for path, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, layers.PackedLinear):
            found[path] = id(module.packed)
        elif isinstance(module, nn.Linear | layers.LowRankLinear):
            found[path] = id(next(module.parameters(), None))
    return found


def block_linears(model: nn.Module, block: int) -> Iterator[tuple[str, nn.Linear]]:
    """Every linear layer of one block, but for those that pruning has left without a weight.

    Parameters
    ----------
    model
        Any.
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
    for path, parts in sublayer.producers.items():
        linear, index = model.get_submodule(path), torch.cat([keep.repeat_interleave(rows) for rows in parts])
        if path in sublayer.vectors:
            _cut_vector(model, f"{sublayer.vectors[path]}.weight", linear.weight, index)
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


def _cut_vector(model: nn.Module, name: str, weight: Tensor, index: Tensor) -> None:
    """Cut the parameter `name` of a norm over the rows `weight` of a projection; index (rows,) is False for those gone.

    The norm now divides by the root mean square of the rows that stay. What that changes for inputs that are alike in
    all directions is taken back.
    """
    squares = weight.square().sum(1)
    set_parameter(model, name, model.get_parameter(name)[index] * (squares[index].mean() / squares.mean()).sqrt())


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
        if model.config.__dict__.get(setting):  # a property follows from other settings
            setattr(model.config, setting, [getattr(model.config, setting)[i] for i in kept])
    if hasattr(model.config, "mlp_only_layers"):  # Qwen3-MoE: the blocks without experts
        dense = [i for i, block in enumerate(blocks) if not experts(block)]
        model.config.mlp_only_layers, model.config.decoder_sparse_step = dense, 1
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
