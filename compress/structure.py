"""What can be removed from a transformer: heads and neurons, what they cost, and their removal.

A sublayer is one attention or one feed-forward network. Its units are heads (key-value groups where heads share
them) and neurons. Every unit owns rows of the projections that produce it and columns of the output projection.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compress.layers import NoAttention


@dataclass(frozen=True)
class Names:
    """Module names of one architecture, relative to its base model and to its blocks."""

    blocks: str
    attention: tuple[str, str, str]
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
_LLAMA = Names(
    blocks="layers",
    attention=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    attention_output="self_attn.o_proj",
    attention_entry="input_layernorm",
    ffn=("mlp.gate_proj", "mlp.up_proj"),
    ffn_output="mlp.down_proj",
    ffn_entry="post_attention_layernorm",
)
ARCHITECTURES = {"bert": _BERT, "roberta": _BERT, "electra": _BERT, "llama": _LLAMA, "mistral": _LLAMA}


@dataclass(frozen=True)
class Sublayer:
    """One attention or feed-forward network of one block.

    `producers` maps each producing projection to its rows per unit; `columns` is the number of columns a unit has in
    the projection `output`; `entry` is the module whose input is the residual stream that the sublayer adds to.
    """

    kind: str  # "attention" or "ffn"
    block: int
    producers: dict[str, int]
    output: str
    entry: str
    columns: int
    units: int
    width: int  # of the residual stream

    def unit_flops(self, tokens: float) -> float:
        """Multiply-adds x 2 of one unit on a sequence of `tokens` (8 n d d_h + 4 n^2 d_h; 4 n d)."""
        projections = 2 * tokens * self.width * (sum(self.producers.values()) + self.columns)
        return projections + (4 * tokens**2 * self.columns if self.kind == "attention" else 0)


def names(model: nn.Module) -> Names:
    """The architecture's module names. Raises ValueError for one that is not supported."""
    kind = model.config.model_type.removeprefix("compressed_")
    if kind not in ARCHITECTURES:
        allowed = ", ".join(sorted(ARCHITECTURES))
        raise ValueError(f"model type '{kind}' cannot be compressed: supported are {allowed}")
    return ARCHITECTURES[kind]


def context(model: nn.Module, wanted: int) -> int:
    """`wanted` tokens, or fewer where the model has not that many positions."""
    # RoBERTa counts its positions from behind the padding index
    lost = model.config.pad_token_id + 1 if model.config.model_type.endswith("roberta") else 0
    return min(wanted, model.config.max_position_embeddings - lost)


def blocks_path(model: nn.Module) -> str:
    """Path of the list of transformer blocks inside `model`."""
    base = model.base_model
    prefix = "" if base is model else model.base_model_prefix + "."
    return prefix + names(model).blocks


