"""Text columns as numbers that all tables share: TF-IDF and SVD, or the states of a transformers encoder."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from transmeter.tables.columns import numeric_columns
from transmeter.tables.data import Table
from transmeter.tables.tfidf import Tfidf
from transmeter.util import checkpoint, writing
from transmeter.util.counts import counted
from transmeter.util.progress import track

if TYPE_CHECKING:  # half of all that is imported, and only encoders need it
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TOKENS = 128  # of a text that an encoder reads
BATCH = 32
Reader: TypeAlias = Callable[[Sequence[str]], np.ndarray]


def is_text(values: pd.Series) -> bool:
    """Whether a column holds texts, not categories: half of the strings are distinct or more, and half have 3 words.

    Parameters
    ----------
    values
        (n,) floats, or text / None.

    Returns
    -------
    bool
    """
    if pd.api.types.is_float_dtype(values):
        return False
    present = values.dropna()
    if len(present) < 2 or present.nunique() < len(present) / 2:
        return False
    return bool(present.str.split().str.len().median() >= 3)


def featurise(
    tables: Sequence[Table], encoder: str | Path | None = None, cache: Path | None = None, seed: int = 0
) -> list[Table]:
    """Tables with their text columns, joined by a space, as numeric columns `text dimension 0`.. of one meaning.

    Parameters
    ----------
    tables
        All tables of a ranking.
    encoder
        Folder or hub name of a transformers model, whose mean states are taken; None: TF-IDF of words and pairs of
        words and an SVD, fitted on the texts of all tables together.
    cache
        Folder for what an encoder gave; None: nothing is kept.
    seed
        Of the SVD.

    Returns
    -------
    list
        The tables; those without texts as they are.

    Raises
    ------
    ValueError
        For an encoder that cannot be loaded.
    """
    read = reader(tables, encoder, cache, seed)
    columns = [text_columns(t.features) for t in tables]
    return [replace(t, features=read_texts(t.name, t.features, c, read)) if c else t for t, c in zip(tables, columns)]


def reader(
    tables: Sequence[Table], encoder: str | Path | None = None, cache: Path | None = None, seed: int = 0
) -> Reader | None:
    """What makes numbers of texts.

    Parameters
    ----------
    tables, encoder, cache, seed
        As for `featurise`.

    Returns
    -------
    callable or None
        Makes (n, h) states of n texts; None where no table has texts.
    """
    columns = [text_columns(t.features) for t in tables]
    if not any(columns):
        return None
    if encoder:
        return partial(embed, encoder=encoder, cache=cache)
    return Tfidf([text for t, c in zip(tables, columns) if c for text in _joined(t.features, c)], seed)


def read_texts(name: str, features: pd.DataFrame, columns: list[str], read: Reader | None) -> pd.DataFrame:
    """Features with columns `text dimension 0`.. in the place of the text columns.

    Parameters
    ----------
    name
        What errors call the table.
    features
        (n, columns).
    columns
        Those that hold texts.
    read
        What `reader` returned.

    Returns
    -------
    pandas.DataFrame
        `features` themselves where nothing is to be read.

    Raises
    ------
    ValueError
        Where a column has such a name already.
    """
    if not columns or read is None:
        return features
    states = read(_joined(features, columns))
    names = [f"text dimension {i}" for i in range(states.shape[1])]
    if set(names) & set(features):
        raise ValueError(f"{name} has texts and a column called 'text dimension ..': rename that")
    numbers = pd.DataFrame(states.astype(np.float64), columns=names, index=features.index)
    return pd.concat([features.drop(columns=columns), numbers], axis=1)


def text_columns(features: pd.DataFrame) -> list[str]:
    """Columns that hold texts.

    Parameters
    ----------
    features
        (n, columns) floats, or text / None.

    Returns
    -------
    list
        Names, in the order of the columns.
    """
    return [c for c in features.columns.difference(numeric_columns(features), sort=False) if is_text(features[c])]


def _joined(features: pd.DataFrame, columns: list[str]) -> list[str]:
    """One text a row: those of the columns, joined by a space."""
    return features[columns].fillna("").agg(" ".join, axis=1).str.strip().tolist()


def embed(texts: Sequence[str], encoder: str | Path, cache: Path | None = None) -> np.ndarray:
    """Mean last hidden states of texts.

    Parameters
    ----------
    texts
        n of them, of each of which the first 128 tokens are read.
    encoder
        Folder or hub name of a transformers model.
    cache
        Folder: what was computed before for the same texts and model files is read from there; None: nothing is kept.

    Returns
    -------
    numpy.ndarray
        (n, h) float32; zeros for an empty text.

    Raises
    ------
    ValueError
        As `check_encoder`.
    """
    check_encoder(encoder)
    path = cache / f"{_key(texts, Path(encoder))}.safetensors" if cache and Path(encoder).is_dir() else None
    if path and path.exists():
        try:
            return load_file(path)["states"]
        except (SafetensorError, KeyError):
            raise ValueError(f"{path} holds no states of texts: delete it") from None
    states = _states(texts, encoder)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with writing.replacing(path) as partial:
            save_file({"states": states}, partial)
    return states


def check_encoder(encoder: str | Path) -> None:
    """Refuse what no encoder can be loaded from.

    Parameters
    ----------
    encoder
        Folder or hub name of a transformers model.

    Raises
    ------
    ValueError
        For what is no complete folder of such a model and no hub name within reach.
    """
    checkpoint.check(encoder)


@lru_cache(maxsize=1)  # one model serves all tables of a run
def _load(encoder: str | Path) -> "tuple[PreTrainedTokenizerBase, PreTrainedModel]":
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    folder, _, tensors = checkpoint.check(encoder)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModel.from_config(config, trust_remote_code=False)
        checkpoint.match(encoder, model, tensors, unused=("pooler.",))  # the states are pooled here
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        model = AutoModel.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False).eval()
    except Exception as error:  # of any kind: what a broken folder leads to is not known beforehand
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"encoder {encoder} cannot be loaded ({reason}): give the folder of another") from None
    return tokenizer, model


@torch.no_grad()
def _states(texts: Sequence[str], encoder: str | Path) -> np.ndarray:
    tokenizer, model = _load(encoder)
    ids = tokenizer(list(texts), truncation=True, max_length=min(TOKENS, _room(model)))["input_ids"]
    states = np.zeros((len(texts), model.config.hidden_size), dtype=np.float32)
    order = sorted((i for i in range(len(texts)) if ids[i] and texts[i]), key=lambda i: len(ids[i]))
    for first in track(range(0, len(order), BATCH), f"encoding {counted(len(order), 'text')}"):
        rows = order[first : first + BATCH]  # of like lengths, so that little is padding
        tokens = [torch.tensor(ids[i]) for i in rows]
        padded = torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True)  # (b, t); 0 is masked, whatever it means
        mask = torch.arange(padded.shape[1]) < torch.tensor([len(t) for t in tokens])[:, None]
        hidden = model(input_ids=padded, attention_mask=mask.long()).last_hidden_state  # (b, t, h)
        states[rows] = ((hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)).numpy()
    return states


def _room(model: "PreTrainedModel") -> int:
    """Most tokens of the model; RoBERTa's positions start two places later."""
    return getattr(model.config, "max_position_embeddings", TOKENS + 2) - 2


def _key(texts: Sequence[str], folder: Path) -> str:
    """Of the texts and of the model's files."""
    digest = hashlib.sha256(f"{TOKENS}\x00".encode())
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass") + b"\x00")
    digest.update(checkpoint.hash_of(folder).encode())
    return digest.hexdigest()[:32]
