"""What a model predicts: classes and values of texts, labels of words, answers to questions, next and masked tokens;
and embeddings of texts."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase as Tokenizer

from compress.calibration.texts import Text, pad, portions, shorten
from compress.evaluation.windows import Window
from compress.model import walk
from compress.model.embedding import pooling_of
from compress.model.structure import context
from transmeter.util.progress import track

LONGEST = 512  # tokens that are read of a text, and of a sentence at once
QUESTION_WINDOW = 384  # tokens of a question with a part of its context; a third is the stride, as in BERT's script
ANSWER = 30  # tokens of an answer at most, as there
WINDOWS = 16  # of text that run at once, of long ones fewer
LOGITS = 2**24  # that are compared at once


def classes(model: nn.Module, tokenizer: Tokenizer, texts: Sequence[Text]) -> np.ndarray:
    """Predict classes.

    Parameters
    ----------
    model
        The model.
    tokenizer
        Of the model.
    texts
        Texts and pairs of texts.

    Returns
    -------
    np.ndarray
        (texts,) class ids.
    """
    return logits(model, tokenizer, texts).argmax(-1)


def values(model: nn.Module, tokenizer: Tokenizer, texts: Sequence[Text]) -> np.ndarray:
    """Predict values.

    Parameters
    ----------
    model
        The model.
    tokenizer
        Of the model.
    texts
        Texts and pairs of texts.

    Returns
    -------
    np.ndarray
        (texts,) of a regression.
    """
    return logits(model, tokenizer, texts)[:, 0]


def logits(model: nn.Module, tokenizer: Tokenizer, texts: Sequence[Text]) -> np.ndarray:
    """Logits of classes.

    Parameters
    ----------
    model
        The model.
    tokenizer
        Of the model.
    texts
        Texts and pairs of texts.

    Returns
    -------
    np.ndarray
        (texts, classes).
    """
    at_most = {"truncation": True, "max_length": context(model, LONGEST)}
    parts = [(text,) if isinstance(text, str) else text for text in texts]
    return torch.cat(_outputs(model, tokenizer, [tokenizer(*p, **at_most)["input_ids"] for p in parts])).numpy()


@torch.no_grad()
def _outputs(model: nn.Module, tokenizer: Tokenizer, sequences: Sequence[list[int]], size: int = 32) -> list[Tensor]:
    """Logits (rows, classes) of every sequence as in `walk.outputs`, with what padding brings."""
    order = sorted(range(len(sequences)), key=lambda i: -len(sequences[i]))
    found: dict[int, Tensor] = {}
    for start in track(range(0, len(order), size), "Predicting"):
        part = order[start : start + size]
        batch = {k: v.to(model.device) for k, v in pad(tokenizer, [sequences[i] for i in part]).items()}
        found |= zip(part, walk.outputs(model, model(**batch), batch).float().cpu())
    return [found[i] for i in range(len(sequences))]


def labels(model: nn.Module, tokenizer: Tokenizer, sentences: Sequence[Sequence[str]]) -> list[np.ndarray]:
    """Predict labels of words; sentences beyond `LONGEST` tokens are read in several parts.

    Parameters
    ----------
    model
        The model.
    tokenizer
        Of the model.
    sentences
        Lists of words.

    Returns
    -------
    list
        (words,) class ids of every sentence: that of a word's first token; -1 for a word without tokens.
    """
    at_most = {"truncation": True, "max_length": context(model, LONGEST)}
    sequences, origins = [], []
    for number, words in enumerate(sentences):
        # offsets in the joined words, since not every tokenizer takes words apart (byte-level ones want a space first)
        parts = tokenizer(" ".join(words), return_overflowing_tokens=True, return_offsets_mapping=True, **at_most)
        sequences += parts["input_ids"]
        origins += [(number, offsets) for offsets in parts["offset_mapping"]]
    found = [np.full(len(words), -1) for words in sentences]
    starts = [np.cumsum([0] + [len(word) + 1 for word in words[:-1]]) for words in sentences]
    for (number, offsets), logits in zip(origins, _outputs(model, tokenizer, sequences)):
        for (start, end), label in zip(offsets, logits.argmax(-1).tolist()):
            word = np.searchsorted(starts[number], end - 1, side="right") - 1  # a token may begin with the space before
            if end > start and found[number][word] == -1:
                found[number][word] = label
    return found


def answers(
    model: nn.Module, tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]], may_be_none: bool = False
) -> list[str]:
    """Predict answers: the best span over windows of the context; questions beyond half a window are cut.

    Parameters
    ----------
    model
        The model.
    tokenizer
        Of the model.
    pairs
        (question, context).
    may_be_none
        Give "" where the first token, which stands for no answer, is in every window better than any span.

    Returns
    -------
    list
        A text for every pair.
    """
    length = context(model, QUESTION_WINDOW)
    at_most = {"truncation": "only_second", "max_length": length, "stride": length // 3}
    sequences, origins = [], []
    for number, (question, text) in enumerate(pairs):
        question = shorten(tokenizer, question, length // 2)
        parts = tokenizer(question, text, return_overflowing_tokens=True, return_offsets_mapping=True, **at_most)
        for window, (ids, offsets) in enumerate(zip(parts["input_ids"], parts["offset_mapping"])):
            sequences.append(ids)
            origins.append((number, [o if s == 1 else None for o, s in zip(offsets, parts.sequence_ids(window))]))
    best, none = [(-np.inf, "")] * len(pairs), [np.inf] * len(pairs)
    for (number, offsets), logits in zip(origins, _outputs(model, tokenizer, sequences)):
        score, first, last = _best_span(logits[:, : len(offsets)], torch.tensor([o is not None for o in offsets]))
        none[number] = min(none[number], float(logits[:, 0].sum()))
        if score > best[number][0]:
            best[number] = (score, pairs[number][1][offsets[first][0] : offsets[last][1]].strip())
    return ["" if may_be_none and nothing > score else text for (score, text), nothing in zip(best, none)]


def _best_span(logits: Tensor, allowed: Tensor) -> tuple[float, int, int]:
    """(score, first, last token) of the best span; logits (2, tokens) of start and end, allowed (tokens,) bool."""
    scores = logits[0][:, None] + logits[1]
    possible = allowed[:, None] & allowed & torch.ones_like(scores, dtype=torch.bool).triu().tril(ANSWER - 1)
    scores = scores.masked_fill(~possible, -torch.inf)
    best = int(scores.argmax())
    return float(scores.flatten()[best]), best // len(scores), best % len(scores)


@torch.no_grad()
def losses(
    model: nn.Module, tokenizer: Tokenizer, windows: Sequence[Window], baseline: nn.Module | None = None
) -> np.ndarray:
    """Losses of next tokens, and how far the predictions are from those of another model.

    Parameters
    ----------
    model
        The model.
    tokenizer
        Of the model.
    windows
        Of text.
    baseline
        Another model with the same tokens; None: there is none to compare with.

    Returns
    -------
    np.ndarray
        (windows, 2 or 4), longest window first: sum of the losses in nats, and number of tokens predicted; with a
        baseline also the sum of the KL divergences of the model's prediction from the baseline's in nats, and the
        number of tokens for which both find the same one most likely.
    """
    ordered, found = sorted(windows, key=lambda window: len(window.ids), reverse=True), []
    for place in track(portions([len(window.ids) for window in ordered], WINDOWS), "Predicting"):
        part = ordered[place]
        batch = {k: v.to(model.device) for k, v in pad(tokenizer, [window.ids for window in part]).items()}
        both = [net(**batch).logits for net in (model, baseline) if net is not None]
        places = _next_tokens(batch, torch.tensor([window.scored for window in part], device=model.device))
        found.append(_sums(both, batch["input_ids"], places, 1))
    return torch.cat(found).cpu().numpy()


@torch.no_grad()
def masked_losses(
    model: nn.Module,
    tokenizer: Tokenizer,
    windows: Sequence[Window],
    masked: float,
    seed: int,
    baseline: nn.Module | None = None,
) -> np.ndarray:
    """Losses of masked tokens, and how far the predictions are from those of another model.

    Parameters
    ----------
    model
        The model.
    tokenizer
        Of the model, with a mask token.
    windows
        Of text.
    masked
        Share of the ordinary tokens of a window that are masked, at least one.
    seed
        Of which tokens are masked.
    baseline
        Another model with the same tokens; None: there is none to compare with.

    Returns
    -------
    np.ndarray
        (windows, 3 or 5), longest window first: the columns of `losses`, and the number of tokens that are predicted
        right.
    """
    ordered, found = sorted(windows, key=lambda window: len(window.ids), reverse=True), []
    rng, special = np.random.default_rng(seed), list(tokenizer.all_special_ids)
    for place in track(portions([len(window.ids) for window in ordered], WINDOWS), "Predicting"):
        batch = pad(tokenizer, [window.ids for window in ordered[place]])
        ids, hidden = batch["input_ids"], torch.zeros_like(batch["input_ids"], dtype=torch.bool)
        for row, window in enumerate(ordered[place]):
            ordinary = np.flatnonzero(~np.isin(window.ids, special))
            hidden[row, rng.permutation(ordinary)[: max(1, round(masked * len(ordinary)))]] = True
        given = {**batch, "input_ids": ids.masked_fill(hidden, tokenizer.mask_token_id)}
        given = {k: v.to(model.device) for k, v in given.items()}
        both = [net(**given).logits for net in (model, baseline) if net is not None]
        ids, hidden = ids.to(model.device), hidden.to(model.device)
        right = ((both[0].argmax(-1) == ids) & hidden).sum(1, dtype=torch.float64)
        found.append(torch.cat([_sums(both, ids, hidden.nonzero(), 0), right[:, None]], 1))
    return torch.cat(found).cpu().numpy()


def embeddings(model: nn.Module, tokenizer: Tokenizer, texts: Sequence[str]) -> np.ndarray:
    """Embeddings of texts by a model without a head.

    Parameters
    ----------
    model
        The model.
    tokenizer
        Of the model.
    texts
        Of each as many tokens are read as its pooling says, and at most `LONGEST`.

    Returns
    -------
    np.ndarray
        (texts, width), pooled as `compress.model.embedding` says, up to a common factor.
    """
    length = min(context(model, LONGEST), pooling_of(model).length or LONGEST)
    sequences = [tokenizer(text, truncation=True, max_length=length)["input_ids"] for text in texts]
    return torch.stack(_outputs(model, tokenizer, sequences))[:, :, 0].numpy()


def _next_tokens(batch: Mapping[str, Tensor], scored: Tensor) -> Tensor:
    """(predicted tokens, 2): row and place of the last `scored` (windows,) tokens of every window."""
    lengths, targets = batch["attention_mask"].sum(1), torch.arange(batch["input_ids"].shape[1], device=scored.device)
    return ((targets >= (lengths - scored)[:, None]) & (targets < lengths[:, None])).nonzero()


def _sums(logits: Sequence[Tensor], ids: Tensor, places: Tensor, ahead: int) -> Tensor:
    """(windows, 2 or 4) as `losses` gives them, of one or two (windows, tokens, vocabulary); `LOGITS` at a time.

    ids (windows, tokens): what is right; places (predicted tokens, 2): where; ahead: how many tokens before it stands
    what predicts a token.
    """
    sums = torch.zeros(len(ids), 2 * len(logits), dtype=torch.float64, device=ids.device)
    for part in places.split(max(1, LOGITS // logits[0].shape[-1])):
        rows, target = part.T
        logs = [found[rows, target - ahead].float().log_softmax(-1) for found in logits]
        loss = -logs[0].gather(1, ids[rows, target][:, None])[:, 0].double()
        columns = [loss, torch.ones_like(loss)]
        if len(logs) > 1:
            own, other = logs
            columns.append((other.exp() * (other - own)).sum(1, dtype=torch.float64))
            columns.append((own.argmax(1) == other.argmax(1)).double())
        sums.index_add_(0, rows, torch.stack(columns, 1))
    return sums


def class_ids(model: nn.Module, names: Sequence[str]) -> np.ndarray:
    """Labels as ids of a model's classes.

    A label is the name of a class as it stands in the model's config; else a name that is the same number written
    otherwise (1.0 for 1); else a class id; else true or false of two classes called so, 1 and 0, or LABEL_1 and
    LABEL_0.

    Parameters
    ----------
    model
        The model.
    names
        Labels.

    Returns
    -------
    np.ndarray
        (labels,) class ids.

    Raises
    ------
    ValueError
        A label is none of these.
    """
    own = {str(name): int(i) for i, name in model.config.id2label.items()}
    loose = _spelled_otherwise(own)
    ids = {str(i): i for i in own.values() if str(i) not in set(map(_plain, own))}
    found: dict[str, int] = {}
    for name in dict.fromkeys(names):
        places = ((own, name), (loose, _plain(name)), (ids, _plain(name)), (_booleans(loose), _plain(name)))
        known = next((place[key] for place, key in places if key in place), None)
        if known is None:
            raise ValueError(f"label '{name}' is no class of the model: its classes are {', '.join({**ids, **own})}")
        found[name] = known
    return np.array([found[name] for name in names], dtype=int)


def _plain(label: str) -> str:
    """A label without what is only a way of writing: .0 of a whole number, capitals of true and false."""
    whole = re.fullmatch(r"(-?\d+)\.0+", label)
    return whole[1] if whole else label.lower() if label.lower() in ("true", "false") else label


def _spelled_otherwise(classes: Mapping[str, int]) -> dict[str, int]:
    """Classes by plain names, where no two have the same."""
    counts = Counter(map(_plain, classes))
    return {_plain(name): i for name, i in classes.items() if counts[_plain(name)] == 1}


def _booleans(classes: Mapping[str, int]) -> dict[str, int]:
    """The two classes that true and false stand for, empty where their names do not say so."""
    pairs = (("0", "1"), ("LABEL_0", "LABEL_1"))
    return next(({"false": classes[no], "true": classes[yes]} for no, yes in pairs if classes.keys() == {no, yes}), {})
