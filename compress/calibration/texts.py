"""Reading texts and pairs of texts from files, and turning them into batches of tokens."""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase as Tokenizer

from compress.calibration.spec import FORMATS
from transmeter.tables import files
from transmeter.util.arguments import shown
from transmeter.util.suggestions import did_you_mean

USUAL = 128  # tokens of the sequences that numbers of sequences in a batch are meant for
LOGITS = 2**26  # of a batch, at most: losses over a large vocabulary take several times that, in float32
Text = str | tuple[str, str]  # a text, or a pair of texts


def read_texts(path: str | Path, tokenizer: Tokenizer | None = None) -> list[Text]:
    """Read the texts of a file or a saved Hugging Face data set; empty ones are left out.

    Parameters
    ----------
    path
        Documents separated by blank lines (.txt), or a table with the column text, perhaps with text_pair; or question
        and context, which are pairs too; or tokens, lists of words; or messages, chats.
    tokenizer
        Whose chat template makes texts of chats.

    Returns
    -------
    list
        Texts, or pairs of texts.

    Raises
    ------
    ValueError
        The path cannot be read, or has no text.
    """
    path = Path(path)
    if path.suffix.lower() == ".txt" and path.is_file():
        texts = [t.strip() for t in re.split(r"\n[ \t]*\n", _decode(path).replace("\r\n", "\n"))]
    else:
        frame = files.read(path, as_texts=True, formats=FORMATS)
        chats = "messages" in frame and "text" not in frame
        texts = _chat_texts(path, frame["messages"], tokenizer) if chats else table_texts(path, frame)
    texts = [t for t in texts if t]
    if not texts:
        raise ValueError(f"{path} has no text in it")
    return texts


def table_texts(path: Path, frame: pd.DataFrame) -> list[Text]:
    """Texts of a table.

    Parameters
    ----------
    path
        Of the table, for errors.
    frame
        The table.

    Returns
    -------
    list
        The text or pair of every row, "" where there is none.

    Raises
    ------
    ValueError
        No column holds texts.
    """
    if "text" not in frame and "tokens" in frame:
        return [" ".join(words) for words in word_lists(path, frame["tokens"])]
    first, second = ("question", "context") if {"question", "context"} <= set(frame) else ("text", "text_pair")
    if first not in frame:
        guess = did_you_mean("text", frame.columns)
        raise ValueError(f"{path} has no column 'text'{guess} (columns: {', '.join(map(str, frame.columns))})")
    columns = [[t.strip() if isinstance(t, str) else "" for t in frame[c]] for c in (first, second) if c in frame]
    return columns[0] if len(columns) == 1 else [(a, b) if a and b else a or b for a, b in zip(*columns)]


def _chat_texts(path: Path, column: pd.Series, tokenizer: Tokenizer | None) -> list[str]:
    """Every chat, a list of {role, content}, as the tokenizer's chat template writes it, without its start token.

    Raises ValueError where there is no template, and for a row that is no chat.
    """
    if tokenizer is None or not tokenizer.chat_template:
        raise ValueError(f"{path} holds chats, but the model's tokenizer has no chat template: give texts")
    found, start = [], tokenizer.bos_token or ""
    for row, chat in enumerate(column, 1):
        if not isinstance(chat, list | np.ndarray) or not all(isinstance(m, dict) and "role" in m for m in chat):
            raise ValueError(f"{path}, row {row}: messages is not a list of {{role, content}}")
        found.append(tokenizer.apply_chat_template(list(chat), tokenize=False).removeprefix(start) if len(chat) else "")
    return found


def word_lists(path: Path, column: pd.Series) -> list[list[str]]:
    """Words of a column of lists.

    Parameters
    ----------
    path
        Of the table, for errors.
    column
        Lists of words.

    Returns
    -------
    list
        The words of every row.

    Raises
    ------
    ValueError
        A row is not a list.
    """
    for row, words in enumerate(column, 1):
        if not isinstance(words, list | np.ndarray):
            raise ValueError(f"{path}, row {row}: '{column.name}' is not a list: give .jsonl or .parquet with lists")
    return [[str(word) for word in words] for words in column]


def check_texts(name: str, texts: object) -> None:
    """Check texts that a caller gives.

    Parameters
    ----------
    name
        Of the texts, for errors.
    texts
        A list of texts and pairs of texts.

    Raises
    ------
    ValueError
        It is not such a list.
    """
    remedy = "give a path, or a list of texts and pairs of texts"
    if not isinstance(texts, Sequence):
        raise ValueError(f"{name} is a {type(texts).__name__}: {remedy}")
    for place, text in enumerate(texts, 1):
        pair = isinstance(text, tuple | list) and len(text) == 2 and all(isinstance(part, str) for part in text)
        if not (isinstance(text, str) or pair):
            raise ValueError(f"{name} holds {shown(text)} as text {place}: {remedy}")


