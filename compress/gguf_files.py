"""GGUF files, which llama.cpp and what is built on it read: weights, settings, tokenizer and chat template in one.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Names of tensors and settings are those of
llama.cpp's graphs, which take layers of one size.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase as Tokenizer

from compress.model import modeling
from compress.model.architectures import kind_of
from compress.model.gguf.graphs import GRAPHS, PERIOD, SCALES, factors, kinds_of_blocks, query_scalar, side_by_side
from compress.model.gguf.tokenizer import form_of, write_tokenizer

if TYPE_CHECKING:
    from gguf import GGUFWriter

TYPES = ("f16", "bf16", "q8_0", "q5_1", "q4_1", "q4_0")  # of the weights, from the most bits to the fewest
ROW = 32  # weights that share a scale in those that quantize
UNBIASED = ("qwen3", "smollm3", "gemma3_text")  # llama.cpp refuses a file with biases of the attention of these
_HEAD = "q8_0"  # of the output head where others have fewer bits; llama.cpp's q6_k can be read here, but not written
_REASONS = {"f32": "norms and other vectors", "f16": f"rows that are no multiple of {ROW}", _HEAD: "the output head"}


def check(source: str, model: nn.Module, tokenizer: Tokenizer) -> None:
    """Refuse a model that no graph of `GRAPHS` computes.

    Parameters
    ----------
    source
        What messages call the model.
    model, tokenizer
        The model.

    Raises
    ------
    ValueError
        For another model type, layers of several sizes, settings that the graph has not, or an unknown tokenizer.
    """
    kind, config = kind_of(model), model.config
    if kind not in GRAPHS or not modeling.base_class(model).__name__.endswith("ForCausalLM"):
        raise ValueError(f"gguf has no graph for {source} ({kind}): give a decoder of type {', '.join(GRAPHS)}")
    for path, (form, _) in modeling.changes(model).get("layers", {}).items():
        module = model.get_submodule(path)
        if form not in ("PackedLinear", "PackedEmbedding"):
            reason = f"gguf holds plain layers of one size, {path} is none ({form})"
            raise ValueError(f"{reason}: prune with shape=uniform (kprune, kwon, magnitude), or remove blocks by depth")
        if getattr(module, "smooth", None) is not None or getattr(module, "activations", None) is not None:
            raise ValueError(f"gguf would lose how {path} scales and rounds its inputs: export before it is quantized")
    _check_graph(kind, source, config)
    form_of(tokenizer)


def _check_graph(kind: str, source: str, config: Any) -> None:
    """Raise ValueError for settings that the graph of a model type has not."""
    window, gemma = getattr(config, "sliding_window", None), kind == "gemma3_text"
    if window and getattr(config, "use_sliding_window", True) and window < config.max_position_embeddings and not gemma:
        what = f"the graph of {kind} has no sliding window, {source} one of {window} tokens"
        raise ValueError(f"{what}: give another format")
    activation = config.hidden_activation if gemma else config.hidden_act
    biased = getattr(config, "mlp_bias", False) or (kind in UNBIASED and config.attention_bias)
    if activation not in (("gelu_pytorch_tanh",) if gemma else ("silu", "swish")) or biased:
        what = f"{'gelu_pytorch_tanh' if gemma else 'silu'} without biases, {source} {activation}"
        raise ValueError(f"the graph of {kind} has {what}{' with biases' if biased else ''}: give another format")
    if gemma:
        _check_gemma(source, config)
    turned = [int((i + 1) % 4 > 0) for i in range(config.num_hidden_layers)]
    if kind == "smollm3" and list(config.no_rope_layers) != turned:
        what = "the graph of smollm3 does not turn heads in every fourth block, and in no other"
        raise ValueError(f"{what}, {source} has no_rope_layers {config.no_rope_layers}: keep all blocks")
    _scaling(config)


def _check_gemma(source: str, config: Any) -> None:
    """Raise ValueError for settings of Gemma 3 that its graph has not."""
    scalar = query_scalar(config.num_hidden_layers, _width(config), config.hidden_size // config.num_attention_heads)
    if config.query_pre_attn_scalar != scalar:
        what = f"the graph of gemma3 has a query_pre_attn_scalar of {scalar}, {source} {config.query_pre_attn_scalar}"
        raise ValueError(f"{what}: give another format")
    for key in ("final_logit_softcapping", "attn_logit_softcapping", "use_bidirectional_attention"):
        if getattr(config, key):
            raise ValueError(f"the graph of gemma3 has no {key}, {source} has: give another format")
    if config.rope_parameters["sliding_attention"].get("rope_type", "default") != "default":
        raise ValueError(f"the graph of gemma3 has no rotary scaling inside windows, {source} has: give another format")
    _period(config)


def _period(config: Any) -> int:
    """One block of Gemma 3 in how many looks at all tokens. Raises ValueError where they are not regular."""
    count = config.num_hidden_layers
    for period in (PERIOD, *range(1, count + 2)):
        if kinds_of_blocks(count, period) == config.layer_types:
            return period
    whole = [i for i, kind in enumerate(config.layer_types) if kind == "full_attention"]
    what = "the graph of gemma3 has blocks without a window in regular distances"
    raise ValueError(f"{what}, the model has them at {whole}: keep all blocks")


@torch.no_grad()
def write(model: nn.Module, tokenizer: Tokenizer, file: Path, kind: str) -> dict[str, int]:
    """Write a GGUF file.

    What llama.cpp keeps at a higher precision is so here: vectors are f32, rows that are no multiple of `ROW` f16, the
    output head (tied embeddings too) has 8 bits.

    Parameters
    ----------
    model
        That `check` has let through, with dense layers. Its weights are rounded to what is written.
    tokenizer
        Of the model.
    file
        To write.
    kind
        One of `TYPES`.

    Returns
    -------
    dict
        Number of weights by their type.

    Raises
    ------
    ValueError
        A weight is beyond the numbers of the type.
    """
    import gguf

    graph = GRAPHS[kind_of(model)]
    writer = gguf.GGUFWriter(file, graph.name)
    _settings(writer, model.config, getattr(gguf.LlamaFileType, f"MOSTLY_{kind.upper()}"))
    write_tokenizer(writer, tokenizer, model.config.vocab_size)
    divisors = _factors(model.config)
    if divisors is not None:
        writer.add_tensor("rope_freqs.weight", divisors)
    head, numbers = model.get_output_embeddings().weight, Counter[str]()
    for path, parameter in model.named_parameters():  # a tied head is the embeddings'
        own = _type_of(parameter, kind, parameter is head)
        numbers[own] += parameter.numel()
        stored, raw = _rounded(path, parameter.data.float().numpy() + graph.shift(path), own)
        parameter.data = torch.from_numpy(gguf.quants.dequantize(stored, raw)) - graph.shift(path)
        if graph.turned(path):
            stored = side_by_side(stored, getattr(model.config, graph.turned(path)))
        writer.add_tensor(graph.tensor(path), stored, raw_dtype=raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return dict(numbers)


def describe(numbers: Mapping[str, int], kind: str) -> str:
    """Say which types the weights have, and why where that is not the one that was asked for.

    Parameters
    ----------
    numbers
        As `write` returns it.
    kind
        One of `TYPES`.

    Returns
    -------
    str
        A part of a line.
    """
    others = [f"{numbers[own]:,} {own} ({_REASONS[own]})" for own in _REASONS if own != kind and own in numbers]
    return ", ".join([f"{numbers.get(kind, 0):,} weights are {kind}", *others])


def _type_of(parameter: nn.Parameter, kind: str, head: bool) -> str:
    """The type in which a weight is stored where `kind` is asked for."""
    if parameter.ndim == 1:
        return "f32"
    if kind in ("f16", "bf16"):
        return kind
    if parameter.shape[-1] % ROW:
        return "f16"
    return _HEAD if head else kind


def _rounded(path: str, weights: np.ndarray, kind: str) -> tuple[np.ndarray, Any]:
    """(numbers as they are stored, their type for the gguf package)."""
    import gguf

    raw = getattr(gguf.GGMLQuantizationType, kind.upper())
    with np.errstate(over="ignore"):
        stored = gguf.quants.quantize(np.ascontiguousarray(weights), raw)
    if kind == "f16" and not np.isfinite(stored).all():
        raise ValueError(f"{path} has weights beyond the numbers of f16: take bf16")
    return stored, raw


def _width(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _scaling(config: Any) -> dict[str, Any]:
    """The rotary settings. Raises ValueError for a scaling that the graphs have not."""
    rope = config.rope_parameters.get("full_attention", config.rope_parameters)
    if rope.get("rope_type", "default") not in ("default", "linear", "yarn", "llama3"):
        raise ValueError(f"gguf has no rotary scaling of type {rope['rope_type']}: give another format")
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise ValueError("gguf turns whole heads, the model a part of each: give another format")
    return rope


def _factors(config: Any) -> np.ndarray | None:
    """(width / 2,) by which frequencies of Llama 3 are divided, as transformers does; None of other models."""
    rope = _scaling(config)
    if rope.get("rope_type") != "llama3":
        return None
    return factors(rope, _width(config))


def _settings(writer: "GGUFWriter", config: Any, kind: int) -> None:
    """Everything but tensors and tokenizer."""
    writer.add_name(Path(config._name_or_path).name or config.model_type)
    writer.add_file_type(kind)
    writer.add_quantization_version(2)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    for add in (writer.add_key_length, writer.add_value_length, writer.add_rope_dimension_count):
        add(_width(config))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    rope = _scaling(config)
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope.get("rope_type") in ("linear", "yarn"):
        from gguf import RopeScalingType

        writer.add_rope_scaling_type(RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
    if rope.get("rope_type") == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    for key, name in SCALES.items() if config.model_type == "granite" else ():
        writer.add_float32(f"granite.{name}", getattr(config, key))
    if "sliding_attention" in config.rope_parameters:
        writer.add_sliding_window(config.sliding_window)
        writer.add_sliding_window_pattern(_period(config))
        writer.add_rope_freq_base_swa(config.rope_parameters["sliding_attention"]["rope_theta"])
