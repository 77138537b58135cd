"""Hidden states of texts in a model, by one forward pass: of three depths, with the model's own labels and likelihoods.

Closeness to a target is measured on them, and texts are selected by them. Candidate and target share a label set
because the labels are the model's own.
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from sklearn.cluster import KMeans
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase as Tokenizer

from compress.calibration.texts import batches
from compress.model.architectures import blocks_path
from compress.model.embedding import has_head
from compress.model.structure import vocabulary
from compress.model.walk import drop_padding, inputs, outputs, row_weights, run
from transmeter.scorers.alignment import Points
from transmeter.util import writing

DEPTHS = ("first", "middle", "last")  # blocks, whose inputs are the hidden states
CLUSTERS = 8  # of next tokens, the classes of a decoder
ROWS = 4000  # largest number of token states of a set


@dataclass(frozen=True)
class HiddenStates:
    """Hidden states of a set of token sequences; a row is a sequence of a classifier, else a token.

    Attributes
    ----------
    sequences
        Token ids, longest first.
    origins
        The set that each sequence is of.
    nll
        (sequences,) mean negative log-likelihood of a decoder's next tokens, else the entropy of the prediction, nats;
        NaN for a model without a head.
    states
        (rows, depths, width).
    labels
        (rows,) of the model's own.
    owners
        (rows,) the sequence that each row is of.
    texts
        (sequences,) number of the text that each is of: what was sampled independently.
    """

    sequences: list[list[int]]
    origins: list[str]
    nll: np.ndarray
    states: np.ndarray
    labels: np.ndarray
    owners: np.ndarray
    texts: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """(sequences,) tokens of each."""
        return np.array([len(s) for s in self.sequences])

    @property
    def by_text(self) -> bool:
        """Whether a row is a sequence, not a token."""
        return np.array_equal(self.owners, np.arange(len(self.sequences)))

    def take(self, chosen: Sequence[int]) -> "HiddenStates":
        """Only the sequences `chosen`, in that order."""
        place = np.full(len(self.sequences), -1)
        place[list(chosen)] = np.arange(len(chosen))
        rows = np.flatnonzero(place[self.owners] >= 0)
        sequences, origins = [self.sequences[i] for i in chosen], [self.origins[i] for i in chosen]
        of_rows = self.states[rows], self.labels[rows], place[self.owners[rows]]
        return HiddenStates(sequences, origins, self.nll[chosen], *of_rows, self.texts[list(chosen)])

    def means(self) -> np.ndarray:
        """(sequences, depths, width): mean state of every sequence."""
        sums = np.zeros((len(self.sequences), *self.states.shape[1:]))
        np.add.at(sums, self.owners, self.states)
        counts = np.bincount(self.owners, minlength=len(sums)).clip(1)
        return sums / counts[:, None, None]


def merge(sets: Sequence[HiddenStates]) -> HiddenStates:
    """Hidden states of several sets as those of one.

    Parameters
    ----------
    sets
        In any number.

    Returns
    -------
    HiddenStates
        Of all their sequences, set after set.
    """
    starts = np.cumsum([0] + [len(s.sequences) for s in sets])
    texts = np.cumsum([0] + [s.texts.max(initial=-1) + 1 for s in sets])
    return HiddenStates(
        [ids for s in sets for ids in s.sequences],
        [name for s in sets for name in s.origins],
        *(np.concatenate([getattr(s, array) for s in sets]) for array in ("nll", "states", "labels")),
        np.concatenate([s.owners + start for s, start in zip(sets, starts)]),
        np.concatenate([s.texts + start for s, start in zip(sets, texts)]),
    )


@torch.no_grad()
def collect(
    model: nn.Module,
    tokenizer: Tokenizer,
    name: str,
    sequences: Sequence[Sequence[int]],
    seed: int = 0,
    groups: Tensor | None = None,
    texts: Sequence[int] | None = None,
) -> HiddenStates:
    """Collect the hidden states of token sequences.

    Labels are the predicted class, rounded where it is a value; of a decoder the cluster of the token predicted next;
    of a model of answers the cluster of the token that the answer begins with; of masked tokens the cluster of the
    token predicted; of a model without a head, whose rows are tokens, the cluster of the token itself.

    Parameters
    ----------
    model
        That reads them.
    tokenizer
        Of the model.
    name
        Of the set.
    sequences
        Token ids.
    seed
        Of the sample of `ROWS` rows, where a row is a token.
    groups
        What `clusters` gives for the model and the seed; None: it is asked.
    texts
        Number of the text that each sequence is of; None: each is a text.

    Returns
    -------
    HiddenStates
        Of the set.

    Raises
    ------
    ValueError
        There is no sequence.
    """
    if not sequences:
        raise ValueError(f"{name} has no text of two tokens: give longer texts")
    ordered = sorted((list(s) for s in sequences), key=len, reverse=True)
    path, last = blocks_path(model), model.config.num_hidden_layers - 1
    places = [f"{path}.{i}" for i in (0, (last + 1) // 2, last)]
    groups = clusters(model, seed) if groups is None else groups
    nll, states, labels, owners, seen_before = [], [], [], [], 0
    for batch in batches(tokenizer, ordered, vocabulary=vocabulary(model)):
        with inputs(model, places[:-1]) as seen:
            deepest, predicted, likelihood = _read(model, batch, last)
        nll.append(likelihood)
        if groups is not None:
            predicted = groups[predicted]
        seen[places[-1]] = deepest
        hidden, mask = torch.stack([seen[p] for p in places], 2), batch["attention_mask"]
        owner = torch.arange(seen_before, seen_before + len(mask))
        seen_before += len(mask)
        by_text = predicted.shape[1] == 1
        for rows_of, found in zip((states, labels), _rows_of(batch, hidden, predicted, by_text)):
            rows_of.append(found)
        owners.append(owner if by_text else drop_padding(batch, owner[:, None].expand_as(mask)))
    x, y, of = (torch.cat(parts).numpy() for parts in (states, labels, owners))
    rows = _rows(len(x), seed)
    found = x[rows], y[rows], of[rows], _texts(sequences, texts)
    return HiddenStates(ordered, [name] * len(ordered), torch.cat(nll).numpy(), *found)


@torch.no_grad()
def embed(
    model: nn.Module,
    tokenizer: Tokenizer,
    sequences: Sequence[Sequence[int]],
    by_text: bool,
    seed: int = 0,
    groups: Tensor | None = None,
) -> Points:
    """What enters the first block; no block runs.

    Parameters
    ----------
    model
        That reads the sequences.
    tokenizer
        Of the model.
    sequences
        Token ids.
    by_text
        Whether a row is the mean over a sequence, not a token.
    seed
        Of the sample of `ROWS` rows.
    groups
        As in `collect`.

    Returns
    -------
    Points
        Of the first depth alone, with the labels of `collect` for a model without a head, else 0, as nothing is
        predicted yet.
    """
    labelled = groups is not None and not has_head(model)
    states, labels = [], []
    for batch in batches(tokenizer, sorted(map(list, sequences), key=len), vocabulary=vocabulary(model)):
        hidden, ids = run(model, batch, stop=0), batch["input_ids"]
        own = groups[ids] if labelled else torch.zeros_like(ids)
        for rows_of, found in zip((states, labels), _rows_of(batch, hidden, own, by_text)):
            rows_of.append(found)
    x, y = torch.cat(states).numpy(), torch.cat(labels).numpy()
    rows = _rows(len(x), seed)
    return Points({DEPTHS[0]: x[rows]}, y[rows])


def _rows_of(batch: dict[str, Tensor], hidden: Tensor, labels: Tensor, by_text: bool) -> tuple[Tensor, Tensor]:
    """States and labels of a batch; a row is a token, or the mean over a sequence with the label of its first place."""
    if not by_text:
        return drop_padding(batch, hidden), drop_padding(batch, labels)
    mask = batch["attention_mask"]
    weights = mask.reshape(*mask.shape, *[1] * (hidden.ndim - 2)).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1), labels[:, 0]


def _rows(count: int, seed: int) -> np.ndarray:
    """Numbers of at most `ROWS` rows of so many, drawn at random."""
    return np.sort(np.random.default_rng(seed).permutation(count)[:ROWS])


def _texts(sequences: Sequence[Sequence[int]], texts: Sequence[int] | None) -> np.ndarray:
    """(sequences,) the text of each, in the order of `collect`."""
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]), reverse=True)
    return np.array(order if texts is None else [texts[i] for i in order], dtype=int)


def collect_cached(
    folder: Path | None,
    model_hash: str,
    model: nn.Module,
    tokenizer: Tokenizer,
    name: str,
    sequences: Sequence[Sequence[int]],
    seed: int = 0,
    groups: Tensor | None = None,
    texts: Sequence[int] | None = None,
) -> HiddenStates:
    """Collect hidden states once: they are stored by the hash of the model and the sequences.

    A file that is damaged is written anew.

    Parameters
    ----------
    folder
        Where they are stored; None: nowhere.
    model_hash
        Of the model's files.
    model, tokenizer, name, sequences, seed, groups, texts
        As in `collect`.

    Returns
    -------
    HiddenStates
        As `collect` gives them.
    """
    if folder is None:
        return collect(model, tokenizer, name, sequences, seed, groups, texts)
    about = json.dumps([model_hash, seed, [list(s) for s in sequences]])
    file = folder / f"{hashlib.sha256(about.encode()).hexdigest()}.safetensors"
    with suppress(FileNotFoundError, SafetensorError):
        stored = load_file(file)
        ids = [part.tolist() for part in np.split(stored.pop("ids"), np.cumsum(stored.pop("lengths"))[:-1])]
        return HiddenStates(ids, [name] * len(ids), **stored, texts=_texts(sequences, texts))
    found = collect(model, tokenizer, name, sequences, seed, groups, texts)
    ids = {"ids": np.concatenate(found.sequences), "lengths": found.lengths}
    tensors = ids | {k: getattr(found, k) for k in ("nll", "states", "labels", "owners")}
    folder.mkdir(parents=True, exist_ok=True)
    with writing.replacing(file) as partial:
        save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, partial)
    return found


def _read(model: nn.Module, batch: dict[str, Tensor], last: int) -> tuple[Tensor, Tensor, Tensor]:
    """What enters the last block, what is predicted (tokens, or the class), and the negative log-likelihoods.

    A model without a head predicts nothing, so that its last block need not run.
    """
    if not has_head(model):
        return run(model, batch, stop=last), batch["input_ids"], torch.full((len(batch["input_ids"]),), torch.nan)
    path = f"{blocks_path(model)}.{last}"
    with inputs(model, [path]) as seen:
        output = model(**batch)
    logits = outputs(model, output, batch)
    predicted = logits.round().long()[..., 0] if logits.shape[-1] == 1 else logits.argmax(-1)
    if "start_logits" in output:
        predicted = batch["input_ids"].gather(1, predicted[:, :1])
    return seen[path], predicted, _nll(model, logits, batch)


def _nll(model: nn.Module, logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """(sequences,) mean negative log-likelihood of the next tokens, or entropy of the prediction, nats."""
    if model.can_generate():
        following, mask = batch["input_ids"][:, 1:], batch["attention_mask"][:, 1:]
        each = nn.functional.cross_entropy(logits[:, :-1].mT, following, reduction="none") * mask
        return each.sum(1) / mask.sum(1).clamp_min(1)
    shares, weights = logits.log_softmax(-1), row_weights(model, logits, batch)
    return -((shares.exp() * shares).sum(-1) * weights).sum(1) / weights.sum(1)


def clusters(model: nn.Module, seed: int) -> Tensor | None:
    """Cluster the vocabulary by the tokens' embeddings, those of the output if there are any.

    Parameters
    ----------
    model
        Any.
    seed
        Of the clustering.

    Returns
    -------
    Tensor or None
        (vocabulary,) cluster of every token; None for a classifier.
    """
    by_input = hasattr(model, "qa_outputs") or not has_head(model)
    head = model.get_input_embeddings() if by_input else model.get_output_embeddings()
    if head is None:
        return None
    vectors = nn.functional.normalize(head.weight.detach().float(), dim=1).numpy()
    return torch.from_numpy(KMeans(CLUSTERS, n_init=1, random_state=seed).fit_predict(vectors)).long()
