"""The files of a model folder as transformers reads them: which they are, what they hold, whether they fit the model.

A checkpoint is read completely or refused by name. Imports neither torch nor transformers before `match` does, so that
a folder is refused early.
"""

import hashlib
import json
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from transmeter.util.counts import counted
from transmeter.util.suggestions import absent

if TYPE_CHECKING:
    from torch import nn

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model")
# what else decides which tokens a text has, but is no tokenizer by itself
BESIDE_TOKENIZERS = ("merges.txt", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja")
# what a snapshot of the Hub needs; the folders beside (onnx, original) hold the same weights in other formats, but for
# those of sentence-transformers' modules (1_Pooling), which have a number
NEEDED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "README.md", "[0-9]_*/*"]
BESIDE = ["[!0-9]*/*"]
# what decides how the states of a model become an embedding
POOLING = ("modules.json", "*_Pooling/config.json")
FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}  # safetensors' names, torch's
SHOWN = 5  # names in a message
# whole numbers of a config and the least that they may be; several names of one thing in several families
LEAST = {
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_labels"), 1),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_key_value_heads", "head_dim"), 1),
    **dict.fromkeys(("hidden_size", "n_embd", "dim", "intermediate_size", "n_inner", "hidden_dim"), 1),
    **dict.fromkeys(("vocab_size", "max_position_embeddings", "n_positions", "sliding_window"), 1),
    "type_vocab_size": 0,
}
SWITCHES = ("return_dict", "output_hidden_states", "output_attentions")  # true or false; None stops the forward
DEPTHS = ("num_hidden_layers", "n_layer", "n_layers")
LABELS = 100_000  # that a classifier has at most; transformers makes a name for each
ADAPTED = {  # peft's task types, and the class that reads such a model
    "SEQ_CLS": "AutoPeftModelForSequenceClassification",
    "TOKEN_CLS": "AutoPeftModelForTokenClassification",
    "QUESTION_ANS": "AutoPeftModelForQuestionAnswering",
}
# buffers that older versions of transformers stored, and newer ones compute
DERIVED = re.compile(r"(\.masked_bias|rotary_emb\.inv_freq|(^|\.)position_ids)$")


@dataclass(frozen=True)
class Stored:
    """A tensor in a file.

    Attributes
    ----------
    file
        The safetensors file.
    shape
        Sizes of its dimensions.
    dtype
        Its type by safetensors' name (F32, BF16, U8, ...).
    """

    file: Path
    shape: tuple[int, ...]
    dtype: str


def is_gguf(source: str | Path) -> bool:
    """Whether a model is a GGUF file, which compress.model.gguf_reading reads.

    Parameters
    ----------
    source
        What stands for the model.

    Returns
    -------
    bool
        By the end of its name.
    """
    return Path(source).suffix == ".gguf" and Path(source).is_file()


def folder_of(source: str | Path) -> Path:
    """The folder of a model, or the one file that it is.

    Parameters
    ----------
    source
        A folder, a GGUF file, or a name on the Hub, of which what is needed is downloaded into the cache of
        huggingface_hub.

    Returns
    -------
    Path
        The folder or the file, on this machine.

    Raises
    ------
    ValueError
        It is neither, or the Hub cannot be reached.
    """
    if not str(source):  # Path("") would be the folder that one is in
        raise ValueError("the name of the model is empty: give a folder")
    if Path(source).is_dir() or is_gguf(source):
        return Path(source)
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()
        return Path(snapshot_download(str(source), allow_patterns=NEEDED, ignore_patterns=BESIDE))
    except Exception:  # of the HTTP library, which is another one by version
        guess = absent(Path(source)).partition("does not exist")[2]
        raise ValueError(
            f"{source} is neither a model folder nor a hub name that can be reached from here{guess}: give a folder"
        ) from None


