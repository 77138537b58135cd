"""Models in GGUF files, as llama.cpp's graphs compute them: settings, weights and tokenizer, by the gguf package.

transformers reads such files too, but goes without what it does not look for: biases and rotary frequencies of Llama 3,
rotary scalings, and for some tokenizers how they take texts apart. Here whatever is unknown is refused by name. Torch
and transformers are imported only by what needs them, so that a file is refused early.
"""

from collections import Counter
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.model.gguf import container
from compress.model.gguf.graphs import GRAPHS, PERIOD, SCALES, Graph, apart, factors, kinds_of_blocks, query_scalar
from transmeter.util.checkpoint import SHOWN, Stored
from transmeter.util.counts import counted

if TYPE_CHECKING:
    from gguf import GGUFReader
    from torch import Tensor

_CLASSES = {  # by graph
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
    "granite": "GraniteForCausalLM",
    "gemma3": "Gemma3ForCausalLM",
}
_TYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}  # others are quantized
_RESULTS = "float16"  # the type that is saved of what was quantized
_OWN = {  # those of one graph alone
    "gemma3": {"attention.sliding_window", "attention.sliding_window_pattern", "rope.freq_base_swa"},
    "granite": set(SCALES.values()),
}
_FREQUENCIES = "rope_freqs.weight"
# settings of a graph that are looked at; any other may change what it computes
_SETTINGS = {
    *("context_length", "embedding_length", "block_count", "feed_forward_length", "vocab_size"),
    *("attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length"),
    *("attention.layer_norm_rms_epsilon", "rope.dimension_count", "rope.freq_base", "rope.scaling.finetuned"),
    *("rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length"),
}


def check(source: str | Path) -> tuple[Path, dict[str, Any], dict[str, Stored]]:
    """Everything about a GGUF file but its numbers.

    Parameters
    ----------
    source
        The file.

    Returns
    -------
    tuple
        The file, its settings as config.json would have them, and its tensors by the names of transformers, each with
        the type that results take.

    Raises
    ------
    ValueError
        The gguf package is missing, the file is broken or a part of one, or something in it is not known here.
    """
    file = Path(source)
    if find_spec("gguf") is None:
        raise ValueError(f"{source} needs gguf: pip install 'transmeter[gguf]'")
    reader = container.opened(file)
    graph = _graph(source, reader)
    if container.field(reader, "split.count", 1) > 1:
        remedy = "join them with llama-gguf-split --merge"
        raise ValueError(f"{source} is one of {container.field(reader, 'split.count')} parts of a model: {remedy}")
    tensors, others = {}, []
    for tensor in reader.tensors:
        path = graph.parameter(tensor.name)
        if path:
            kind = tensor.tensor_type.name
            shape = tuple(int(size) for size in reversed(tensor.shape))
            tensors[path] = Stored(file, shape, kind if kind in _TYPES else "F16")
        elif tensor.name != _FREQUENCIES:
            others.append(tensor.name)
    if others:
        named = ", ".join(others[:SHOWN]) + (", ..." if len(others) > SHOWN else "")
        what = f"{counted(len(others), 'tensor')} that the graph {graph.name} here has not ({named})"
        raise ValueError(f"{source} holds {what}: give the model in safetensors")
    return file, _config(source, reader, graph, tensors), tensors


def stored_type(source: str | Path) -> str:
    """The type that results take, and in one line which types the weights have.

    Parameters
    ----------
    source
        The file.

    Returns
    -------
    str
        A type of torch: that of most numbers, float16 where they are quantized.

    Warns
    -----
    UserWarning
        Always.
    """
    import warnings

    numbers: Counter[str] = Counter()
    for tensor in container.opened(Path(source)).tensors:
        numbers[tensor.tensor_type.name] += int(tensor.n_elements)
    most = _TYPES.get(max(numbers, key=lambda kind: (numbers[kind], kind)), _RESULTS)
    kinds = ", ".join(f"{count:,} {kind.lower()}" for kind, count in numbers.most_common())
    rounded = "which are dequantized, " if numbers.keys() - _TYPES.keys() else ""
    warnings.warn(f"{source} stores weights of types {kinds}, {rounded}results take {most}", stacklevel=1)
    return most


