"""Calibration data chosen by measurement: a model's own states of candidate texts, and the draw from the best.

`features` gives plain arrays; whoever calls ranks them (the command line does, with transmeter) and hands the ranking
back to `choose` as plain scores. Source and target share a label set because the labels are the teacher's own.
"""

import hashlib
import json
import os
import shutil
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import nn
from transformers import PreTrainedTokenizerBase

from compress.structure import blocks_path, context
from compress.texts import Text, batches, cut, decode
from compress.walk import inputs, outputs, real

MAX_LENGTH = 128  # tokens of a sequence
CLUSTERS = 8  # of next tokens, the classes of a decoder
STATES = 4000  # token states of a decoder that are kept for a candidate


@dataclass(frozen=True)
class Part:
    """What was drawn from one candidate; hash: SHA-256 of the texts drawn."""

    name: str
    score: float
    share: float
    tokens: int
    texts: int
    hash: str


@dataclass(frozen=True)
class Chosen:
    """The texts drawn, the candidate of each, and where they come from."""

    texts: list[Text]
    origins: list[str]
    parts: list[Part]


@torch.no_grad()
def features(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, texts: Sequence[Text], tokens: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """States (n, 2 * width) of the middle and the last block, and the teacher's labels (n,), on `tokens` tokens.

    A classifier gives one row a text, its mean state and its predicted class, rounded where it is a value; a model that
    labels tokens one row a token; a decoder one row a token and the cluster of the token that it predicts next; a model
    of answers one row a text and the cluster of the token that its answer begins with. Raises ValueError where the
    texts are too short for any row.
    """
    sequences = cut(tokenizer, texts, tokens, context(model, MAX_LENGTH), seed)
    path = blocks_path(model)
    middle, last = f"{path}.{model.config.num_hidden_layers // 2}", f"{path}.{model.config.num_hidden_layers - 1}"
    groups = _clusters(model, seed)
    states, labels = [], []
    for batch in batches(tokenizer, sequences):
        with inputs(model, [middle, last]) as seen:
            output = model(**batch)
        logits = outputs(output, batch)
        predicted = logits.round().long()[..., 0] if logits.shape[-1] == 1 else logits.argmax(-1)
        if "start_logits" in output:
            predicted = batch["input_ids"].gather(1, predicted[:, :1])
        if groups is not None:
            predicted = groups[predicted]
        hidden = torch.cat([seen[middle], seen[last]], 2)
        if predicted.shape[1] == 1:
            weights = batch["attention_mask"][:, :, None].to(hidden.dtype)
            states.append((hidden * weights).sum(1) / weights.sum(1))
            labels.append(predicted[:, 0])
        else:
            states.append(real(batch, hidden))
            labels.append(real(batch, predicted))
    if not states:
        raise ValueError("the texts have no token: give longer texts")
    x, y = torch.cat(states).numpy(), torch.cat(labels).numpy()
    rows = np.sort(np.random.default_rng(seed).permutation(len(x))[:STATES])
    return x[rows], y[rows]


def _clusters(model: nn.Module, seed: int) -> torch.Tensor | None:
    """(vocabulary,) cluster of every token by its embedding, the output's if there is one; None for a classifier."""
    head = model.get_input_embeddings() if hasattr(model, "qa_outputs") else model.get_output_embeddings()
    if head is None:
        return None
    vectors = nn.functional.normalize(head.weight.float(), dim=1).numpy()
    return torch.from_numpy(KMeans(CLUSTERS, n_init=1, random_state=seed).fit_predict(vectors)).long()


def choose(
    scores: Mapping[str, float],
    texts: Mapping[str, Sequence[Text]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    tokens: int = 20_000,
    mix: int = 1,
    seed: int = 0,
) -> Chosen:
    """Draw `tokens` tokens of texts from the `mix` candidates of highest score, in proportion to their scores.

    scores: above zero, higher is better. Raises ValueError for a mix outside 1..candidates.
    """
    if not 1 <= mix <= len(scores):
        raise ValueError(f"mix {mix} is out of range: give 1 to {len(scores)}, the number of candidates scored")
    best = sorted(scores, key=lambda name: -scores[name])[:mix]
    total = sum(scores[name] for name in best)
    chosen = Chosen([], [], [])
    drawn = {n: cut(tokenizer, texts[n], round(scores[n] / total * tokens), MAX_LENGTH, seed) for n in best}
    counts = {name: sum(map(len, sequences)) for name, sequences in drawn.items()}
    for name, sequences in drawn.items():
        pieces = [decode(tokenizer, ids) for ids in sequences]
        digest = hashlib.sha256("\x00".join(p if isinstance(p, str) else "\x01".join(p) for p in pieces).encode())
        share = counts[name] / sum(counts.values())
        chosen.parts.append(Part(name, scores[name], share, counts[name], len(pieces), digest.hexdigest()))
        chosen.texts.extend(pieces)
        chosen.origins.extend([name] * len(pieces))
    return chosen


def save(chosen: Chosen, out: Path, about: Mapping[str, object]) -> None:
    """Write a Hugging Face data set (text, source, text_pair where there are pairs) with provenance.json to `out`.

    It gets its name when it is complete.
    """
    from datasets import Dataset

    pairs = [(text, "") if isinstance(text, str) else text for text in chosen.texts]
    columns = {"text": [a for a, _ in pairs], "source": chosen.origins}
    if any(b for _, b in pairs):
        columns["text_pair"] = [b for _, b in pairs]
    partial = out.absolute().parent / f".{out.name}.{os.getpid()}"
    try:
        Dataset.from_dict(columns).save_to_disk(str(partial))
        provenance = {**about, "parts": [asdict(part) for part in chosen.parts]}
        (partial / "provenance.json").write_text(json.dumps(provenance, indent=1), encoding="utf-8")
        if out.exists():
            out.rmdir()
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def describe(path: Path) -> dict[str, object]:
    """Where calibration texts come from: the provenance that `save` wrote, or the SHA-256 of a plain file."""
    file = path / "provenance.json"
    if file.is_file():
        return {"provenance": json.loads(file.read_text(encoding="utf-8"))}
    return {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()} if path.is_file() else {}


def draw(
    path: Path | None,
    texts: Sequence[Text],
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    tokens: int,
    seed: int = 0,
) -> tuple[list[list[int]], dict[str, object]]:
    """Sequences of `tokens` tokens of the texts read from `path` (None: from no file), and what the card says of them.

    A set that `save` wrote is taken as it is. Warns of fewer tokens than asked for; raises ValueError for texts of less
    than two tokens each.
    """
    used = describe(path) if path else {}
    name = path or "calibration"
    budget, order = (sys.maxsize, None) if "provenance" in used else (tokens, seed)
    sequences = cut(tokenizer, texts, budget, context(model, MAX_LENGTH), order)
    if not sequences:
        reason = "a sequence needs at least two tokens: give longer texts or more --tokens"
        raise ValueError(f"{name} gives nothing to calibrate on with {tokens} tokens: {reason}")
    found = sum(map(len, sequences))
    if found < budget < sys.maxsize:
        warnings.warn(f"{name} holds {found} tokens, fewer than the {tokens} asked for: all are used", stacklevel=2)
    return sequences, {"texts": str(name), "tokens": found, "seed": seed, **used}