def read_config(source: str | Path, folder: Path) -> dict[str, Any]:
    """The config of a model folder, as it is written.

    Parameters
    ----------
    source
        What messages call the folder.
    folder
        The folder.

    Returns
    -------
    dict
        The object in config.json.

    Raises
    ------
    ValueError
        There is none, it is not a JSON object, or a value in it is of a kind that no model can have.
    """
    if folder.is_file():
        raise ValueError(f"{source} is a GGUF file, which holds a decoder: give a model folder")
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            _refuse_adapter(source, folder)
        raise ValueError(f"{source} is not a model folder: it has no config.json")
    config = read_json(source, folder, "config.json")
    for key, kind in (("id2label", dict), ("label2id", dict), ("model_type", str)):
        if not isinstance(config.get(key) or kind(), kind):
            raise ValueError(f"{source}: {key} {config[key]!r} in config.json is not a {kind.__name__}")
    names = config.get("architectures")
    if names is not None and not (isinstance(names, list) and all(isinstance(n, str) for n in names)):
        raise ValueError(f"{source}: architectures {names!r} in config.json is not a list of names")
    for key, least in LEAST.items():
        value = config.get(key)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            raise ValueError(f"{source}: {key} {value!r} in config.json is not a whole number of {least} or more")
    for key in SWITCHES:
        if not isinstance(config.get(key, False), bool):
            raise ValueError(f"{source}: {key} {config[key]!r} in config.json is neither true nor false")
    if not config.get("return_dict", True):
        raise ValueError(f"{source}: with return_dict false in config.json results have no names: set it to true")
    if (config.get("num_labels") or 0) > LABELS:
        raise ValueError(f"{source}: num_labels {config['num_labels']} in config.json is more than {LABELS}")
    labels = config.get("id2label")
    if labels and config.get("num_labels", len(labels)) != len(labels):  # transformers would drop the names
        text = f"num_labels {config['num_labels']!r} and the {len(labels)} names of id2label differ in config.json"
        raise ValueError(f"{source}: {text}: leave out num_labels, or name every class")
    _check_heads(source, config)
    _check_changes(source, config)
    return config


def read_json(source: str | Path, folder: Path, name: str) -> dict[str, Any]:
    """The object in a JSON file of a model folder.

    Parameters
    ----------
    source
        What messages call the folder.
    folder
        The folder.
    name
        The name of the file.

    Returns
    -------
    dict
        The object.

    Raises
    ------
    ValueError
        The file cannot be read, or holds anything else.
    """
    try:
        found = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{source}: {name} cannot be read as JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{source}: {name} holds no JSON object")
    return found


def _check_heads(source: str | Path, config: Mapping[str, Any]) -> None:
    """Raise ValueError for heads that do not divide the width, or key-value heads that do not divide the heads."""

    def value(*names: str) -> tuple[str, int] | None:
        return next(((n, config[n]) for n in names if config.get(n)), None)

    width, heads = value("hidden_size", "n_embd", "dim"), value("num_attention_heads", "n_head", "n_heads")
    pairs = [] if config.get("head_dim") else [(width, heads)]
    for whole, part in [*pairs, (heads, value("num_key_value_heads"))]:
        if whole and part and whole[1] % part[1]:
            raise ValueError(f"{source}: {part[0]} {part[1]} does not divide {whole[0]} {whole[1]} in config.json")


def _check_changes(source: str | Path, config: Mapping[str, Any]) -> None:
    """Raise ValueError for a section of changed layers that this package did not write like this."""
    if "compressed" not in config:
        return
    section = config["compressed"]
    layers, tied = (section.get(k) for k in ("layers", "tied")) if isinstance(section, dict) else (None, None)
    sound = isinstance(layers, dict) and isinstance(tied, dict) and all(isinstance(v, str) for v in tied.values())
    for entry in layers.values() if sound else ():
        sound &= isinstance(entry, list) and [type(part) for part in entry] == [str, dict]
    if not sound:
        what = "the section 'compressed' of config.json was edited"
        raise ValueError(f"{source}: {what}: give the folder as it was written")


