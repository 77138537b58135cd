"""Calibration sequences from what --calibration names: files, folders of calibrate, mixtures, the model, or chance."""

import hashlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from datasets import load_from_disk
from torch import nn
from transformers import PreTrainedTokenizerBase as Tokenizer

from compress.calibration.generation import generate
from compress.calibration.spec import GENERATED, parse
from compress.calibration.texts import MAX_LENGTH, cut, first, read_texts
from compress.model.structure import context


def sample(
    spec: str | Path, sizes: nn.Module, tokenizer: Tokenizer, tokens: int, seed: int, load: Callable[[], nn.Module]
) -> tuple[list[list[int]], dict[str, object]]:
    """Sample calibration sequences; a folder of calibrate is taken as it is. Warns of fewer tokens than asked for.

    Parameters
    ----------
    spec
        As in `spec.parse`.
    sizes
        The model, whose weights may be on the meta device.
    tokenizer
        Of the model.
    tokens
        Number of tokens of what has no number of its own.
    seed
        Of the sampling.
    load
        Gives the model with its weights, for what it writes itself.

    Returns
    -------
    tuple
        Token ids of every sequence, and what the model card says of them.

    Raises
    ------
    ValueError
        As `spec.parse`, and for texts of fewer than two tokens each.
    """
    parts, sequences = [], []
    for what, own in parse(spec):
        wanted = own or tokens
        found, about = _one(what, own, wanted, sizes, tokenizer, seed, load)
        count = sum(map(len, found))
        if not found:
            reason = "a sequence needs at least two tokens: give longer texts or more --tokens"
            raise ValueError(f"{what} gives nothing to calibrate on with {wanted} tokens: {reason}")
        if (
            count < 0.98 * wanted and ("provenance" not in about or own) and what not in GENERATED
        ):  # the last cut may lose a token
            warnings.warn(f"{what} holds {count} tokens, fewer than the {wanted} asked for: all are used", stacklevel=2)
        sequences += found
        parts.append({"texts": what, "tokens": count, "seed": seed, **about})
    if len(parts) == 1:
        return sequences, parts[0]
    return sequences, {"texts": str(spec), "tokens": sum(map(len, sequences)), "seed": seed, "parts": parts}


def _one(
    what: str, own: int | None, wanted: int, sizes: nn.Module, tokenizer: Tokenizer, seed: int, load: Callable
) -> tuple[list[list[int]], dict[str, object]]:
    """Sequences of one source and where they come from."""
    length = context(sizes, MAX_LENGTH)
    if what == "self":
        return generate(load(), tokenizer, wanted, length, seed), {}
    if what == "random":
        return _random(tokenizer, wanted, length, seed), {}
    path, file = Path(what), Path(what) / "provenance.json"
    if not file.is_file():
        used = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()} if path.is_file() else {}
        return cut(tokenizer, read_texts(path, tokenizer), wanted, length, seed), used
    provenance = json.loads(file.read_text(encoding="utf-8"))
    saved = load_from_disk(what)
    if "input_ids" in saved.column_names and provenance.get("tokenizer") == fingerprint(tokenizer):
        found = [ids[:length] for ids in saved["input_ids"]]
    else:
        found = cut(tokenizer, read_texts(path), 10**12, length)
    return first(found, own) if own else found, {"provenance": provenance}


def fingerprint(tokenizer: Tokenizer) -> str:
    """Hash a vocabulary: equal hashes say that ids mean the same tokens.

    Parameters
    ----------
    tokenizer
        Whose vocabulary it is.

    Returns
    -------
    str
        SHA-256.
    """
    return hashlib.sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()


def _random(tokenizer: Tokenizer, tokens: int, length: int, seed: int) -> list[list[int]]:
    """Ordinary tokens of the vocabulary, all equally likely, between the special ones that a text has."""
    special = tokenizer("")["input_ids"]
    before, after = special[:1], special[1:]
    ordinary = np.setdiff1d(np.arange(len(tokenizer)), tokenizer.all_special_ids)
    rng, inner = np.random.default_rng(seed), length - len(special)
    count = -(-tokens // length)
    return first([[*before, *rng.choice(ordinary, inner).tolist(), *after] for _ in range(count)], tokens)
