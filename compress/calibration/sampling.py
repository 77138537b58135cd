"""Calibration sequences from what --calibration names: files, folders of calibrate, mixtures, the model, or chance."""

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import load_from_disk
from torch import nn
from transformers import PreTrainedTokenizerBase as Tokenizer

from compress.calibration.generation import generate
from compress.calibration.spec import GENERATED, parse
from compress.calibration.texts import USUAL, Text, cut, cut_with_texts, first, pack, read_texts
from compress.model.structure import UNLIMITED, context
from transmeter.util.arguments import whole_number
from transmeter.util.counts import counted

LENGTH = 512  # tokens of a sequence of a model that predicts next tokens; of others `USUAL`, as their texts are short


@dataclass(frozen=True)
class Sequences:
    """How texts become calibration sequences.

    Attributes
    ----------
    length
        Largest number of tokens of a sequence.
    pack
        Whether texts are joined, so that every sequence is full.
    """

    length: int
    pack: bool = False

    def cut(self, tokenizer: Tokenizer, texts: Sequence[Text], tokens: int, seed: int) -> list[list[int]]:
        """Sequences of a sample of texts.

        Parameters
        ----------
        tokenizer
            Of the model.
        texts
            Texts and pairs of texts.
        tokens
            Largest number of tokens in all.
        seed
            Of the order in which texts are taken.

        Returns
        -------
        list
            Token ids of every sequence.
        """
        return (pack if self.pack else cut)(tokenizer, texts, tokens, self.length, seed)

    def cut_with_texts(
        self, tokenizer: Tokenizer, texts: Sequence[Text], tokens: int, seed: int
    ) -> tuple[list[list[int]], list[int]]:
        """As `cut`, and the number of the text that each sequence is of; texts that are joined count as one each."""
        if self.pack:
            sequences = pack(tokenizer, texts, tokens, self.length, seed)
            return sequences, list(range(len(sequences)))
        found = cut_with_texts(tokenizer, texts, tokens, self.length, seed)
        return [ids for ids, _ in found], [text for _, text in found]

    @property
    def least(self) -> str:
        """What a sequence needs, in words."""
        return f"{self.length} tokens, as texts are packed" if self.pack else "at least two tokens"

    def about(self) -> dict[str, object]:
        """What results say of it."""
        return {"length": self.length, "pack": self.pack}


def sequences_of(model: nn.Module, tokenizer: Tokenizer, length: int | None = None, pack: bool = False) -> Sequences:
    """How texts become calibration sequences of a model.

    Parameters
    ----------
    model
        Whose weights may be on the meta device.
    tokenizer
        Of the model.
    length
        Largest number of tokens of a sequence; None: `LENGTH`, or `USUAL` where the model does not predict next tokens,
        and no more than the context.
    pack
        Whether texts are joined, so that every sequence is full.

    Returns
    -------
    Sequences
        That the model can read.

    Raises
    ------
    ValueError
        A length beyond the context or without room for a text, or texts joined for a model that reads them one by one.
    """
    decoder = model.can_generate()
    if pack and not decoder:
        raise ValueError("--pack joins texts, but the model reads them one by one: leave it out")
    if length is None:
        return Sequences(context(model, LENGTH if decoder else USUAL), pack)
    special = tokenizer.num_special_tokens_to_add(pair=True)
    least, most = max(2, special + 2), context(model, UNLIMITED)
    if whole_number("length", length, 1) < least:
        why = f"{special} of its tokens may be special ones" if special else "a sequence has two tokens"
        raise ValueError(f"length {length} is too short, as {why}: give at least {least}")
    if length > most:
        raise ValueError(f"length {length} is beyond the context of the model: give at most {most} tokens")
    return Sequences(length, pack)


