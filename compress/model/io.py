"""The only model input and output: load, save, exact reload, bytes."""

import copy
import json
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoTokenizer, GenerationConfig, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from compress import hub
from compress.model import layers, modeling, offload, walk
from compress.report.card import write_card
from transmeter.util import checkpoint, writing
from transmeter.util.arguments import path, shown
from transmeter.util.checkpoint import TOKENIZERS, bytes_of, hash_of  # noqa: F401, what is read is said there once

AUTO_CLASSES = (
    "AutoModelForCausalLM",
    "AutoModelForSequenceClassification",
    "AutoModelForTokenClassification",
    "AutoModelForQuestionAnswering",
    "AutoModelForMaskedLM",
)
NO_TOKENIZER = "put the files that the model was trained with beside it"
# what a model is for, by the end of its class's name; a classifier of one class gives "values"
HEADS = {
    "ForCausalLM": "text",
    "LMHeadModel": "text",
    "ForSequenceClassification": "classes",
    "ForTokenClassification": "labels",
    "ForQuestionAnswering": "answers",
}


def load(
    source: str | Path,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    stream: bool = False,
    scratch: Path | None = None,
    quantized: bool = False,
) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """A model that is ready for inference, and its tokenizer. No code of a folder is run.

    Parameters
    ----------
    source
        A folder or a hub name.
    device
        Of torch, or "auto" to spread the blocks over all GPUs and the memory (accelerate).
    dtype
        That the model computes in. The type that its weights are stored in is `config.dtype` of the result.
    stream
        Leave the blocks in their files (compress.model.offload).
    scratch
        Folder for what a model that streams puts in the place of weights; None: the system's for temporary files.
    quantized
        Whether a model that another tool has quantized will do, which can be run, but not be changed.

    Returns
    -------
    tuple
        The model, with what compression.json says in the attribute `compression`, and the tokenizer.

    Raises
    ------
    ValueError
        Weights are missing, have no place, are NaN or infinite (transmeter.util.checkpoint); the architecture has none
        of the `HEADS`; the device is not here; the tokenizer is missing, slow or larger than the model's vocabulary.

    Warns
    -----
    UserWarning
        An earlier version wrote the folder so that transformers alone generates wrong text.
    """
    path("source", source)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"dtype is {shown(dtype)}: give a type of torch, such as torch.float32")
    check_device(device)
    found = _open(source, quantized)
    with _naming(source), quiet_loading():
        if found.quantizer:
            model = _whole(found, dtype, device)
        else:
            keys = _match(found)
            if stream:
                built = offload.build(found.cls, found.config)
                model = offload.load(built, keys, found.tensors, dtype, device, scratch)
                if model.can_generate() and (found.folder / "generation_config.json").exists():
                    model.generation_config = GenerationConfig.from_pretrained(found.folder)
            else:
                model = _whole(found, dtype, device)
            _warn_of_untied(source, model, keys)
        tokenizer = _tokenizer(found.folder, model)
        if not found.quantizer:
            adopt(model, tokenizer, str(source))
            if not stream:  # what streams is read into memory of torch's own
                _align(model)
    model.config.dtype, model.config.name_or_path = found.config.dtype, found.name
    if (found.folder / "compression.json").is_file():
        model.compression = checkpoint.read_json(source, found.folder, "compression.json")
    _warn_of_old_code(found)
    return model, tokenizer


@dataclass(frozen=True)
class _Source:
    """A model folder that was looked at: `config.dtype` is the type that its weights are stored in; quantizer: the
    method by which another tool has quantized it."""

    name: str
    folder: Path
    cls: type[PreTrainedModel]
    config: PretrainedConfig
    tensors: dict[str, checkpoint.Stored]
    quantizer: str | None


