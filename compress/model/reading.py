"""Models out of folders: complete, ready for inference, or refused in one line that names the folder."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import GenerationConfig, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from compress.model import modeling, offload
from compress.model.config import base_of, check_head, task_of
from compress.model.embedding import has_head, read_companions, read_pooling
from compress.model.gguf import reading as gguf_reading
from compress.model.storage import stored_type
from compress.model.tokenizers import fit_tokenizer, read_tokenizer
from transmeter.util import arguments, checkpoint


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
        A folder, a GGUF file or a hub name.
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
        of the `HEADS` of compress.model.config; the device is not here; the tokenizer is missing, slow or larger than
        the model's vocabulary.

    Warns
    -----
    UserWarning
        An earlier version wrote the folder so that transformers alone generates wrong text.
    """
    arguments.path("source", source)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"dtype is {arguments.shown(dtype)}: give a type of torch, such as torch.float32")
    check_device(device)
    folder = _open(source, quantized)
    with _loading(source):
        keys = {} if folder.quantizer else _match(folder)
        if stream and not folder.quantizer:
            model = offload.load(_blank(folder), keys, folder.tensors, dtype, device, scratch)
            if model.can_generate() and (folder.path / "generation_config.json").exists():
                model.generation_config = GenerationConfig.from_pretrained(folder.path)
        else:
            model = _whole(folder, dtype, device)
        _warn_of_untied(source, model, keys)
        tokenizer = read_tokenizer(folder.path, model)
        if not folder.quantizer:
            adopt(model, tokenizer, str(source))
            if not stream:  # what streams is read into memory of torch's own
                align(model)
    _describe(model, folder)
    model.config.dtype, model.config.name_or_path = folder.config.dtype, str(source)
    if (folder.path / "compression.json").is_file():
        model.compression = checkpoint.read_json(source, folder.path, "compression.json")
    _warn_of_old_code(folder)
    return model, tokenizer


def skeleton(source: str | Path, *, quantized: bool = False) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """The model with its weights on the meta device, which costs nothing, and its tokenizer.

    Parameters
    ----------
    source
        A folder, a GGUF file or a hub name.
    quantized
        Whether a model that another tool has quantized will do; it has the sizes that it had before.

    Returns
    -------
    tuple
        The model and the tokenizer.

    Raises
    ------
    ValueError
        As `load`.
    """
    folder = _open(source, quantized)
    with _loading(source):
        if not folder.quantizer:
            _match(folder)
        model = _blank(folder)
        offload.flatten(model)
        _describe(model, folder)
        tokenizer = read_tokenizer(folder.path, model)
    fit_tokenizer(source, model, tokenizer)
    return model, tokenizer


def adopt(model: nn.Module, tokenizer: PreTrainedTokenizerBase, name: str = "the model") -> nn.Module:
    """Make a model of transformers one that methods take, in place, and its tokenizer agree with it.

    Parameters
    ----------
    model
        With layers of any kind that transformers has; they become linear layers.
    tokenizer
        Its padding and its inputs become the model's.
    name
        What messages call the model.

    Returns
    -------
    nn.Module
        The model, in the state of inference.

    Raises
    ------
    ValueError
        Its class has none of the `HEADS`, a weight is NaN or infinite, or the tokenizer does not belong to it.
    """
    check_head(name, modeling.base_class(model).__name__)
    modeling.densify(model)
    modeling.linearise(model)
    _check_finite(name, model)
    fit_tokenizer(name, model, tokenizer)
    model.config.dtype = stored_type(model)
    return model.eval()


def check_pair(model: object, tokenizer: object) -> None:
    """Check that these are a model and a tokenizer.

    Parameters
    ----------
    model, tokenizer
        What a caller gave.

    Raises
    ------
    ValueError
        One of them is not of transformers.
    """
    if not isinstance(model, PreTrainedModel):
        raise ValueError(f"the model is a {type(model).__name__}: give a model of transformers, as compress.load does")
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        remedy = "give the model's tokenizer of transformers, as compress.load does"
        raise ValueError(f"the tokenizer is a {type(tokenizer).__name__}: {remedy}")


def check_device(device: str) -> None:
    """Check that a device is here.

    Parameters
    ----------
    device
        "auto", or a device of torch.

    Raises
    ------
    ValueError
        It is neither, or this machine has no such device.
    """
    try:
        here = device == "auto" or torch.empty(0, device=device).numel() == 0
    except (RuntimeError, AssertionError, TypeError):
        here = False
    if not here:
        remedy = "give cpu, auto, or cuda on a machine with a GPU"
        raise ValueError(f"device {arguments.shown(device)} is not here: {remedy}")


def align(model: nn.Module) -> None:
    """Move weights to where torch would put them: on an odd address of a mapped file sums differ in their last bit.

    Parameters
    ----------
    model
        In memory; changed in place.
    """
    for parameter in model.parameters():
        if parameter.data_ptr() % offload.ALIGNED:
            parameter.data = parameter.data.clone()


@dataclass(frozen=True)
class _Folder:
    """A model folder or a GGUF file that was checked: `config.dtype` is the type that its weights are stored in;
    quantizer: the method by which another tool has quantized it."""

    source: str | Path
    path: Path
    cls: type[PreTrainedModel]
    config: PretrainedConfig
    tensors: dict[str, checkpoint.Stored]
    quantizer: str | None