def sample(
    spec: str | Path,
    sizes: nn.Module,
    tokenizer: Tokenizer,
    tokens: int,
    seed: int,
    load: Callable[[], nn.Module],
    *,
    length: int | None = None,
    pack: bool = False,
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
    length, pack
        As of `sequences_of`; of texts, not of a folder of calibrate.

    Returns
    -------
    tuple
        Token ids of every sequence, and what the model card says of them.

    Raises
    ------
    ValueError
        As `spec.parse` and `sequences_of`; for texts of fewer than two tokens each, or fewer than one full sequence;
        for a folder of calibrate with longer sequences.
    """
    kind = sequences_of(sizes, tokenizer, length, pack)
    parts, sequences = [], []
    for what, own in parse(spec):
        wanted = own or tokens
        found, about = _one(what, own, wanted, sizes, tokenizer, seed, load, kind, length is not None)
        count = sum(map(len, found))
        if not found:
            raise ValueError(f"{what} gives {nothing(wanted, kind)}")
        if (
            count < 0.98 * wanted and ("provenance" not in about or own) and what not in GENERATED
        ):  # the last cut may lose a token
            holds = f"{what} holds {counted(count, 'token')}, fewer than the {wanted:,} asked for"
            warnings.warn(f"{holds}: all are used", stacklevel=2)
        warn_of_special_tokens(what, found, tokenizer)
        sequences += found
        parts.append({"texts": what, "tokens": count, "seed": seed, **about})
    if len(parts) == 1:
        return sequences, parts[0]
    return sequences, {"texts": str(spec), "tokens": sum(map(len, sequences)), "seed": seed, "parts": parts}


def nothing(tokens: int, kind: Sequences) -> str:
    """Why texts give no sequence.

    Parameters
    ----------
    tokens
        Number of tokens wanted of them.
    kind
        How they become sequences.

    Returns
    -------
    str
        The end of a sentence.
    """
    wanted = f"nothing to calibrate on with {counted(tokens, 'token')}"
    return f"{wanted}: a sequence needs {kind.least}: give longer texts or more --tokens"


def warn_of_special_tokens(what: str, sequences: Sequence[Sequence[int]], tokenizer: Tokenizer) -> None:
    """Warn of texts that hold nothing but special tokens.

    Parameters
    ----------
    what
        The texts, for the message.
    sequences
        Token ids.
    tokenizer
        Of the model.
    """
    used = {token for ids in sequences for token in ids}
    if used and used <= set(tokenizer.all_special_ids):
        names = ", ".join(tokenizer.convert_ids_to_tokens(sorted(used)))
        warnings.warn(f"{what} holds special tokens alone ({names}), which say nothing of any text", stacklevel=3)


def _one(
    what: str,
    own: int | None,
    wanted: int,
    sizes: nn.Module,
    tokenizer: Tokenizer,
    seed: int,
    load: Callable,
    kind: Sequences,
    binding: bool,
) -> tuple[list[list[int]], dict[str, object]]:
    """Sequences of one source and where they come from; binding: those of a folder may not be longer than `kind`'s."""
    if what == "self":
        return generate(load(), tokenizer, wanted, kind.length, seed), {"length": kind.length}
    if what == "random":
        return _random(tokenizer, wanted, kind.length, seed), {"length": kind.length}
    path, file = Path(what), Path(what) / "provenance.json"
    if not file.is_file():
        used = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()} if path.is_file() else {}
        return kind.cut(tokenizer, read_texts(path, tokenizer), wanted, seed), {**used, **kind.about()}
    provenance = json.loads(file.read_text(encoding="utf-8"))
    found = _saved(path, provenance, tokenizer, context(sizes, UNLIMITED), kind.length)
    longest = max(map(len, found), default=0)
    if binding and longest > kind.length:
        reason = f"sequences of up to {longest} tokens, which are taken as they are"
        raise ValueError(f"{what} holds {reason}: leave --length {kind.length} out, or give it to calibrate")
    return first(found, own) if own else found, {"length": longest, "provenance": provenance}


def _saved(
    folder: Path, provenance: Mapping[str, Any], tokenizer: Tokenizer, most: int, length: int
) -> list[list[int]]:
    """Sequences of a folder of calibrate, of at most `most` tokens; of `length` where another tokenizer wrote them."""
    saved = load_from_disk(str(folder))
    if "input_ids" not in saved.column_names or provenance.get("tokenizer") != fingerprint(tokenizer):
        return cut(tokenizer, read_texts(folder), 10**12, min(provenance.get("length", length), most))
    found = saved["input_ids"]
    beyond = sum(len(ids) > most for ids in found)
    if beyond:
        are = "sequence is" if beyond == 1 else "sequences are"
        warnings.warn(f"{folder}: {beyond:,} {are} cut to the context of {most:,} tokens", stacklevel=4)
    return [ids[:most] for ids in found]


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