def _open(source: str | Path, quantized: bool = False) -> _Source:
    """The folder of a model, its class, its config and what its files hold. Raises ValueError as `load`."""
    folder, written, tensors = checkpoint.check(source, quantized=quantized)
    cls = _class_of(source, written)
    known = cls.config_class.model_type
    if written.get("model_type", known) != known:
        kind = f"model_type '{written['model_type']}' does not belong to {cls.__name__} ('{known}')"
        raise ValueError(f"{source}: {kind}: give the config that belongs to the weights")
    with _naming(source), quiet_loading():
        config = cls.config_class.from_dict({k: v for k, v in written.items() if k not in ("dtype", "torch_dtype")})
    config.name_or_path = str(source)
    config.dtype = getattr(torch, checkpoint.stored_type(source, tensors))
    asked = config._attn_implementation
    if asked not in (None, "eager", "sdpa"):
        warnings.warn(f"{source}: attn_implementation '{asked}' of config.json is not used: sdpa is", stacklevel=1)
        config._attn_implementation = None
    return _Source(str(source), folder, cls, config, tensors, checkpoint.quantizer_of(folder, written))


def _match(found: _Source) -> dict[str, str]:
    """`checkpoint.match` for a model of which nothing takes memory yet, buffers neither: sizes may be nonsense."""
    with torch.device("meta"):
        model = found.cls(found.config)
    model.tie_weights()
    return checkpoint.match(found.name, model, found.tensors)


def _whole(found: _Source, dtype: torch.dtype, device: str) -> nn.Module:
    """The model in memory, as transformers loads it. Raises ValueError where that leaves a weight at random."""
    model, info = found.cls.from_pretrained(
        found.folder,
        config=found.config,
        dtype=dtype,
        device_map=device if device != "cpu" else None,
        use_safetensors=True,
        output_loading_info=True,
    )
    unexpected = set(info["unexpected_keys"]) if found.quantizer else set()  # else `checkpoint.match` has told of them
    mismatched = {name for name, *_ in info["mismatched_keys"]}
    checkpoint.refuse_incomplete(found.name, model, set(info["missing_keys"]) | mismatched, unexpected)
    return model


def _warn_of_old_code(found: _Source) -> None:
    """Warn of a folder whose own code, which transformers alone runs, forgets the cache where attention was removed."""
    changed = getattr(found.config, "compressed", {})
    kinds = {kind for kind, _ in changed.get("layers", {}).values()}
    if "format" not in changed and "NoAttention" in kinds and task_of(found.folder) == "text":
        rewrite = f"python -c \"import compress; compress.save(*compress.load('{found.name}'), 'NEW')\""
        what = "an earlier version: with transformers alone it generates wrong text from a cache"
        text = f"{found.name} was written by {what}; rewrite it: {rewrite}"
        warnings.warn(text, stacklevel=1)  # of one place, so that it is told once


def _warn_of_untied(source: str | Path, model: nn.Module, keys: Mapping[str, str]) -> None:
    """Warn of weights that the config ties, but that differ in the files, so that transformers keeps both."""
    for name, other in model.get_expanded_tied_weights_keys(all_submodels=True).items():
        if name in keys and other in keys and model.get_parameter(name) is not model.get_parameter(other):
            text = f"{source}: config.json ties {name} to {other}, but they differ in the files: both are kept"
            warnings.warn(text, stacklevel=1)  # of one place, so that it is told once


@contextmanager
def _naming(source: str | Path) -> Iterator[None]:
    """Whatever a foreign folder makes transformers raise becomes one line that names the folder."""
    try:
        yield
    except Exception as error:  # of any kind: what a broken config leads to is not known beforehand
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        if isinstance(error, ValueError) and reason.startswith(str(source)):
            raise
        if not isinstance(error, OSError | ValueError | ImportError):  # these say what is missing
            reason = f"{type(error).__name__} {reason}: compare its config.json with the original's"
        raise ValueError(f"{source} cannot be loaded: {reason}") from error


@contextmanager
def quiet_loading() -> Iterator[None]:
    """While the context is open transformers logs errors alone: what matters of its report is said by `load`."""
    before = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.utils.logging.set_verbosity(before)


def adopt(model: nn.Module, tokenizer: PreTrainedTokenizerBase, name: str = "the model") -> nn.Module:
    """A model of transformers as methods take it, changed in place, its tokenizer too: linear layers, weights and
    padding that are sound. Raises ValueError as `load`."""
    _check_head(name, modeling.base_class(model).__name__)
    modeling.densify(model)
    modeling.linearise(model)
    _check(name, model, tokenizer)
    _agree(model, tokenizer)
    model.config.dtype = stored_type(model)
    return model.eval()


