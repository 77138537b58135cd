"""What a model makes of texts, by one forward pass: states of three depths, its own labels, and what surprises it.

Closeness to a target is measured on it, and texts are selected by it. Source and target share a label set because the
labels are the model's own.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from sklearn.cluster import KMeans
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase as Tokenizer

from compress.calibration.texts import batches
from compress.model.structure import blocks_path
from compress.model.walk import drop_padding, inputs, outputs
from transmeter.util import writing

DEPTHS = ("first", "middle", "last")  # blocks, whose inputs are looked at
CLUSTERS = 8  # of next tokens, the classes of a decoder
ROWS = 4000  # token states that are kept of a set


@dataclass(frozen=True)
class HiddenStates:
    """A set of token sequences, longest first, and the model's view of them.

    origins: the set that each sequence is of. surprise: (sequences,) mean nats of the next token of a decoder, else the
    entropy of the prediction. Rows are sequences of a classifier, or tokens: states (rows, depths, width), labels
    (rows,), owners (rows,) the sequence of each.
    """

    sequences: list[list[int]]
    origins: list[str]
    nll: np.ndarray
    states: np.ndarray
    labels: np.ndarray
    owners: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """(sequences,) tokens of each."""
        return np.array([len(s) for s in self.sequences])

    def take(self, chosen: Sequence[int]) -> "HiddenStates":
        """Only the sequences `chosen`, in that order."""
        place = np.full(len(self.sequences), -1)
        place[list(chosen)] = np.arange(len(chosen))
        rows = np.flatnonzero(place[self.owners] >= 0)
        parts = (self.states[rows], self.labels[rows], place[self.owners[rows]])
        return HiddenStates(
            [self.sequences[i] for i in chosen], [self.origins[i] for i in chosen], self.nll[chosen], *parts
        )

    def means(self) -> np.ndarray:
        """(sequences, depths, width): mean state of every sequence."""
        sums = np.zeros((len(self.sequences), *self.states.shape[1:]))
        np.add.at(sums, self.owners, self.states)
        counts = np.bincount(self.owners, minlength=len(sums)).clip(1)
        return sums / counts[:, None, None]


def merge(surveys: Sequence[HiddenStates]) -> HiddenStates:
    """All sequences of several surveys as one."""
    starts = np.cumsum([0] + [len(s.sequences) for s in surveys])
    return HiddenStates(
        [ids for s in surveys for ids in s.sequences],
        [name for s in surveys for name in s.origins],
        np.concatenate([s.nll for s in surveys]),
        np.concatenate([s.states for s in surveys]),
        np.concatenate([s.labels for s in surveys]),
        np.concatenate([s.owners + start for s, start in zip(surveys, starts)]),
    )


@torch.no_grad()
def collect(
    model: nn.Module,
    tokenizer: Tokenizer,
    name: str,
    sequences: Sequence[Sequence[int]],
    seed: int = 0,
    groups: Tensor | None = None,
) -> HiddenStates:
    """HiddenStates of the token sequences of the set `name`; of a model of tokens `ROWS` rows, drawn by `seed`.

    groups: what `clusters` gives for the model and the seed; None: found here.

    Labels are the predicted class, rounded where it is a value; of a decoder the cluster of the token predicted next;
    of a model of answers the cluster of the token that the answer begins with. Raises ValueError for no sequence.
    """
    if not sequences:
        raise ValueError(f"{name} has no text of two tokens: give longer texts")
    ordered = sorted((list(s) for s in sequences), key=len, reverse=True)
    path, last = blocks_path(model), model.config.num_hidden_layers - 1
    places = [f"{path}.{i}" for i in (0, (last + 1) // 2, last)]
    groups = clusters(model, seed) if groups is None else groups
    nll, states, labels, owners, seen_before = [], [], [], [], 0
    for batch in batches(tokenizer, ordered):
        with inputs(model, places) as seen:
            output = model(**batch)
        logits = outputs(output, batch)
        predicted = logits.round().long()[..., 0] if logits.shape[-1] == 1 else logits.argmax(-1)
        if "start_logits" in output:
            predicted = batch["input_ids"].gather(1, predicted[:, :1])
        nll.append(_nll(model, logits, batch))
        if groups is not None:
            predicted = groups[predicted]
        hidden, mask = torch.stack([seen[p] for p in places], 2), batch["attention_mask"]
        owner = torch.arange(seen_before, seen_before + len(mask))
        seen_before += len(mask)
        if predicted.shape[1] == 1:
            weights = mask[:, :, None, None].to(hidden.dtype)
            states.append((hidden * weights).sum(1) / weights.sum(1))
            labels.append(predicted[:, 0])
            owners.append(owner)
        else:
            states.append(drop_padding(batch, hidden))
            labels.append(drop_padding(batch, predicted))
            owners.append(owner[:, None].expand_as(mask)[mask.bool()])
    x, y, of = (torch.cat(parts).numpy() for parts in (states, labels, owners))
    rows = np.sort(np.random.default_rng(seed).permutation(len(x))[:ROWS])
    return HiddenStates(ordered, [name] * len(ordered), torch.cat(nll).numpy(), x[rows], y[rows], of[rows])


def collect_cached(
    folder: Path,
    model_hash: str,
    model: nn.Module,
    tokenizer: Tokenizer,
    name: str,
    sequences: Sequence[Sequence[int]],
    seed: int = 0,
    groups: Tensor | None = None,
) -> HiddenStates:
    """`collect`, kept in `folder` by the hash of the model and the sequences, so that it is done once."""
    about = json.dumps([model_hash, seed, [list(s) for s in sequences]])
    file = folder / f"{hashlib.sha256(about.encode()).hexdigest()}.safetensors"
    if file.exists():
        kept = load_file(file)
        ids = [part.tolist() for part in np.split(kept.pop("ids"), np.cumsum(kept.pop("lengths"))[:-1])]
        return HiddenStates(ids, [name] * len(ids), **kept)
    view = collect(model, tokenizer, name, sequences, seed, groups)
    ids = {"ids": np.concatenate(view.sequences), "lengths": view.lengths}
    tensors = ids | {k: getattr(view, k) for k in ("nll", "states", "labels", "owners")}
    folder.mkdir(parents=True, exist_ok=True)
    with writing.replacing(file) as partial:
        save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, partial)
    return view


def _nll(model: nn.Module, logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """(sequences,) mean nats of the next token, or entropy of what is predicted."""
    if model.get_output_embeddings() is not None:
        following, mask = batch["input_ids"][:, 1:], batch["attention_mask"][:, 1:]
        each = nn.functional.cross_entropy(logits[:, :-1].mT, following, reduction="none") * mask
        return each.sum(1) / mask.sum(1).clamp_min(1)
    shares = logits.log_softmax(-1)
    return -(shares.exp() * shares).sum(-1).mean(1)


def clusters(model: nn.Module, seed: int) -> Tensor | None:
    """(vocabulary,) cluster of every token by its embedding, the output's if there is one; None for a classifier."""
    head = model.get_input_embeddings() if hasattr(model, "qa_outputs") else model.get_output_embeddings()
    if head is None:
        return None
    vectors = nn.functional.normalize(head.weight.detach().float(), dim=1).numpy()
    return torch.from_numpy(KMeans(CLUSTERS, n_init=1, random_state=seed).fit_predict(vectors)).long()