def read(file: Path, path: str) -> "Tensor":
    """The numbers of a parameter.

    Parameters
    ----------
    file
        That `check` has let through.
    path
        Of the parameter, as of transformers.

    Returns
    -------
    Tensor
        float32, dequantized, in the order of transformers.

    Raises
    ------
    ValueError
        The gguf package does not know the type.
    """
    import torch
    from gguf import quants

    reader = container.opened(file)
    graph = _graph(file, reader)
    tensor = next(t for t in reader.tensors if t.name == graph.tensor(path))
    kind = tensor.tensor_type
    try:
        rows = quants.dequantize(tensor.data, kind)
    except NotImplementedError:
        remedy = "give it in another type, such as q8_0"
        raise ValueError(
            f"{file}: the gguf package cannot read '{tensor.name}' ({kind.name.lower()}): {remedy}"
        ) from None
    rows = np.array(rows, np.float32)  # not the file itself
    if graph.turned(path):
        key = {"num_attention_heads": "head_count", "num_key_value_heads": "head_count_kv"}[graph.turned(path)]
        rows = apart(rows, _settings(reader, graph)[f"attention.{key}"])
    return torch.from_numpy(rows) - graph.shift(path)


def _config(source: str | Path, reader: "GGUFReader", graph: Graph, tensors: Mapping[str, Stored]) -> dict[str, Any]:
    """The settings, as config.json has them. Raises ValueError for one that is missing or not known here."""
    settings = _settings(reader, graph)
    unknown = sorted(settings.keys() - _SETTINGS - _OWN.get(graph.name, set()))
    if unknown:
        what = f"settings that the graph {graph.name} here has not ({', '.join(unknown)})"
        raise ValueError(f"{source} has {what}: give the model in safetensors")
    try:
        width = settings.get("attention.key_length") or settings["embedding_length"] // settings["attention.head_count"]
        found = {
            "model_type": next(kind for kind, other in GRAPHS.items() if other.name == graph.name),
            "architectures": [_CLASSES[graph.name]],
            "vocab_size": tensors["model.embed_tokens.weight"].shape[0],
            "hidden_size": settings["embedding_length"],
            "intermediate_size": settings["feed_forward_length"],
            "num_hidden_layers": settings["block_count"],
            "num_attention_heads": settings["attention.head_count"],
            "num_key_value_heads": settings["attention.head_count_kv"],
            "head_dim": width,
            "max_position_embeddings": settings["context_length"],
            "rms_norm_eps": settings["attention.layer_norm_rms_epsilon"],
            "rope_parameters": _rope(source, reader, settings, width),
            "tie_word_embeddings": "lm_head.weight" not in tensors,
            "attention_bias": "model.layers.0.self_attn.q_proj.bias" in tensors,
        }
    except KeyError as error:
        raise ValueError(f"{source} lacks {error.args[0]}: give a complete copy of the model") from None
    for key, value in found.items():
        if isinstance(value, list) and key != "architectures":
            raise ValueError(f"{source}: its blocks differ in {key}, and here they are of one size: give another model")
    for key in ("attention.value_length", "rope.dimension_count"):
        if settings.get(key, width) != width:
            raise ValueError(
                f"{source}: {key} is {settings[key]}, and here it is that of a head, {width}: give another"
            )
    if found["num_hidden_layers"] > len(tensors):  # building what is not there would take forever
        raise ValueError(
            f"{source} says that it has {counted(found['num_hidden_layers'], 'block')}, "
            f"but holds {counted(len(tensors), 'weight')}"
        )
    if graph.name == "gemma3":
        found |= _gemma(found, settings)
    if graph.name == "granite":
        usual = {"attention.scale": width**-0.5}  # where a file does not say it
        found |= {ours: settings.get(key, usual.get(key, 1.0)) for ours, key in SCALES.items()}
    ids = {f"{name}_id": number for name, number in container.special(reader).items() if name != "unk_token"}
    return found | {key: ids.get(key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}


def _gemma(found: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What Gemma 3 has beside what others have; `found`: the settings so far."""
    count, width = found["num_hidden_layers"], found["head_dim"]
    theta = settings.get("rope.freq_base_swa", 10_000.0)
    inside = {"rope_type": "default", "rope_theta": theta}
    return {
        "sliding_window": settings["attention.sliding_window"],
        "layer_types": kinds_of_blocks(count, settings.get("attention.sliding_window_pattern", PERIOD)),
        "query_pre_attn_scalar": query_scalar(count, width, found["hidden_size"] // found["num_attention_heads"]),
        "rope_parameters": {"full_attention": found["rope_parameters"], "sliding_attention": inside},
    }


def _rope(source: str | Path, reader: "GGUFReader", settings: Mapping[str, Any], width: int) -> dict[str, Any]:
    """The rotary settings. Raises ValueError for a scaling that is not known here."""
    kind = settings.get("rope.scaling.type", "none")
    rope: dict[str, Any] = {"rope_type": kind, "rope_theta": settings.get("rope.freq_base", 10_000.0)}
    divisors = next((t.data for t in reader.tensors if t.name == _FREQUENCIES), None)
    if divisors is not None and kind == "none":
        return _llama3(source, rope["rope_theta"], np.array(divisors, np.float64), width)
    if kind not in ("none", "linear", "yarn") or divisors is not None:
        raise ValueError(
            f"{source} has a rotary scaling that is not known here ({kind}): give the model in safetensors"
        )
    if kind == "none":
        return rope | {"rope_type": "default"}
    rope["factor"] = settings["rope.scaling.factor"]
    if kind == "yarn":
        rope["original_max_position_embeddings"] = settings["rope.scaling.original_context_length"]
    return rope


def _llama3(source: str | Path, theta: float, divisors: np.ndarray, width: int) -> dict[str, Any]:
    """The settings that give these divisors of the frequencies, with a low factor of 1, as all models of the kind have.

    The share by which a frequency is kept is a line over it, old / (high - low) / wave - low / (high - low), between
    the two ends.
    """
    factor = round(float(divisors.max()), 3)
    waves = 2 * np.pi * theta ** (np.arange(0, width, 2) / width)
    kept = (1 / divisors - 1 / factor) / (1 - 1 / factor)
    between = (kept > 0.001) & (kept < 0.999)
    rope = {"rope_type": "llama3", "rope_theta": theta, "factor": factor, "low_freq_factor": 1.0}
    if between.sum() > 1:
        slope, start = np.polyfit(1 / waves[between], kept[between], 1)
        high = round(1 - 1 / start, 2)
        rope |= {"high_freq_factor": high, "original_max_position_embeddings": round(slope * (high - 1))}
        if np.allclose(factors(rope, width), divisors, rtol=1e-4):
            return rope
    raise ValueError(f"{source}: {_FREQUENCIES} is not as of Llama 3: give the model in safetensors")


def _graph(source: str | Path, reader: "GGUFReader") -> Graph:
    """The graph of a file. Raises ValueError for one that is not known here."""
    name = container.field(reader, "general.architecture")
    if name not in _CLASSES:
        raise ValueError(f"{source} is of llama.cpp's graph '{name}': give a model of {', '.join(_CLASSES)}")
    return next(graph for graph in GRAPHS.values() if graph.name == name)


def _settings(reader: "GGUFReader", graph: Graph) -> dict[str, Any]:
    """The settings of a graph, without its name before theirs."""
    prefix = f"{graph.name}."
    found = {k.removeprefix(prefix): container.field(reader, k) for k in reader.fields if k.startswith(prefix)}
    found.setdefault("attention.head_count_kv", found.get("attention.head_count"))
    return found