def check_pair(model: object, tokenizer: object) -> None:
    """Raise ValueError unless they are a model and a tokenizer of transformers."""
    if not isinstance(model, PreTrainedModel):
        raise ValueError(f"the model is a {type(model).__name__}: give a model of transformers, as compress.load does")
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        wanted = "give the model's tokenizer of transformers, as compress.load does"
        raise ValueError(f"the tokenizer is a {type(tokenizer).__name__}: {wanted}")


def skeleton(source: str | Path, *, quantized: bool = False) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """The model with its weights on the meta device, which costs nothing, and its tokenizer.

    quantized: whether a model that another tool has quantized will do; it has the sizes that it had before. Raises
    ValueError as `load`.
    """
    found = _open(source, quantized)
    with _naming(source), quiet_loading():
        if not found.quantizer:
            _match(found)
        model = offload.build(found.cls, found.config)
        offload.flatten(model)
        tokenizer = _tokenizer(found.folder, model)
    _check(source, model, tokenizer)
    _agree(model, tokenizer)
    return model, tokenizer


def _tokenizer(folder: Path, model: nn.Module) -> PreTrainedTokenizerBase:
    if not any((folder / name).exists() for name in TOKENIZERS):
        raise FileNotFoundError(f"it has no tokenizer in it: {NO_TOKENIZER}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, config=model.config, trust_remote_code=False)
    except Exception as error:  # tokenizers raises nothing more precise
        raise ValueError(f"its tokenizer is broken ({' '.join(str(error).split())[:200]}): {NO_TOKENIZER}") from None
    if tokenizer.is_fast:  # every call changes them, and they are saved
        tokenizer.as_loaded = tokenizer.backend_tokenizer.truncation, tokenizer.backend_tokenizer.padding
    return tokenizer


def write_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a tokenizer as it was loaded: tokenizer.json would keep the truncation and the padding of the last call."""
    backend = tokenizer.backend_tokenizer
    last = backend.truncation, backend.padding
    _limit(backend, *getattr(tokenizer, "as_loaded", last))
    tokenizer.save_pretrained(folder)
    _limit(backend, *last)


def _limit(backend: Any, truncation: Mapping[str, Any] | None, padding: Mapping[str, Any] | None) -> None:
    """Let a tokenizer of the tokenizers library cut and pad what it reads like this; None: not at all."""
    backend.no_truncation()
    if truncation:
        backend.enable_truncation(**truncation)
    backend.no_padding()
    if padding:
        backend.enable_padding(**padding)


def _class_of(source: str | Path, config: Mapping[str, Any]) -> type[PreTrainedModel]:
    base: Any = base_of(source, config)
    return modeling.compressed_model(base) if "compressed" in config else base


def _align(model: nn.Module) -> None:
    """Move weights to where torch would put them: on an odd address of a mapped file sums differ in their last bit."""
    for parameter in model.parameters():
        if parameter.data_ptr() % 64:
            parameter.data = parameter.data.clone()


def _check(source: str | Path, model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise ValueError for weights that are not finite and for a tokenizer that is not the model's."""
    held = ((name, p) for name, p in model.named_parameters() if not p.is_meta)
    name = next((name for name, p in held if not offload.is_finite(p)), None) or offload.broken(model)
    if name:
        raise ValueError(f"{source}: the weight '{name}' holds NaN or infinity: give a sound copy of the model")
    if len(tokenizer) <= len(tokenizer.all_special_tokens):  # what transformers makes up where there is no file
        raise ValueError(f"{source} has no tokenizer in it: {NO_TOKENIZER}")
    if not tokenizer.is_fast:
        wanted = "offsets and windows need a fast tokenizer: save one as tokenizer.json"
        raise ValueError(f"{source} has a slow tokenizer ({type(tokenizer).__name__}), but {wanted}")
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        remedy = "give the model's own tokenizer, or resize_token_embeddings and train them"
        raise ValueError(f"{source}: the tokenizer has {len(tokenizer)} tokens, the model {rows} embeddings: {remedy}")


def _agree(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> None:
    """Make model and tokenizer mean the same by padding and by token types."""
    if getattr(model.config, "type_vocab_size", 0) < 2:  # the tokenizer may be of a family that has types
        tokenizer.model_input_names = [n for n in tokenizer.model_input_names if n != "token_type_ids"]
    if modeling.base_class(model).__name__.endswith("ForSequenceClassification"):
        pad = model.config.pad_token_id  # a decoder classifies by the last token that is not padding
        if pad is None or not 0 <= pad < len(tokenizer):
            known = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
            model.config.pad_token_id = next(i for i in known if i is not None)
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(model.config.pad_token_id)


def task_of(source: str | Path) -> str:
    """What a model is for, from its config: text, classes, values (a regression), labels of tokens, or answers.

    Raises ValueError as `load` for what has no such head.
    """
    config = config_of(source)
    name = base_of(source, config).__name__
    task = next(task for head, task in HEADS.items() if name.endswith(head))
    return "values" if task == "classes" and len(config.get("id2label") or "two") == 1 else task


def check_device(device: str) -> None:
    """Raise ValueError unless `device` is "auto" or a device of torch that is here."""
    try:
        here = device == "auto" or torch.empty(0, device=device).numel() == 0
    except (RuntimeError, AssertionError, TypeError):
        here = False
    if not here:
        raise ValueError(f"device {shown(device)} is not here: give cpu, auto, or cuda on a machine with a GPU")


def base_of(source: str | Path, config: Mapping[str, Any]) -> type[PreTrainedModel]:
    """The transformers class of a model, or of which it is the compressed kind. Raises ValueError as `load`."""
    name = (config.get("architectures") or ["(none)"])[0].removeprefix("Compressed")
    _check_head(source, name)
    return getattr(transformers, name)


def _check_head(source: str | Path, name: str) -> None:
    """Raise ValueError unless `name` is a class of transformers with one of the `HEADS`."""
    if not hasattr(transformers, name) or not name.endswith(tuple(HEADS)):
        wanted = f"give a class of transformers that ends in {', '.join(HEADS)}"
        raise ValueError(f"{source}: architecture '{name}' has no head to compress for: {wanted}")


def quantizer_of(source: str | Path) -> str | None:
    """The method by which another tool has quantized a model; None where none has. Raises ValueError as `load`."""
    folder = checkpoint.folder_of(source)
    return checkpoint.quantizer_of(folder, checkpoint.read_config(source, folder))


def config_of(source: str | Path) -> dict[str, Any]:
    """The config of a folder or a hub name, as it is written. Raises ValueError for what has none."""
    return checkpoint.read_config(source, checkpoint.folder_of(source))


@torch.no_grad()
def save(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    out: str | Path,
    card: Mapping[str, object] | None = None,
    *,
    push_to_hub: str | None = None,
) -> Path:
    """Write a folder that reloads exactly, compare before it gets its name, and return it.

    Weights take the type that they were stored in (`config.dtype`). What changed in the layers goes to config.json and
    is derived from the model itself. card: what was done with which data (None: what compress.compress noted),
    written to compression.json, of which README.md is made (compress.report.card). push_to_hub: name that the folder is
    uploaded as when it is written; a repository that is new is private.
    Raises ValueError for a name, a network or a token that the upload cannot work with, before anything is written.
    Raises RuntimeError if the reloaded model differs in a single logit, and OSError where it cannot be written (a full
    disk); in both cases nothing is left.
    """
    check_pair(model, tokenizer)
    out = writing.check_new_folder(path("out", out))
    if card is not None and not isinstance(card, Mapping):
        raise ValueError(f"card is {shown(card)}: give a dict of what is to stand in the model card, or leave it out")
    if push_to_hub is not None and not isinstance(push_to_hub, str):
        raise ValueError(f"push_to_hub is {shown(push_to_hub)}: give a name, [USER/]REPO")
    if push_to_hub:
        hub.check(push_to_hub)
    card = getattr(model, "compression", {}) if card is None else card
    dtype = stored_type(model)
    stored = copy.deepcopy(model)
    round_weights(stored, torch.float32)
    changed, reference = modeling.changes(stored), _probe(stored)
    _cast(stored, dtype)
    with writing.new_folder(out) as partial:
        _write(stored, changed, partial)
        write_tokenizer(tokenizer, partial)
        for file in (layers.__file__, modeling.__file__) if changed else ():
            shutil.copy(file, partial)
        streams = offload.store_of(stored) is not None
        note = {"reloaded": "block by block, not by transformers alone"} if streams else {}
        (partial / "compression.json").write_text(json.dumps(dict(card) | note, indent=1), encoding="utf-8")
        write_card(partial)
        del stored
        _compare(partial, reference, streams, model.config._attn_implementation)
    if push_to_hub:
        hub.push(out, push_to_hub)
    return out


def round_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """Give the weights of `model`, in place, the values that are stored of them; it computes in `dtype` from now on."""
    _cast(model, stored_type(model))
    _cast(model, dtype)
    for module in model.modules():
        if isinstance(module, layers.PackedLinear | layers.PackedEmbedding):
            module.forget()


def _cast(model: nn.Module, dtype: torch.dtype) -> None:
    for parameter in model.parameters():  # buffers stay: rotary frequencies are recomputed in float32 at reload
        if parameter.is_floating_point():  # packed codes stay too
            parameter.data = parameter.data.to(dtype)
    if offload.store_of(model):
        offload.cast(model, dtype)


def _write(stored: nn.Module, changed: Mapping[str, dict], folder: Path) -> None:
    """Write weights and config; changes `stored`."""
    if changed:
        _mark(stored, changed)
    if offload.store_of(stored):
        offload.write(stored, () if changed else modeling.convolutions(stored), folder)
        return
    if changed:
        modeling.sparsify(stored)
    else:
        modeling.convolve(stored)
    stored.save_pretrained(folder)


def _mark(model: nn.Module, changed: Mapping[str, dict]) -> None:
    """Make `model` of the compressed class, with its changes in the config, in place."""
    base: Any = modeling.base_class(model)
    noted = {"format": modeling.FORMAT, **changed}
    model.__class__ = modeling.compressed_model(base)
    model.config = modeling.compressed_config(base.config_class)(**model.config.to_dict() | {"compressed": noted})
    model.config.auto_map = {"AutoConfig": f"modeling.{type(model.config).__name__}"}
    model.config.auto_map |= {a: f"modeling.{type(model).__name__}" for a in _auto_classes(base)}
    modeling.tie(model)


def _auto_classes(base: type[PreTrainedModel]) -> list[str]:
    mappings = {a: getattr(transformers, a)._model_mapping for a in AUTO_CLASSES}
    return [a for a, m in mappings.items() if base.config_class in m and m[base.config_class] is base]


def _compare(folder: Path, reference: Tensor, stream: bool, attention: str) -> None:
    """Raise RuntimeError unless `folder` reloads to the reference logits, by `load` and by transformers alone.

    stream: only by `load`, as it was written: block by block; attention: way in which it is computed, which no folder
    keeps and which decides the last bit.
    """
    auto_map = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("auto_map", {})
    for auto in (None, *(set(auto_map) - {"AutoConfig"} if not stream else ())):
        if auto is None:
            model = load(folder, stream=stream)[0]
        else:
            cls = getattr(transformers, auto)
            model = cls.from_pretrained(folder, dtype=torch.float32, trust_remote_code=True).eval()
        model.set_attn_implementation(attention)
        _align(model)
        difference = float((_probe(model) - reference).abs().max())
        del model  # one at a time in memory
        if difference:
            raise RuntimeError(f"the saved model differs after reloading (largest logit difference {difference:.3g})")


def _probe(model: nn.Module) -> Tensor:
    """Logits of fixed tokens, (2, rows, classes); where there are exits, below them those of each and of the end."""
    ids = (torch.arange(32) * 37 % model.config.vocab_size).view(2, 16)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    found = [walk.outputs(model(**batch), batch)]
    if hasattr(model, "exits"):
        found += [walk.outputs(output, batch) for output in modeling.stages(model, batch, model.exits)]
    return torch.cat(found)


def stored_type(model: nn.Module) -> torch.dtype:
    """The type that the numbers of `model` take on disk."""
    found = model.config.dtype or torch.float32
    return getattr(torch, found) if isinstance(found, str) else found  # transformers writes its name when it saves


def stored_bytes(model: nn.Module) -> int:
    """Bytes that the weights of `model` take on disk, headers left out."""
    each = stored_type(model).itemsize
    total = sum(p.numel() * (each if p.is_floating_point() else 1) for p in model.parameters())
    for module in model.modules():
        if isinstance(module, nn.Linear) and modeling.is_sparse(module):
            total += module.weight.numel() // 8 - each * int((module.weight == 0).sum())
    return total
