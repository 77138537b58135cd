"""What is known of every architecture, one declarative entry each; another model type needs nothing but its entry here.

A block adds what its branches give, an attention and a feed-forward network, to the residual stream. An entry says
where that happens and what goes when a unit goes: a head (a key-value group where heads share them) or a neuron.
Paths are relative to a block. What a cut module has to be told is in `compress.model.modeling.refresh`, since a saved
folder needs it too, and so are the settings of a config that have one value per block (`OF_BLOCKS`).
"""

from dataclasses import dataclass, field, replace

from torch import nn


@dataclass(frozen=True)
class Branch:
    """An attention or a feed-forward network: what reads the residual stream and adds to it.

    Attributes
    ----------
    entry
        Module whose input is the residual stream.
    producers
        The projections that give the units, by path: what the rows of one unit are in each of the parts that lie side
        by side. "q", "k" and "v" stand for the queries, the key and the value of a unit, "n" for a neuron; several
        letters in one part are interleaved head by head. A block may lack some that a setting leaves out.
    output
        The projection whose result, perhaps after `norm` and `multiplier`, is added to the residual stream.
    norm
        RMS norm between the projection and the residual stream; "": none.
    multiplier
        Setting of the config by which the result is multiplied; "": none.
    vectors
        Norms over all heads with a number for every row of a projection, by its path, which are cut with the heads.
    head_norms
        Norms of the queries and the keys of every single head, which stay when heads go.
    """

    entry: str
    producers: dict[str, tuple[str, ...]]
    output: str
    norm: str = ""
    multiplier: str = ""
    vectors: dict[str, str] = field(default_factory=dict)
    head_norms: tuple[str, ...] = ()


@dataclass(frozen=True)
class Architecture:
    """An entry.

    Attributes
    ----------
    blocks
        Path of the list of blocks in the base model.
    attention, ffn
        The branches of a block; one with a mixture of experts has no such feed-forward network, and they stay whole.
    parallel
        Setting of the config with which both branches read what enters the block; "": the second one reads what the
        first has added to.
    neurons
        Setting of the config that says how many there are in every layer.
    refused
        Settings of the config with which no method works, and why.
    """

    blocks: str
    attention: Branch
    ffn: Branch
    parallel: str = ""
    neurons: str = "intermediate_size"
    refused: dict[str, str] = field(default_factory=dict)


