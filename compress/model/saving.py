"""Models into folders that reload exactly, with transformers alone too, compared before they get their names."""

import copy
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.model import layers, modeling, offload, structure, walk
from compress.model.embedding import Companions, has_head
from compress.model.reading import align, check_pair, load
from compress.model.storage import cast, forgetting, round_weights, stored_type
from compress.model.tokenizers import write_tokenizer
from transmeter.util import arguments, heap, writing

_AUTO_CLASSES = (
    "AutoModel",
    "AutoModelForCausalLM",
    "AutoModelForSequenceClassification",
    "AutoModelForTokenClassification",
    "AutoModelForQuestionAnswering",
    "AutoModelForMaskedLM",
)


@torch.no_grad()
def save(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    out: str | Path,
    record: Mapping[str, object] | None = None,
    write_card: Callable[[Path], None] | None = None,
    *,
    keep: bool = True,
) -> Path:
    """Write a folder that reloads exactly, and compare it before it gets its name.

    Weights take the type that they were stored in (`config.dtype`). What changed in the layers goes to config.json and
    is derived from the model itself.

    Parameters
    ----------
    model
        In memory or streaming.
    tokenizer
        Its own.
    out
        A new folder, or an empty one.
    record
        What was done with which data, for compression.json; None: what compress.compress noted in the model.
    write_card
        Writes the model card into the folder, when all else is in it; None: there is no card.
    keep
        Whether the model stays as it is. Else it is used up, its weights are gone afterwards: that takes no copy.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ValueError
        The model or the tokenizer is not of transformers, or the folder cannot be made.
    RuntimeError
        The reloaded model differs in a logit; then nothing is left.
    OSError
        It cannot be written (a full disk); then nothing is left.
    """
    check_pair(model, tokenizer)
    out = writing.check_new_folder(arguments.path("out", out))
    record = getattr(model, "compression", {}) if record is None else record
    dtype, attention = stored_type(model), model.config._attn_implementation
    stored = _copy(model, dtype) if keep else model
    round_weights(stored, torch.float32)
    changed, reference = modeling.changes(stored), _probe(stored)
    cast(stored, dtype)
    with writing.new_folder(out) as partial:
        _write(stored, changed, partial)
        write_tokenizer(tokenizer, partial)
        getattr(model, "companions", Companions()).write(partial)
        for file in (layers.__file__, modeling.__file__) if changed else ():
            shutil.copy(file, partial)
        streams, shared = offload.store_of(stored) is not None, offload.has_shared_blocks(stored)
        note = {"reloaded": "block by block, not by transformers alone"} if streams else {}
        (partial / "compression.json").write_text(json.dumps(dict(record) | note, indent=1), encoding="utf-8")
        if write_card:
            write_card(partial)
        if not keep:
            _empty(model)
        del stored
        _compare(partial, reference, streams or not shared, streams, attention)
    return out


def _copy(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy whose weights may be rounded to `dtype`; of a model of float32 alone it shares them."""
    types = {dtype, *(p.dtype for p in model.parameters() if p.is_floating_point())}
    if types == {torch.float32} and not offload.store_of(model):
        return structure.shallow_copy(model)
    return copy.deepcopy(model)


def _empty(model: nn.Module) -> None:
    """Free the weights of a model, whoever else refers to it."""
    for parameter in model.parameters():
        if not parameter.is_meta:
            parameter.data = parameter.data.new_empty(0)
    heap.collect()


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
    # names of transformers' own files are not those that the compressed class reads
    stored.save_pretrained(folder, save_original_format=not changed)


def _mark(model: nn.Module, changed: Mapping[str, dict]) -> None:
    """Make `model` of the compressed class, with its changes in the config, in place."""
    base: Any = modeling.base_class(model)
    section = {"format": modeling.FORMAT, **changed}
    model.__class__ = modeling.compressed_model(base)
    model.config = modeling.compressed_config(base.config_class)(**model.config.to_dict() | {"compressed": section})
    model.config.auto_map = {
        "AutoConfig": f"modeling.{type(model.config).__name__}",
        **dict.fromkeys(_auto_classes(base), f"modeling.{type(model).__name__}"),
    }
    modeling.tie(model)


def _auto_classes(base: type[PreTrainedModel]) -> list[str]:
    mappings = {a: getattr(transformers, a)._model_mapping for a in _AUTO_CLASSES}
    return [a for a, m in mappings.items() if base.config_class in m and m[base.config_class] is base]


def _compare(folder: Path, reference: Tensor, stream: bool, alone: bool, attention: str) -> None:
    """Raise RuntimeError unless `folder` reloads to the reference logits, by `load` and by transformers alone.

    stream: block by block, which takes little memory; alone: not by transformers, as the model may not fit into memory;
    attention: way in which it is computed, which no folder keeps and which decides the last bit.
    """
    auto_map = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("auto_map", {})
    for auto in (None, *(set(auto_map) - {"AutoConfig"} if not alone else ())):
        if auto is None:
            model = load(folder, stream=stream)[0]
        else:
            cls = getattr(transformers, auto)
            model = cls.from_pretrained(folder, dtype=torch.float32, trust_remote_code=True).eval()
        model.set_attn_implementation(attention)
        align(model)
        difference = float((_probe(model) - reference).abs().max())
        del model  # one at a time in memory
        if difference:
            raise RuntimeError(f"the saved model differs after reloading (largest logit difference {difference:.3g})")


def _probe(model: nn.Module) -> Tensor:
    """Logits of fixed tokens, (2, rows, classes); where there are exits, below them those of each and of the end.

    Of a model without a head the states of the tokens, (2, tokens, width).
    """
    ids = (torch.arange(32) * 37 % model.config.vocab_size).view(2, 16)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with forgetting(model):
        if not has_head(model):
            return model(**batch).last_hidden_state
        logits = [walk.outputs(model, model(**batch), batch)]
        if hasattr(model, "exits"):
            logits += [walk.outputs(model, output, batch) for output in modeling.stages(model, batch, model.exits)]
    return torch.cat(logits)
