"""Windows of texts that perplexity is measured on, as published tables cut them: all texts as one, without overlap."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase as Tokenizer

from compress.calibration.texts import Text, cut, parts_of
from transmeter.util.arguments import whole_number
from transmeter.util.counts import counted

LONGEST = 2048  # tokens of a window where none is given and the context holds it
LONGEST_MASKED = 512  # the same of masked tokens
MASKED = 0.15  # share of the tokens that are masked, as BERT was trained
BETWEEN = "\n\n"  # texts that are joined


@dataclass(frozen=True)
class Window:
    """A piece of text that a model reads at once.

    Attributes
    ----------
    ids
        Its tokens.
    scored
        Number of tokens at its end that are predicted, fewer than there are; those before are only read.
    """

    ids: list[int]
    scored: int


@dataclass(frozen=True)
class Reading:
    """How texts are read to measure perplexity.

    Attributes
    ----------
    tokens
        Number of tokens, the first ones of the texts.
    window
        Largest number of tokens of a window.
    stride
        Tokens from the beginning of a window to the next; the window where windows do not overlap.
    apart
        Whether every text has windows of its own, each with the special tokens of the tokenizer.
    masked
        Share of the tokens that are masked and predicted; None: each is predicted from those before it.
    seed
        Of which tokens are masked.
    """

    tokens: int
    window: int
    stride: int
    apart: bool = False
    masked: float | None = None
    seed: int = 0

    def windows(self, tokenizer: Tokenizer, texts: Sequence[Text]) -> list[Window]:
        """Windows of texts.

        Parameters
        ----------
        tokenizer
            Of the model.
        texts
            Texts and pairs of texts.

        Returns
        -------
        list
            In the order of the texts.

        Raises
        ------
        ValueError
            No text has two tokens.
        """
        if self.apart:
            found = apart(tokenizer, texts, self.tokens, self.window)
        else:
            found = slide(joined(tokenizer, texts, self.tokens), self.window, self.stride)
        if not found:
            raise ValueError("the texts have no two tokens in a row to predict: give longer texts")
        if not self.apart and len(found[0].ids) < self.window:
            held = f"the texts hold {counted(len(found[0].ids), 'token')}, fewer than a window of {self.window}"
            warnings.warn(f"{held}: they are one window", stacklevel=2)
        return found

    def about(self) -> dict[str, float | bool]:
        """What results say of it."""
        masked = {} if self.masked is None else {"masked": self.masked, "mask_seed": self.seed}
        return {"window": self.window, "stride": self.stride, "apart": self.apart, **masked}

    def arguments(self) -> dict[str, int | bool | None]:
        """The options that ask for it."""
        alone = self.apart and self.masked is None  # what is masked is read text by text always
        return {"window": self.window, "stride": None if self.apart else self.stride, "apart": alone or None}


def reading(
    tokens: int, window: int | None, stride: int | None, apart: bool, contexts: dict[str, int | None]
) -> Reading:
    """Check how texts are to be read.

    Parameters
    ----------
    tokens
        Number of tokens in all.
    window
        Largest number of tokens of a window; None: `LONGEST`, or the shortest context.
    stride
        Tokens from one window to the next; None: the window.
    apart
        Whether every text has windows of its own.
    contexts
        Tokens that every model reads at once, by its name; None: as many as there are.

    Returns
    -------
    Reading
        That all models can do.

    Raises
    ------
    ValueError
        A window beyond a context, a stride that leaves tokens out, or one of texts apart.
    """
    tokens = whole_number("tokens", tokens, 2)
    limits = {name: limit for name, limit in contexts.items() if limit is not None}
    shortest = min(limits, key=lambda name: limits[name], default=None)
    if window is None:
        window = min(LONGEST, *limits.values()) if limits else LONGEST
    window = whole_number("window", window, 2)
    if shortest is not None and window > limits[shortest]:
        raise ValueError(f"window {window} is beyond the context of {shortest}: give at most {limits[shortest]} tokens")
    if apart and stride not in (None, window):
        raise ValueError(f"stride {stride} is of texts that are joined: leave it out, or leave apart out")
    stride = whole_number("stride", window if stride is None else stride, 1, window)
    return Reading(tokens, window, stride, bool(apart))


def masked_reading(tokens: int, window: int | None, stride: int | None, contexts: dict[str, int | None]) -> Reading:
    """Check how texts are to be read for masked tokens: each by itself, as such models were trained.

    Parameters
    ----------
    tokens
        Number of tokens in all.
    window
        Largest number of tokens of a window; None: `LONGEST_MASKED`, or the shortest context.
    stride
        None, as windows do not overlap.
    contexts
        Tokens that every model reads at once, by its name.

    Returns
    -------
    Reading
        That all models can do.

    Raises
    ------
    ValueError
        As `reading`.
    """
    if window is None:
        window = min([LONGEST_MASKED, *(limit for limit in contexts.values() if limit is not None)])
    return replace(reading(tokens, window, stride, True, contexts), masked=MASKED)


def joined(tokenizer: Tokenizer, texts: Sequence[Text], tokens: int) -> list[int]:
    """Tokens of all texts as one.

    Parameters
    ----------
    tokenizer
        Of the model; what it puts before a text stands once, at the beginning.
    texts
        Texts and pairs of texts, which a blank line separates.
    tokens
        Largest number of tokens, the first ones.

    Returns
    -------
    list
        Token ids.
    """
    # ten characters a token is far beyond any tokenizer's mean
    text = BETWEEN.join(part for one in texts for part in parts_of(one))[: 10 * tokens + 1000]
    return tokenizer(text, truncation=True, max_length=tokens)["input_ids"]


def slide(ids: Sequence[int], window: int, stride: int) -> list[Window]:
    """Cut tokens into windows, in which every token but the first one of a window is predicted once.

    Parameters
    ----------
    ids
        Token ids.
    window
        Tokens of a window; the last one has fewer where the tokens end.
    stride
        Tokens from the beginning of a window to the next, at most `window`. What windows share is predicted in the
        first of them.

    Returns
    -------
    list
        Windows of two tokens or more.
    """
    found, read = [], 0
    for start in range(0, len(ids), stride):
        piece = list(ids[start : start + window])
        scored = min(start + len(piece) - read, len(piece) - 1)
        if scored > 0:
            found.append(Window(piece, scored))
        read = start + len(piece)
        if read == len(ids):
            break
    return found


def apart(tokenizer: Tokenizer, texts: Sequence[Text], tokens: int, window: int) -> list[Window]:
    """Cut every text by itself.

    Parameters
    ----------
    tokenizer
        Of the model; its special tokens are in every window.
    texts
        Texts and pairs of texts.
    tokens
        Number of tokens in all, the first ones of the texts.
    window
        Largest number of tokens of a window; a shorter text has a window of its length.

    Returns
    -------
    list
        Windows without overlap.
    """
    return [Window(ids, len(ids) - 1) for ids in cut(tokenizer, texts, tokens, window)]
