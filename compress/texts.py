"""Reading texts and labelled examples from files, and turning texts into batches of tokens."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pyarrow import ArrowException
from torch import Tensor
from transformers import PreTrainedTokenizerBase as Tokenizer

FORMATS = ".txt (documents separated by blank lines), .csv, .csv.gz, .tsv, .parquet, .jsonl or a data set folder"


def read_texts(path: str | Path) -> list[str]:
    """The texts of a file or a saved Hugging Face data set; empty ones are left out.

    Raises ValueError for what cannot be read: missing file, unknown format, no `text` column, no text in it.
    """
    path = Path(path)
    if path.suffix.lower() == ".txt" and path.is_file():
        texts = [t.strip() for t in re.split(r"\n[ \t]*\n", _decode(path).replace("\r\n", "\n"))]
    else:
        frame = _frame(path)
        if "text" not in frame:
            raise ValueError(f"{path} has no column 'text' (columns: {', '.join(map(str, frame.columns))})")
        texts = [str(t).strip() for t in frame["text"] if isinstance(t, str)]
    texts = [t for t in texts if t]
    if not texts:
        raise ValueError(f"{path} has no text in it")
    return texts


def read_examples(path: str | Path) -> tuple[list[str], list[str]]:
    """Texts and labels (as text) of a table with the columns `text` and `label`. Raises ValueError as `read_texts`."""
    if Path(path).suffix.lower() == ".txt":
        raise ValueError(f"{path} has no labels: accuracy needs a table with the columns text and label")
    frame = _frame(Path(path))
    missing = [c for c in ("text", "label") if c not in frame]
    if missing:
        raise ValueError(f"{path} has no column '{missing[0]}': accuracy needs the columns text and label")
    texts = frame["text"].map(lambda t: isinstance(t, str) and bool(t.strip()))
    frame = frame[texts & frame["label"].notna() & (frame["label"].astype(str).str.strip() != "")]
    if frame.empty:
        raise ValueError(f"{path} has no labelled text in it")
    return frame["text"].astype(str).tolist(), [str(x).removesuffix(".0") for x in frame["label"]]


def _decode(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text (byte {error.start}): convert it first") from None


def _frame(path: Path) -> pd.DataFrame:
    """The table at `path`, empty cells as empty texts."""
    name = path.name.lower()
    if not path.exists():
        raise ValueError(f"{path} does not exist: give {FORMATS}")
    try:
        if path.is_dir():
            from datasets import Dataset, load_from_disk

            loaded = load_from_disk(str(path))
            if not isinstance(loaded, Dataset):
                splits = ", ".join(loaded)
                raise ValueError(f"{path} holds several splits ({splits}): give the folder of one of them")
            return loaded.to_pandas()
        if name.endswith((".csv", ".csv.gz", ".tsv", ".tsv.gz")):
            return pd.read_csv(path, sep="\t" if ".tsv" in name else ",", keep_default_na=False)
        if name.endswith(".parquet"):
            return pd.read_parquet(path)
        if name.endswith((".jsonl", ".jsonl.gz")):
            return _read_jsonl(path)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text (byte {error.start}): convert it first") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ArrowException, OSError, _JSONError) as error:
        raise ValueError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None
    raise ValueError(f"{path} is of no known format: give {FORMATS}")


class _JSONError(Exception):
    pass


def _read_jsonl(path: Path) -> pd.DataFrame:
    try:
        return pd.read_json(path, lines=True, dtype=False)
    except UnicodeDecodeError:
        raise
    except ValueError as error:  # pandas has no error of its own for malformed JSON
        raise _JSONError(str(error)) from None


def cut(
    tokenizer: Tokenizer, texts: Sequence[str], tokens: int, max_length: int, seed: int | None = None
) -> list[list[int]]:
    """Token ids of texts in sequences of at most `max_length`, `tokens` real tokens in all (fewer if texts end).

    Long texts become several sequences, each with the tokenizer's special tokens. seed: draw the texts at random;
    None: take them in order. The last sequence is cut so that budgets compare exactly.
    """
    order = np.arange(len(texts)) if seed is None else np.random.default_rng(seed).permutation(len(texts))
    sequences, left = [], tokens
    for i in order:
        # no text needs more than what is left; ten characters a token is far beyond any tokenizer's mean
        for sequence in _windows(tokenizer, texts[i][: 10 * left + 1000], max_length):
            if len(sequence) > left:
                if left > tokenizer.num_special_tokens_to_add():
                    sequences.append(_windows(tokenizer, tokenizer.decode(sequence, skip_special_tokens=True), left)[0])
                return sequences
            sequences.append(sequence)
            left -= len(sequence)
    return sequences


def _windows(tokenizer: Tokenizer, text: str, max_length: int) -> list[list[int]]:
    return tokenizer(text, truncation=True, max_length=max_length, return_overflowing_tokens=True)["input_ids"]


def batches(tokenizer: Tokenizer, sequences: Sequence[list[int]], size: int = 32) -> list[dict[str, Tensor]]:
    """Padded batches (input_ids and attention_mask, both (batch, tokens)) of token sequences, the longest first."""
    ordered = sorted(sequences, key=len, reverse=True)
    found = []
    for start in range(0, len(ordered), size):
        part = ordered[start : start + size]
        ids = torch.full((len(part), len(part[0])), tokenizer.pad_token_id or 0)
        mask = torch.zeros_like(ids)
        for row, sequence in enumerate(part):
            ids[row, : len(sequence)] = torch.tensor(sequence)
            mask[row, : len(sequence)] = 1
        found.append({"input_ids": ids, "attention_mask": mask})
    return found