_BERT = Architecture(
    blocks="encoder.layer",
    attention=Branch(
        entry="attention.self",
        producers={"attention.self.query": ("q",), "attention.self.key": ("k",), "attention.self.value": ("v",)},
        output="attention.output.dense",
    ),
    ffn=Branch(entry="intermediate.dense", producers={"intermediate.dense": ("n",)}, output="output.dense"),
)
_DEBERTA = replace(
    _BERT,
    attention=replace(
        _BERT.attention,
        producers={
            "attention.self.query_proj": ("q",),
            "attention.self.key_proj": ("k",),
            "attention.self.value_proj": ("v",),
            "attention.self.pos_key_proj": ("k",),  # of the table of relative positions, which all blocks share
            "attention.self.pos_query_proj": ("q",),
        },
    ),
    refused={"conv_kernel_size": "its convolution behind the first block is part of no block"},
)
_DISTILBERT = Architecture(
    blocks="transformer.layer",
    attention=Branch(
        entry="attention",
        producers={"attention.q_lin": ("q",), "attention.k_lin": ("k",), "attention.v_lin": ("v",)},
        output="attention.out_lin",
    ),
    ffn=Branch(entry="ffn", producers={"ffn.lin1": ("n",)}, output="ffn.lin2"),
    neurons="hidden_dim",
)
_GPT2 = Architecture(
    blocks="h",
    attention=Branch(entry="ln_1", producers={"attn.c_attn": ("q", "k", "v")}, output="attn.c_proj"),
    ffn=Branch(entry="ln_2", producers={"mlp.c_fc": ("n",)}, output="mlp.c_proj"),
    neurons="n_inner",
)
_HEADS = {"self_attn.q_proj": ("q",), "self_attn.k_proj": ("k",), "self_attn.v_proj": ("v",)}
_GATED = {"mlp.gate_proj": ("n",), "mlp.up_proj": ("n",)}
_HEAD_NORMS = ("self_attn.q_norm", "self_attn.k_norm")
_LLAMA = Architecture(
    blocks="layers",
    attention=Branch(entry="input_layernorm", producers=_HEADS, output="self_attn.o_proj"),
    ffn=Branch(entry="post_attention_layernorm", producers=_GATED, output="mlp.down_proj"),
)
_QWEN3 = replace(_LLAMA, attention=replace(_LLAMA.attention, head_norms=_HEAD_NORMS))
_GRANITE = replace(
    _LLAMA,
    attention=replace(_LLAMA.attention, multiplier="residual_multiplier"),
    ffn=replace(_LLAMA.ffn, multiplier="residual_multiplier"),
)
_GEMMA2 = Architecture(
    blocks="layers",
    attention=Branch("input_layernorm", _HEADS, "self_attn.o_proj", norm="post_attention_layernorm"),
    ffn=Branch("pre_feedforward_layernorm", _GATED, "mlp.down_proj", norm="post_feedforward_layernorm"),
)
_GEMMA3 = replace(_GEMMA2, attention=replace(_GEMMA2.attention, head_norms=_HEAD_NORMS))
_OLMO2 = Architecture(
    blocks="layers",
    attention=Branch(
        entry="self_attn.q_proj",
        producers=_HEADS,
        output="self_attn.o_proj",
        norm="post_attention_layernorm",
        vectors={"self_attn.q_proj": "self_attn.q_norm", "self_attn.k_proj": "self_attn.k_norm"},
    ),
    ffn=Branch("mlp", _GATED, "mlp.down_proj", norm="post_feedforward_layernorm"),
)
_PHI3 = replace(
    _LLAMA,
    attention=replace(_LLAMA.attention, producers={"self_attn.qkv_proj": ("q", "k", "v")}),
    ffn=replace(_LLAMA.ffn, producers={"mlp.gate_up_proj": ("n", "n")}),
)
_GPT_NEOX = Architecture(
    blocks="layers",
    attention=Branch("input_layernorm", {"attention.query_key_value": ("qkv",)}, "attention.dense"),
    ffn=Branch("post_attention_layernorm", {"mlp.dense_h_to_4h": ("n",)}, "mlp.dense_4h_to_h"),
    parallel="use_parallel_residual",
)
_MODERNBERT = Architecture(
    blocks="layers",
    attention=Branch("attn_norm", {"attn.Wqkv": ("q", "k", "v")}, "attn.Wo"),
    ffn=Branch("mlp_norm", {"mlp.Wi": ("n", "n")}, "mlp.Wo"),
)
_OLMOE = replace(_LLAMA, attention=replace(_OLMO2.attention, entry=_LLAMA.attention.entry, norm=""))
ARCHITECTURES = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "electra": _BERT,
    "deberta-v2": _DEBERTA,
    "distilbert": _DISTILBERT,
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "mixtral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _QWEN3,
    "qwen3_moe": _QWEN3,
    "smollm3": _LLAMA,
    "granite": _GRANITE,
    "gemma2": _GEMMA2,
    "gemma3_text": _GEMMA3,
    "olmo2": _OLMO2,
    "olmo3": _OLMO2,
    "olmoe": _OLMOE,
    "phi3": _PHI3,
    "gpt_neox": _GPT_NEOX,
    "modernbert": _MODERNBERT,
    "gpt2": _GPT2,
}


def kind_of(model: nn.Module) -> str:
    """The model type of a model, or of which it is the compressed kind.

    Parameters
    ----------
    model
        Any of transformers, or compressed.

    Returns
    -------
    str
        As transformers calls it.
    """
    return model.config.model_type.removeprefix("compressed_")


def architecture(model: nn.Module) -> Architecture:
    """The entry of a model.

    Parameters
    ----------
    model
        Any of transformers, or compressed.

    Returns
    -------
    Architecture
        Its entry in `ARCHITECTURES`.

    Raises
    ------
    ValueError
        There is none.
    """
    kind = kind_of(model)
    if kind not in ARCHITECTURES:
        why = "it has no entry in compress/model/architectures.py: quantize it or lower its ranks, or give one of those"
        raise ValueError(f"heads and neurons of model type '{kind}' cannot be cut, as {why} in docs/architectures.md")
    return ARCHITECTURES[kind]


def blocks_path(model: nn.Module) -> str:
    """Path of the list of transformer blocks.

    Parameters
    ----------
    model
        Any of transformers, or compressed.

    Returns
    -------
    str
        That of its entry; else that of the one list of as many modules as the config says that there are blocks.

    Raises
    ------
    ValueError
        There is no such list, or there are several; or the entry refuses a setting of the model.
    """
    base, kind = model.base_model, kind_of(model)
    prefix = "" if base is model else model.base_model_prefix + "."
    if kind in ARCHITECTURES:
        for setting, why in ARCHITECTURES[kind].refused.items():
            if value := getattr(model.config, setting, None):
                what = f"model type '{kind}' with {setting} {value} cannot be compressed"
                raise ValueError(f"{what}: {why}: give a model without")
        return prefix + ARCHITECTURES[kind].blocks
    count, found = getattr(model.config, "num_hidden_layers", None), []
    for path, module in base.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            if not any(path.startswith(f"{outer}.") for outer in found):
                found.append(path)
    if len(found) != 1 or getattr(model.config, "is_encoder_decoder", False):
        lists = " and ".join(found) or "none"
        why = f"its blocks do not form one list of {count} modules (found: {lists})"
        raise ValueError(f"model type '{kind}' cannot be compressed: {why}: give a model whose blocks do")
    return prefix + found[0]