def sublayers(model: nn.Module) -> list[Sublayer]:
    """Every sublayer that has units left, bottom to top, attention before feed-forward."""
    n, found = names(model), []
    head_dim = getattr(model.config, "head_dim", None) or model.config.hidden_size // model.config.num_attention_heads
    for i, block in enumerate(model.get_submodule(blocks_path(model))):
        path = f"{blocks_path(model)}.{i}."
        if not any(isinstance(m, NoAttention) for m in block.modules()):
            query, key = (block.get_submodule(p).out_features for p in n.attention[:2])
            rows = dict(zip((path + p for p in n.attention), (head_dim * query // key, head_dim, head_dim)))
            found.append(_sublayer(model, "attention", i, rows, path + n.attention_output, path + n.attention_entry))
        rows = {path + p: 1 for p in n.ffn}
        found.append(_sublayer(model, "ffn", i, rows, path + n.ffn_output, path + n.ffn_entry))
    return [s for s in found if s.units]


def _sublayer(model: nn.Module, kind: str, block: int, rows: dict[str, int], output: str, entry: str) -> Sublayer:
    projection, columns = model.get_submodule(output), next(iter(rows.values()))
    units = projection.in_features // columns
    return Sublayer(kind, block, rows, output, entry, columns, units, projection.out_features)


def block_linears(model: nn.Module, block: int) -> Iterator[tuple[str, nn.Linear]]:
    """Path and module of every linear layer of one block."""
    path = f"{blocks_path(model)}.{block}"
    for name, module in model.get_submodule(path).named_modules(prefix=path):
        if isinstance(module, nn.Linear):
            yield name, module


def flops(model: nn.Module, tokens: float) -> float:
    """FLOPs of all heads and neurons on one sequence of `tokens`; embeddings, norms, biases and head left out."""
    return sum(s.units * s.unit_flops(tokens) for s in sublayers(model))


def select(scores: Sequence[Tensor], costs: Sequence[float], budget: float) -> list[Tensor]:
    """Keep the units of highest score whose costs fit the budget.

    scores: one (units,) a sublayer; costs: of one unit of each; returns one boolean (units,) a sublayer. A unit that
    no longer fits is passed over, so that smaller units behind it use up what is left.
    """
    pooled = torch.cat([s.double() for s in scores])
    cost = torch.cat([torch.full((len(s),), float(c), dtype=torch.float64) for s, c in zip(scores, costs)])
    order = torch.argsort(pooled, descending=True, stable=True)
    total = cost[order].cumsum(0)
    fits = int((total <= budget * (1 + 1e-12)).sum())
    keep = torch.zeros(len(pooled), dtype=torch.bool)
    keep[order[:fits]] = True
    left = budget * (1 + 1e-12) - (float(total[fits - 1]) if fits else 0.0)
    for i in order[fits:].tolist():
        if cost[i] <= left:
            keep[i] = True
            left -= float(cost[i])
        if left < cost.min():
            break
    return list(keep.split([len(s) for s in scores]))


@torch.no_grad()
def remove(model: nn.Module, sublayer: Sublayer, keep: Tensor) -> None:
    """Cut every unit that `keep` (units,) leaves out from the weights of `model`, in place."""
    if bool(keep.all()):
        return
    for path, rows in sublayer.producers.items():
        index = keep.repeat_interleave(rows).nonzero().squeeze(1)
        linear = model.get_submodule(path)
        linear.weight = nn.Parameter(linear.weight[index].clone(), linear.weight.requires_grad)
        if linear.bias is not None:
            linear.bias = nn.Parameter(linear.bias[index].clone(), linear.bias.requires_grad)
        linear.out_features = len(index)
    index = keep.repeat_interleave(sublayer.columns).nonzero().squeeze(1)
    output = model.get_submodule(sublayer.output)
    output.weight = nn.Parameter(output.weight[:, index].clone(), output.weight.requires_grad)
    output.in_features = len(index)
    if sublayer.kind == "attention" and not len(index):
        # attention modules reshape to (..., heads, head_dim), which has no meaning without a head
        place = next(iter(sublayer.producers)).rpartition(".")[0]
        inside = sublayer.output.startswith(place + ".")  # then the attention module also projects and adds the bias
        layer_idx = getattr(model.get_submodule(place), "layer_idx", None)
        nothing = NoAttention(sublayer.width if inside else 0, inside and output.bias is not None, layer_idx)
        if nothing.bias is not None:
            nothing.bias = output.bias
        model.set_submodule(place, nothing)


def require_flops(left: float, dense: float, unit: float, ratio: float) -> None:
    """Raise RuntimeError unless the share `ratio` of the FLOPs `dense` is gone.

    Within 0.005, or within one unit (its FLOPs) where that is more.
    """
    reached = 1 - left / dense
    if abs(reached - ratio) > max(0.005, unit / dense):
        raise RuntimeError(f"FLOPs removed: {reached:.4f} reached, {ratio:.4f} requested")


def check_ratio(ratio: float) -> None:
    """Raise ValueError unless 0 <= ratio < 1."""
    if not 0 <= ratio < 1:
        raise ValueError(f"ratio {ratio} is not a share to remove: give 0 <= ratio < 1, for example ratio=0.5")
