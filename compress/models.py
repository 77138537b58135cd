"""The only model input and output: load, save, exact reload, bytes."""

import copy
import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoTokenizer, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from compress import hub, layers, modeling, offload, walk
from compress.card import write_card
from compress.suggest import absent
from transmeter.util import writing
from transmeter.util.arguments import path, shown
from transmeter.util.pretrained import why_not_loaded

AUTO_CLASSES = (
    "AutoModelForCausalLM",
    "AutoModelForSequenceClassification",
    "AutoModelForTokenClassification",
    "AutoModelForQuestionAnswering",
    "AutoModelForMaskedLM",
)
TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model")
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
) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """A model in `dtype` on `device`, ready for inference, and its tokenizer, from a folder or a hub name.

    device: of torch, or "auto" to spread the blocks over all GPUs and the memory (accelerate); stream: leave the
    blocks in their files and put what is changed into the folder `scratch` (compress.offload). No code of a folder is
    run, also not for what `save` wrote. The type that the weights are stored in stays in `config.dtype`. Raises
    ValueError for an architecture without one of the `HEADS`, a device that is not here, a tokenizer that is missing,
    slow or larger than the model's vocabulary, and for weights that are NaN or infinite.
    """
    path("source", source)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"dtype is {shown(dtype)}: give a type of torch, such as torch.float32")
    check_device(device)
    config = config_of(source)
    cls = _class_of(source, config)
    try:
        stored = getattr(torch, str(config.get("dtype", config.get("torch_dtype", "float32"))).split(".")[-1])
        if stream:
            model = offload.load(cls, source, dtype, device, scratch)
        else:
            model = cls.from_pretrained(source, dtype=dtype, device_map=device if device != "cpu" else None)
        tokenizer = _tokenizer(source, model)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{source} cannot be loaded: {why_not_loaded(error, cls, source)}") from None
    adopt(model, tokenizer, str(source))
    if not stream:  # what streams is read into memory of torch's own
        _align(model)
    model.config.dtype = stored
    return model, tokenizer


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


def skeleton(source: str | Path) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """The model with its weights on the meta device, which costs nothing, and its tokenizer. Raises ValueError."""
    config = config_of(source)
    cls = _class_of(source, config)
    try:
        model = offload.skeleton(cls, source)
        tokenizer = _tokenizer(source, model)
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"{source} cannot be loaded: {str(error).strip().splitlines()[0]}") from None
    _check(source, model, tokenizer)
    _agree(model, tokenizer)
    return model, tokenizer


def _tokenizer(source: str | Path, model: nn.Module) -> PreTrainedTokenizerBase:
    if Path(source).is_dir() and not any((Path(source) / name).exists() for name in TOKENIZERS):
        raise FileNotFoundError(f"it has no tokenizer in it: {NO_TOKENIZER}")
    return AutoTokenizer.from_pretrained(source, config=model.config)


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
    for name, parameter in model.named_parameters():
        # the sum is ten times as fast, but may overflow
        if not (parameter.is_meta or parameter.sum().isfinite() or parameter.isfinite().all()):
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


def hash_of(source: str | Path) -> str:
    """SHA-256 of a folder's config and weights; the name itself for a hub name."""
    if not Path(source).is_dir():
        return str(source)
    found = hashlib.sha256()
    for file in sorted(f for f in Path(source).iterdir() if f.suffix in (".safetensors", ".bin", ".json")):
        with file.open("rb") as content:
            found.update(hashlib.file_digest(content, "sha256").digest())
    return found.hexdigest()


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


def config_of(source: str | Path) -> dict:
    """The config of a folder or a hub name. Raises ValueError for what has none."""
    if Path(source).is_dir():
        file = Path(source) / "config.json"
        if not file.exists():
            raise ValueError(f"{source} is not a model folder: it has no config.json")
        try:
            config = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{file} cannot be read: {error}") from None
        if not isinstance(config, dict):
            raise ValueError(f"{file} is not a model's config: it holds no JSON object")
        return config
    try:
        return PretrainedConfig.get_config_dict(str(source))[0]  # as it is written: what `save` made asks for code
    except (OSError, ValueError):
        guess = absent(Path(source)).partition("does not exist")[2]
        message = (
            f"{source} is neither a model folder nor a hub name that can be reached from here{guess}: give a folder"
        )
        raise ValueError(message) from None


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
    written to compression.json, of which README.md is made (compress.card). push_to_hub: name that the folder is
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
    _cast(stored, dtype)
    changed = modeling.changes(stored)
    _cast(stored, torch.float32)
    reference = _probe(stored)
    _cast(stored, dtype)
    with writing.new_folder(out) as partial:
        _write(stored, changed, partial)
        tokenizer.save_pretrained(partial)
        for file in (layers.__file__, modeling.__file__) if changed else ():
            shutil.copy(file, partial)
        streams = offload.store_of(stored) is not None
        note = {"reloaded": "block by block, not by transformers alone"} if streams else {}
        (partial / "compression.json").write_text(json.dumps(dict(card) | note, indent=1), encoding="utf-8")
        write_card(partial)
        del stored
        _compare(partial, reference, streams)
    if push_to_hub:
        hub.push(out, push_to_hub)
    return out


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
    model.__class__ = modeling.compressed_model(base)
    model.config = modeling.compressed_config(base.config_class)(**model.config.to_dict() | {"compressed": changed})
    model.config.auto_map = {"AutoConfig": f"modeling.{type(model.config).__name__}"}
    model.config.auto_map |= {a: f"modeling.{type(model).__name__}" for a in _auto_classes(base)}
    modeling.tie(model)


def _auto_classes(base: type[PreTrainedModel]) -> list[str]:
    mappings = {a: getattr(transformers, a)._model_mapping for a in AUTO_CLASSES}
    return [a for a, m in mappings.items() if base.config_class in m and m[base.config_class] is base]


def _compare(folder: Path, reference: Tensor, stream: bool) -> None:
    """Raise RuntimeError unless `folder` reloads to the reference logits, by `load` and by transformers alone.

    stream: only by `load`, as it was written: block by block.
    """
    auto_map = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("auto_map", {})
    for auto in (None, *(set(auto_map) - {"AutoConfig"} if not stream else ())):
        if auto is None:
            model = load(folder, stream=stream)[0]
        else:
            cls = getattr(transformers, auto)
            model = cls.from_pretrained(folder, dtype=torch.float32, trust_remote_code=True).eval()
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


def bytes_of(folder: str | Path) -> int | None:
    """Bytes of the weight files in a model folder; None for a hub name."""
    if not Path(folder).is_dir():
        return None
    return sum(f.stat().st_size for f in Path(folder).rglob("*") if f.suffix in (".safetensors", ".bin"))
