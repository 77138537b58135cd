"""The tokenizer of a model: read, checked against the model, and written as it was read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from compress.model import modeling
from compress.model.gguf import tokenizer as gguf_tokenizer
from transmeter.util.checkpoint import TOKENIZERS

_NONE = "put the files that the model was trained with beside it"  # what to do without a tokenizer


def read_tokenizer(folder: Path, model: nn.Module) -> PreTrainedTokenizerBase:
    """The tokenizer in a folder.

    Parameters
    ----------
    folder
        Of the model, or the GGUF file that it is.
    model
        The model, whose config says which tokenizer it has.

    Returns
    -------
    PreTrainedTokenizerBase
        As transformers reads it, its truncation and padding noted in the attribute `as_loaded`.

    Raises
    ------
    FileNotFoundError
        There is none.
    ValueError
        It is broken, or in a GGUF file of a kind that is not known.
    """
    if folder.is_file():
        tokenizer = gguf_tokenizer.read_tokenizer(folder)
        tokenizer.as_loaded = None, None
        return tokenizer
    if not any((folder / name).exists() for name in TOKENIZERS):
        raise FileNotFoundError(f"it has no tokenizer in it: {_NONE}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, config=model.config, trust_remote_code=False)
    except Exception as error:  # tokenizers raises nothing more precise
        raise ValueError(f"its tokenizer is broken ({' '.join(str(error).split())[:200]}): {_NONE}") from None
    if tokenizer.is_fast:  # every call changes them, and they are saved
        tokenizer.as_loaded = tokenizer.backend_tokenizer.truncation, tokenizer.backend_tokenizer.padding
    return tokenizer


def fit_tokenizer(source: str | Path, model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> None:
    """Make a model and its tokenizer mean the same by padding and by token types, in place.

    Parameters
    ----------
    source
        What messages call the model.
    model
        Its padding token may change.
    tokenizer
        Its inputs and its padding token may change.

    Raises
    ------
    ValueError
        The tokenizer is slow, knows no words, or more than the model.
    """
    if len(tokenizer) <= len(tokenizer.all_special_tokens):  # what transformers makes up where there is no file
        raise ValueError(f"{source} has no tokenizer in it: {_NONE}")
    if not tokenizer.is_fast:
        remedy = "offsets and windows need a fast tokenizer: save one as tokenizer.json"
        raise ValueError(f"{source} has a slow tokenizer ({type(tokenizer).__name__}), but {remedy}")
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        remedy = "give the model's own tokenizer, or resize_token_embeddings and train them"
        raise ValueError(f"{source}: the tokenizer has {len(tokenizer)} tokens, the model {rows} embeddings: {remedy}")
    if getattr(model.config, "type_vocab_size", 0) < 2:  # the tokenizer may be of a family that has types
        tokenizer.model_input_names = [n for n in tokenizer.model_input_names if n != "token_type_ids"]
    if modeling.base_class(model).__name__.endswith("ForSequenceClassification"):
        pad = model.config.pad_token_id  # a decoder classifies by the last token that is not padding
        if pad is None or not 0 <= pad < len(tokenizer):
            ids = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
            model.config.pad_token_id = next(i for i in ids if i is not None)
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(model.config.pad_token_id)


def write_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a tokenizer as it was loaded: tokenizer.json would keep the truncation and the padding of the last call.

    Parameters
    ----------
    tokenizer
        A fast one; it stays as it is.
    folder
        An existing one.
    """
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