def _decode(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text (byte {error.start}): convert it first") from None


def cut(
    tokenizer: Tokenizer, texts: Sequence[Text], tokens: int, max_length: int, seed: int | None = None
) -> list[list[int]]:
    """Cut texts into sequences of tokens.

    Long texts become several sequences, each with the tokenizer's special tokens; of a pair the second text does, each
    part behind the first text. The last sequence is cut so that budgets compare exactly. What gives fewer than two
    tokens, or special ones only, is left out.

    Parameters
    ----------
    tokenizer
        Of the model.
    texts
        Texts and pairs of texts.
    tokens
        Number of tokens in all; fewer if the texts end.
    max_length
        Largest number of tokens of a sequence.
    seed
        Of the order in which texts are taken; None: as they are.

    Returns
    -------
    list
        Token ids of every sequence.
    """
    return [ids for ids, _ in cut_with_texts(tokenizer, texts, tokens, max_length, seed)]


def cut_with_texts(
    tokenizer: Tokenizer, texts: Sequence[Text], tokens: int, max_length: int, seed: int | None = None
) -> list[tuple[list[int], int]]:
    """As `cut`, with the number of the text that each sequence is of.

    Parameters
    ----------
    tokenizer, texts, tokens, max_length, seed
        As in `cut`.

    Returns
    -------
    list
        Token ids of every sequence, and the place of its text in `texts`.
    """
    order = np.arange(len(texts)) if seed is None else np.random.default_rng(seed).permutation(len(texts))
    pieces = ((sequence, i) for i in order.tolist() for sequence in _pieces(tokenizer, texts[i], tokens, max_length))
    return _filled(tokenizer, pieces, tokens)


def spread(
    tokenizer: Tokenizer, texts: Sequence[Text], tokens: int, max_length: int, seed: int
) -> list[tuple[list[int], int]]:
    """One sequence of as many texts as there is room for, any of each; where texts are too few a second one, and so on.

    Sequences of one text are alike, so that as many of several texts tell more of a set than those of `cut`.

    Parameters
    ----------
    tokenizer, texts, tokens, max_length
        As in `cut`.
    seed
        Of the order in which texts are taken, and of what is taken of each.

    Returns
    -------
    list
        Token ids of every sequence, and the place of its text in `texts`.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(texts)).tolist()

    def turns() -> Iterator[tuple[list[int], int]]:
        left = {}
        for i in order:
            parts = _pieces(tokenizer, texts[i], tokens, max_length)
            left[i] = [parts[k] for k in rng.permutation(len(parts))]
            if left[i]:
                yield left[i].pop(), i
        while any(left.values()):
            yield from ((left[i].pop(), i) for i in order if left[i])

    return _filled(tokenizer, turns(), tokens)


def _pieces(tokenizer: Tokenizer, text: Text, tokens: int, max_length: int) -> list[list[int]]:
    """The sequences of a text that are long enough."""
    # no text needs more than all tokens; ten characters a token is far beyond any tokenizer's mean
    parts = [part[: 10 * tokens + 1000] for part in parts_of(text)]
    least = _least(tokenizer, len(parts) > 1)
    return [sequence for sequence in _windows(tokenizer, parts, max_length) if len(sequence) >= least]


def _least(tokenizer: Tokenizer, pair: bool) -> int:
    """Tokens that a sequence has at least: two, and one that is not special."""
    return max(2, tokenizer.num_special_tokens_to_add(pair=pair) + 1)


def _filled(tokenizer: Tokenizer, pieces: Iterable[tuple[list[int], int]], tokens: int) -> list[tuple[list[int], int]]:
    """The first sequences, as many as there is room for; the last one is cut so that budgets compare exactly."""
    found, left = [], tokens
    for sequence, i in pieces:
        if len(sequence) > left:
            again = parts_of(decode(tokenizer, sequence))
            if left >= _least(tokenizer, len(again) > 1):
                found.append((tokenizer(*again, truncation=True, max_length=left)["input_ids"], i))
            break
        found.append((sequence, i))
        left -= len(sequence)
    return found


def pack(tokenizer: Tokenizer, texts: Sequence[Text], tokens: int, length: int, seed: int) -> list[list[int]]:
    """Fill sequences with texts one behind the other, each with its special tokens and an end token if there is one.

    Parameters
    ----------
    tokenizer
        Of a model that predicts next tokens.
    texts
        Texts and pairs of texts.
    tokens
        Largest number of tokens in all.
    length
        Number of tokens of every sequence.
    seed
        Of the order in which texts are taken.

    Returns
    -------
    list
        Token ids of every sequence; no place is padding.
    """
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    ids: list[int] = []
    for i in np.random.default_rng(seed).permutation(len(texts)):
        for part in parts_of(texts[i]):
            ids += tokenizer(part, truncation=True, max_length=tokens)["input_ids"]
        if ids[-1:] != end:
            ids += end
        if len(ids) >= tokens:
            break
    return [ids[i : i + length] for i in range(0, min(len(ids), tokens) - length + 1, length)]


def first(sequences: Sequence[list[int]], tokens: int) -> list[list[int]]:
    """Take the first tokens of sequences.

    Parameters
    ----------
    sequences
        Token ids.
    tokens
        Largest number of tokens in all.

    Returns
    -------
    list
        The first sequences, the last one cut short; one of a single token is left out.
    """
    found, left = [], tokens
    for ids in sequences:
        if min(left, len(ids)) < 2:
            break
        found.append(ids[:left])
        left -= len(found[-1])
    return found


def parts_of(text: Text) -> list[str]:
    """Texts that a text is made of.

    Parameters
    ----------
    text
        A text, or a pair of texts.

    Returns
    -------
    list
        One or two; of a pair those that are not empty.
    """
    return [text] if isinstance(text, str) else [part for part in text if part] or [""]


def _windows(tokenizer: Tokenizer, parts: list[str], max_length: int) -> list[list[int]]:
    at_most = {"truncation": True, "max_length": max_length}
    if len(parts) > 1:
        room = max_length - tokenizer.num_special_tokens_to_add(pair=True)
        second = len(tokenizer(parts[1], add_special_tokens=False, **at_most)["input_ids"])
        parts = [shorten(tokenizer, parts[0], max(room // 2, room - second)), parts[1]]
        at_most["truncation"] = "only_second"
    return tokenizer(*parts, **at_most, return_overflowing_tokens=True)["input_ids"]


def shorten(tokenizer: Tokenizer, text: str, tokens: int) -> str:
    """Cut a text.

    Parameters
    ----------
    tokenizer
        Of the model.
    text
        Any text.
    tokens
        Largest number of tokens, special ones not counted.

    Returns
    -------
    str
        The beginning of the text, of whole characters.
    """
    one_more = {"truncation": True, "max_length": tokens + 1}
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, **one_more)["offset_mapping"]
    return text[: found[tokens][0]] if len(found) > tokens else text


def decode(tokenizer: Tokenizer, sequence: Sequence[int]) -> Text:
    """Text of token ids.

    Parameters
    ----------
    tokenizer
        That the ids are of.
    sequence
        Token ids.

    Returns
    -------
    str or tuple
        The text, or the pair where the tokenizer has put a separator between two.
    """
    start = _second_start(tokenizer, sequence)
    parts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in (sequence[:start], sequence[start:])]
    return (parts[0], parts[1]) if parts[1].strip() else parts[0]


def _second_start(tokenizer: Tokenizer, sequence: Sequence[int]) -> int:
    """Where the second text of a pair begins: behind the first separator; the length where there is none."""
    separator = tokenizer.sep_token_id
    return sequence.index(separator) + 1 if separator in sequence else len(sequence)


def pad(tokenizer: Tokenizer, sequences: Sequence[list[int]]) -> dict[str, Tensor]:
    """Pad sequences to one batch, on the right.

    Parameters
    ----------
    tokenizer
        Of the model.
    sequences
        Token ids.

    Returns
    -------
    dict
        input_ids and attention_mask, (sequences, tokens); token_type_ids, 1 for a second text and its separator, where
        the tokenizer has them and one is not 0.
    """
    shape = (len(sequences), max(map(len, sequences)))
    ids, mask = torch.full(shape, tokenizer.pad_token_id or 0), torch.zeros(shape, dtype=torch.long)
    types = torch.zeros_like(mask)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(sequence)
        mask[row, : len(sequence)] = 1
        types[row, _second_start(tokenizer, sequence) : len(sequence)] = 1
    typed = "token_type_ids" in tokenizer.model_input_names and bool(types.any())
    return {"input_ids": ids, "attention_mask": mask} | ({"token_type_ids": types} if typed else {})


def at_once(size: int, length: int, vocabulary: int = 0) -> int:
    """How many sequences fit where `size` sequences of `USUAL` tokens do.

    Parameters
    ----------
    size
        Their number.
    length
        Tokens of the longest of them.
    vocabulary
        Logits that the model gives for every token, of which a batch has `LOGITS` at most; 0: none.

    Returns
    -------
    int
        `size`, or fewer of longer ones, at least 1.
    """
    fitting = size * USUAL // length
    if vocabulary:
        fitting = min(fitting, LOGITS // (vocabulary * length))
    return min(size, max(1, fitting))


def portions(lengths: Sequence[int], size: int, vocabulary: int = 0) -> list[slice]:
    """Which sequences make a batch.

    Parameters
    ----------
    lengths
        Tokens of every sequence, the longest first.
    size, vocabulary
        As of `at_once`.

    Returns
    -------
    list
        Places of the sequences of every batch.
    """
    found, start = [], 0
    while start < len(lengths):
        end = start + at_once(size, lengths[start], vocabulary)
        found.append(slice(start, end))
        start = end
    return found


def batches(
    tokenizer: Tokenizer, sequences: Sequence[list[int]], size: int = 32, vocabulary: int = 0
) -> list[dict[str, Tensor]]:
    """Pad sequences to batches, the longest first.

    Parameters
    ----------
    tokenizer
        Of the model.
    sequences
        Token ids.
    size
        Number of sequences in a batch; of those beyond `USUAL` tokens fewer, so that a batch takes no more memory.
    vocabulary
        As of `at_once`.

    Returns
    -------
    list
        Batches as `pad` gives them.
    """
    ordered = sorted(sequences, key=len, reverse=True)
    return [pad(tokenizer, ordered[place]) for place in portions([len(ids) for ids in ordered], size, vocabulary)]