def check(source: str | Path, *, quantized: bool = False) -> tuple[Path, dict[str, Any], dict[str, Stored]]:
    """Everything about a model that is known before torch is imported.

    Parameters
    ----------
    source
        A folder or a hub name.
    quantized
        Whether a model that another tool has quantized will do.

    Returns
    -------
    tuple
        The folder, its config as it is written, and the tensors of its files by name.

    Raises
    ------
    ValueError
        The config or a file of weights is missing or broken; there is an adapter beside the model, which only some
        readers would apply; the model is quantized by another tool; the weights are pickled.
    """
    folder = folder_of(source)
    config = read_config(source, folder)
    if (folder / "adapter_config.json").is_file():
        _refuse_adapter(source, folder)
    for name in ("generation_config.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            read_json(source, folder, name)
    if not quantized:
        _refuse_quantized(source, folder, config)
    tensors = _read_tensors(source, _weight_files(source, folder, config))
    for key in DEPTHS:  # building what is not there would take forever
        if (config.get(key) or 0) > len(tensors):
            weights = counted(len(tensors), "weight")
            raise ValueError(f"{source}: {key} {config[key]} in config.json, but its files hold {weights}")
    return folder, config, tensors


def _refuse_adapter(source: str | Path, folder: Path) -> None:
    """Raise ValueError with the command that merges the adapter."""
    task = read_json(source, folder, "adapter_config.json").get("task_type")
    reader = ADAPTED.get(str(task), "AutoPeftModelForCausalLM")
    merge = f"M.from_pretrained('{source}').merge_and_unload().save_pretrained('merged')"
    raise ValueError(
        f"{source} holds an adapter (adapter_config.json), which is not part of the model's weights: merge it first, "
        f'python -c "from peft import {reader} as M; {merge}", and copy the tokenizer to merged'
    )


def quantizer_of(folder: Path, config: Mapping[str, Any]) -> str | None:
    """The method by which another tool has quantized a model.

    Parameters
    ----------
    folder
        The folder of the model.
    config
        Its config, as `read_config` returns it.

    Returns
    -------
    str or None
        As transformers calls it; None for a model that is not quantized.
    """
    section = config.get("quantization_config") or config.get("compression_config")
    if section is None and (folder / "quantize_config.json").is_file():
        return "gptq"  # where AutoGPTQ wrote it before it went to config.json
    if not isinstance(section, dict):
        return None if section is None else str(section)
    bits = next((k for k in ("load_in_4bit", "load_in_8bit") if section.get(k)), None)
    return str(section.get("quant_method") or ("bitsandbytes" if bits else "unknown"))


def _refuse_quantized(source: str | Path, folder: Path, config: Mapping[str, Any]) -> None:
    """Raise ValueError for a model that another tool has quantized."""
    method = quantizer_of(folder, config)
    if method is None:
        return
    remedy = "give the model that it was made from; transmeter evaluate measures it as it is"
    if (folder / "export.json").is_file():
        made = read_json(source, folder, "export.json").get("exported")
        remedy = f"give {made}, of which it is the export; transmeter evaluate measures it as it is"
    raise ValueError(f"{source} is quantized already ({method}), and its weights cannot be changed any more: {remedy}")


def _weight_files(source: str | Path, folder: Path, config: Mapping[str, Any]) -> list[Path]:
    """The files of weights that transformers reads, of all that lie in a folder.

    They are the one that the config names as transformers_weights, else model.safetensors, else the files of the
    index; whatever else lies beside them does not count.

    Raises
    ------
    ValueError
        There are none, the weights are pickled, or a file of the index is missing or outside the folder.
    """
    named = config.get("transformers_weights")
    name = str(named) if named is not None else next((n for n in (WEIGHTS, INDEX) if (folder / n).is_file()), None)
    if name is None:
        pickled = next((n for n in PICKLED if (folder / n).is_file()), None)
        if pickled:
            class_ = (config.get("architectures") or ["AutoModel"])[0]
            convert = f"from transformers import {class_} as M; M.from_pretrained('{source}').save_pretrained('safe')"
            why = "could run code when it is opened: where you trust it, convert it"
            raise ValueError(f'{source}: {pickled} is pickled and {why}, python -c "{convert}"')
        packed = next((f": give {f}" for f in sorted(folder.glob("*.gguf"))), "")
        why = f"it has neither {WEIGHTS} nor {INDEX}{packed}"
        raise ValueError(f"{source} has no weights that transformers reads: {why}")
    if not name.endswith(".index.json"):
        return [_inside(source, folder, name)]
    index = read_json(source, folder, _inside(source, folder, name).name)
    shards = index.get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(isinstance(n, str) for n in shards.values()):
        raise ValueError(f"{source}: {name} has no weight_map of names to files: give a sound copy of the model")
    if not isinstance(index.get("metadata"), dict):
        raise ValueError(f'{source}: {name} has no metadata, without which transformers fails: add "metadata": {{}}')
    return [_inside(source, folder, shard) for shard in sorted(set(shards.values()))]


def _inside(source: str | Path, folder: Path, name: str) -> Path:
    """The file of that name in `folder`. Raises ValueError for one that is missing, elsewhere or no safetensors."""
    if Path(name).name != name or not name.endswith((".safetensors", ".safetensors.index.json")):
        raise ValueError(f"{source}: '{name}' is not a safetensors file in the folder: give a sound copy of the model")
    if not (folder / name).is_file():
        raise ValueError(f"{source}: the file {name} is missing: give a complete copy of the model")
    return folder / name


def _read_tensors(source: str | Path, files: Iterable[Path]) -> dict[str, Stored]:
    """What the headers of files of weights say, by the names of the tensors. Raises ValueError for a broken file."""
    found = {}
    for path in files:
        try:
            with safe_open(path, "np") as file:
                for key in file.keys():
                    part = file.get_slice(key)
                    found[key] = Stored(path, tuple(part.get_shape()), str(part.get_dtype()))
        except (OSError, SafetensorError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{source}: {path.name} is broken ({reason}): give a sound copy of the model") from None
    return found


def stored_type(source: str | Path, tensors: Mapping[str, Stored]) -> str:
    """The type in which most of the numbers of a model are stored.

    Parameters
    ----------
    source
        What messages call the model.
    tensors
        Of its files.

    Returns
    -------
    str
        A type of torch; float32 where there are no numbers.

    Warns
    -----
    UserWarning
        There are several types.
    """
    numbers: Counter[str] = Counter()
    for tensor in tensors.values():
        if tensor.dtype in FLOATS:
            numbers[tensor.dtype] += prod(tensor.shape)
    if not numbers:
        return "float32"
    most = max(numbers, key=lambda kind: (numbers[kind], kind))
    if len(numbers) > 1:
        kinds = ", ".join(f"{FLOATS[kind]} {count:,}" for kind, count in numbers.most_common())
        warnings.warn(f"{source} stores numbers of several types ({kinds}): results take {FLOATS[most]}", stacklevel=1)
    return FLOATS[most]


def bytes_of(source: str | Path) -> int:
    """The size of the weights of a model.

    Parameters
    ----------
    source
        A folder or a hub name.

    Returns
    -------
    int
        Bytes of the files of weights that transformers reads.

    Raises
    ------
    ValueError
        As `check`.
    """
    folder = folder_of(source)
    if folder.is_file():
        return folder.stat().st_size
    return sum(f.stat().st_size for f in _weight_files(source, folder, read_config(source, folder)))


def hash_of(source: str | Path) -> str:
    """The hash of what is read of a model: config, tokenizer and weights.

    Parameters
    ----------
    source
        A folder or a hub name.

    Returns
    -------
    str
        SHA-256, hexadecimal.

    Raises
    ------
    ValueError
        As `check`.
    """
    folder = folder_of(source)
    names = ("config.json", "generation_config.json", *TOKENIZERS, *BESIDE_TOKENIZERS)
    files = [folder] if folder.is_file() else [folder / name for name in names if (folder / name).is_file()]
    if not folder.is_file():
        files += [file for pattern in POOLING for file in sorted(folder.glob(pattern))]
        files += _weight_files(source, folder, read_config(source, folder))
    found = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            found.update(file.name.encode() + hashlib.file_digest(content, "sha256").digest())
    return found.hexdigest()


def match(
    source: str | Path, model: "nn.Module", tensors: Mapping[str, Stored], unused: tuple[str, ...] = ()
) -> dict[str, str]:
    """The tensor of the files for every weight of a model.

    Parameters
    ----------
    source
        What messages call the model.
    model
        As its class builds it, weights perhaps on the meta device, tied weights tied.
    tensors
        Of its files.
    unused
        Beginnings of names in the model that the caller does not look at, and that the files may lack.

    Returns
    -------
    dict
        The names in the files by the names in the model. Of tied weights it may hold one alone.

    Raises
    ------
    ValueError
        As `refuse_incomplete`, or a tensor is of another shape or kind than the model's.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming, rename_source_key

    expected = model.state_dict(keep_vars=True)
    renamings = [t for t in get_model_conversion_mapping(model) if isinstance(t, WeightRenaming)]
    keys: dict[str, str] = {}
    for key in tensors:
        name = rename_source_key(key, renamings, [], model.base_model_prefix, expected)[0]
        keys.setdefault(name, key)
    found = {id(expected[name]) for name in keys if name in expected}
    missing = {n for n, weight in expected.items() if id(weight) not in found and not n.startswith(unused)}
    refuse_incomplete(source, model, missing, set(keys) - set(expected))
    matched = {name: key for name, key in keys.items() if name in expected}
    for name, key in matched.items():
        _check_tensor(source, key, tensors[key], expected[name])
    return matched


def _check_tensor(source: str | Path, key: str, stored: Stored, weight: Any) -> None:
    remedy = "give the config that belongs to the weights"
    if stored.shape != tuple(weight.shape):
        raise ValueError(f"{source}: '{key}' is {stored.shape}, its config asks for {tuple(weight.shape)}: {remedy}")
    if (stored.dtype in FLOATS) != weight.is_floating_point():
        wanted = ", ".join(FLOATS) if weight.is_floating_point() else "whole numbers"
        raise ValueError(f"{source}: '{key}' is stored as {stored.dtype}, its config asks for {wanted}: {remedy}")


def refuse_incomplete(source: str | Path, model: "nn.Module", missing: set[str], unexpected: set[str]) -> None:
    """Refuse weights that the files lack, or that they hold of blocks that the model does not have.

    Parameters
    ----------
    source
        What messages call the model.
    model
        As its class builds it.
    missing, unexpected
        Names of weights; what transformers computes by itself, and older versions of it stored, does not count.

    Raises
    ------
    ValueError
        There are such weights.

    Warns
    -----
    UserWarning
        There are other weights that the model has no place for, such as a head of the pre-training.
    """
    info: Any = SimpleNamespace(missing_keys=missing, unexpected_keys=unexpected)
    model._adjust_missing_and_unexpected_keys(info)  # type: ignore[operator]  # what transformers itself passes over
    unexpected = {name for name in info.unexpected_keys if not DERIVED.search(name)}
    if info.missing_keys:
        why = "transformers would fill them with random numbers"
        count = f"{len(info.missing_keys)} of {len(model.state_dict())} weights"
        text = f"{source} lacks {count} that its config asks for ({_named(info.missing_keys)})"
        raise ValueError(f"{text}, and {why}: give a complete copy, or the config that belongs to the weights")
    inside = _in_blocks(model, unexpected)
    if inside:
        text = f"{source} holds weights of blocks that its config does not have ({len(inside)}: {_named(inside)})"
        raise ValueError(f"{text}: give the config that belongs to the weights")
    if unexpected:
        text = f"{source} holds weights that {type(model).__name__} has no place for, which are left out"
        warnings.warn(f"{text} ({len(unexpected)}: {_named(unexpected)})", stacklevel=1)


def _in_blocks(model: "nn.Module", names: Iterable[str]) -> set[str]:
    """Those names that are inside a list of blocks of `model`, with or without the prefix of its base model."""
    lists = tuple(f"{p}." for p, module in model.named_modules() if type(module).__name__ == "ModuleList")
    prefix = f"{model.base_model_prefix}."
    return {name for name in names if name.startswith(lists) or (prefix + name).startswith(lists)}


def _named(names: Iterable[str]) -> str:
    """The first few names."""
    ordered = sorted(names)
    return ", ".join(ordered[:SHOWN]) + (", ..." if len(ordered) > SHOWN else "")
