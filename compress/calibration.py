"""Calibration data chosen by measurement: a model's own states of candidate texts, and the draw from the best.

`features` gives plain arrays; whoever calls ranks them (the command line does, with transmeter) and hands the ranking
back to `choose` as plain scores. Source and target share a label set because the labels are the teacher's own.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import nn
from transformers import PreTrainedTokenizerBase

from compress.structure import blocks_path, context
from compress.texts import batches, cut
from compress.walk import inputs, real

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

    texts: list[str]
    origins: list[str]
    parts: list[Part]


@torch.no_grad()
def features(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], tokens: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """States (n, 2 * width) of the middle and the last block, and the teacher's labels (n,), on `tokens` tokens.

    A classifier gives one row a text, its mean state and its predicted class; a decoder one row a token and the
    cluster of the token that it predicts next. Raises ValueError where the texts are too short for any row.
    """
    sequences = cut(tokenizer, texts, tokens, context(model, MAX_LENGTH), seed)
    path = blocks_path(model)
    middle, last = f"{path}.{model.config.num_hidden_layers // 2}", f"{path}.{model.config.num_hidden_layers - 1}"
    groups = _clusters(model, seed)
    states, labels = [], []
    for batch in batches(tokenizer, sequences):
        with inputs(model, [middle, last]) as seen:
            predicted = model(**batch).logits.argmax(-1)
        hidden = torch.cat([seen[middle], seen[last]], 2)
        if groups is None:
            weights = batch["attention_mask"][:, :, None].to(hidden.dtype)
            states.append((hidden * weights).sum(1) / weights.sum(1))
            labels.append(predicted)
        else:
            states.append(real(batch, hidden))
            labels.append(groups[real(batch, predicted)])
    if not states:
        raise ValueError("the texts have no token: give longer texts")
    x, y = torch.cat(states).numpy(), torch.cat(labels).numpy()
    rows = np.sort(np.random.default_rng(seed).permutation(len(x))[:STATES])
    return x[rows], y[rows]


def _clusters(model: nn.Module, seed: int) -> torch.Tensor | None:
    """(vocabulary,) cluster of every token by its output embedding; None for a classifier."""
    head = model.get_output_embeddings()
    if head is None:
        return None
    vectors = nn.functional.normalize(head.weight.float(), dim=1).numpy()
    return torch.from_numpy(KMeans(CLUSTERS, n_init=1, random_state=seed).fit_predict(vectors)).long()


def choose(
    scores: Mapping[str, float],
    texts: Mapping[str, Sequence[str]],
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
        pieces = [tokenizer.decode(ids, skip_special_tokens=True) for ids in sequences]
        digest = hashlib.sha256("\x00".join(pieces).encode()).hexdigest()
        share = counts[name] / sum(counts.values())
        chosen.parts.append(Part(name, scores[name], share, counts[name], len(pieces), digest))
        chosen.texts.extend(pieces)
        chosen.origins.extend([name] * len(pieces))
    return chosen


def save(chosen: Chosen, out: Path, about: Mapping[str, object]) -> None:
    """Write a Hugging Face data set (text, source) with provenance.json to `out`, under a temporary name first."""
    from datasets import Dataset

    partial = out.absolute().parent / f".{out.name}.{os.getpid()}"
    try:
        Dataset.from_dict({"text": chosen.texts, "source": chosen.origins}).save_to_disk(str(partial))
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