def _open(source: str | Path, quantized: bool) -> _Folder:
    """The folder of a model, its class, its config and what its files hold. Raises ValueError as `load`."""
    packed = checkpoint.is_gguf(source)
    path, written, tensors = gguf_reading.check(source) if packed else checkpoint.check(source, quantized=quantized)
    cls: Any = base_of(source, written)
    if "compressed" in written:
        cls = modeling.compressed_model(cls)
    kind = cls.config_class.model_type
    if written.get("model_type", kind) != kind:
        text = f"model_type '{written['model_type']}' does not belong to {cls.__name__} ('{kind}')"
        raise ValueError(f"{source}: {text}: give the config that belongs to the weights")
    with _loading(source):
        config = cls.config_class.from_dict({k: v for k, v in written.items() if k not in ("dtype", "torch_dtype")})
    config.name_or_path = str(source)
    config.dtype = getattr(
        torch, gguf_reading.stored_type(source) if packed else checkpoint.stored_type(source, tensors)
    )
    attention = config._attn_implementation
    if attention not in (None, "eager", "sdpa"):
        warnings.warn(f"{source}: attn_implementation '{attention}' of config.json is not used: sdpa is", stacklevel=1)
        config._attn_implementation = None
    return _Folder(source, path, cls, config, tensors, checkpoint.quantizer_of(path, written))


def _blank(folder: _Folder) -> nn.Module:
    model = offload.build(folder.cls, folder.config)
    _drop_pooler(model, folder)
    return model


def _drop_pooler(model: nn.Module, folder: _Folder) -> bool:
    """Take from a model without a head, in place, what transformers puts behind the first token where the folder has
    no weights for it: many embedding models leave it out, as they pool in another way. Returns whether it is gone."""
    gone = not has_head(model) and not any("pooler." in name for name in folder.tensors)
    if gone and getattr(model, "pooler", None) is not None:
        model.pooler = None
    return gone


def _describe(model: nn.Module, folder: _Folder) -> None:
    """Note in a model what lies beside it for sentence-transformers, and where it has no head its pooling."""
    model.companions = read_companions(folder.source, folder.path)
    if not has_head(model):
        model.pooling = read_pooling(folder.source, folder.path)


def _match(folder: _Folder) -> dict[str, str]:
    """`checkpoint.match` for a model of which nothing takes memory yet, buffers neither: sizes may be nonsense."""
    with torch.device("meta"):
        model = folder.cls(folder.config)
    _drop_pooler(model, folder)
    model.tie_weights()
    if not any(name.endswith(".experts.down_proj") for name in folder.tensors):  # as most files have them
        modeling.split_experts(model)
    return checkpoint.match(folder.source, model, folder.tensors)


def _whole(folder: _Folder, dtype: torch.dtype, device: str) -> nn.Module:
    """The model in memory, as transformers loads it. Raises ValueError where that leaves a weight at random."""
    packed = folder.path.is_file()
    weights = {name: gguf_reading.read(folder.path, name).to(dtype) for name in folder.tensors} if packed else None
    model, info = folder.cls.from_pretrained(
        None if packed else folder.path,
        config=folder.config,
        state_dict=weights,
        dtype=dtype,
        device_map=device if device != "cpu" else None,
        use_safetensors=True,
        output_loading_info=True,
    )
    unexpected = set(info["unexpected_keys"]) if folder.quantizer else set()  # else `checkpoint.match` has told of them
    mismatched = {name for name, *_ in info["mismatched_keys"]}
    missing = set(info["missing_keys"])
    if _drop_pooler(model, folder):
        missing = {name for name in missing if not name.startswith("pooler.")}
    checkpoint.refuse_incomplete(folder.source, model, missing | mismatched, unexpected)
    return model


@contextmanager
def _loading(source: str | Path) -> Iterator[None]:
    """While the context is open, transformers logs errors alone (what matters of its report is said by `load`), and
    whatever a foreign folder makes it raise becomes one line that names the folder."""
    before = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()
    try:
        yield
    except Exception as error:  # of any kind: what a broken config leads to is not known beforehand
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        if isinstance(error, ValueError) and reason.startswith(str(source)):
            raise
        if not isinstance(error, OSError | ValueError | ImportError):  # these say what is missing
            reason = f"{type(error).__name__} {reason}: compare its config.json with the original's"
        raise ValueError(f"{source} cannot be loaded: {reason}") from error
    finally:
        transformers.utils.logging.set_verbosity(before)


def _warn_of_old_code(folder: _Folder) -> None:
    """Warn of a folder whose own code, which transformers alone runs, forgets the cache where attention was removed."""
    changed = getattr(folder.config, "compressed", {})
    kinds = {kind for kind, _ in changed.get("layers", {}).values()}
    if "format" not in changed and "NoAttention" in kinds and task_of(folder.path) == "text":
        rewrite = f"python -c \"import compress; compress.save(*compress.load('{folder.source}'), 'NEW')\""
        what = "an earlier version: with transformers alone it generates wrong text from a cache"
        text = f"{folder.source} was written by {what}; rewrite it: {rewrite}"
        warnings.warn(text, stacklevel=1)  # of one place, so that it is told once


def _warn_of_untied(source: str | Path, model: nn.Module, keys: Mapping[str, str]) -> None:
    """Warn of weights that the config ties, but that differ in the files, so that transformers keeps both."""
    for name, other in model.get_expanded_tied_weights_keys(all_submodels=True).items():
        if name in keys and other in keys and model.get_parameter(name) is not model.get_parameter(other):
            text = f"{source}: config.json ties {name} to {other}, but they differ in the files: both are kept"
            warnings.warn(text, stacklevel=1)  # of one place, so that it is told once


def _check_finite(source: str | Path, model: nn.Module) -> None:
    """Raise ValueError for weights that are NaN or infinite."""
    weights = ((name, p) for name, p in model.named_parameters() if not p.is_meta)
    name = next((name for name, p in weights if not offload.is_finite(p)), None) or offload.broken(model)
    if name:
        raise ValueError(f"{source}: the weight '{name}' holds NaN or infinity: give a sound copy of the model")
