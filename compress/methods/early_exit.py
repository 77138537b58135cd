"""Early exit: a sample leaves the model after the first block at which its answer is sure to be the full model's.

An exit is an affine map from what leaves its block to what leaves the last one, and then the model's own head ("tuned
lens", Belrose et al. 2023, arXiv 2303.08112), by least squares on all tokens. The map sees the mean of the sequence too
(of a decoder, up to the token): the one token that a classifier reads knows next to nothing of the others at first. An
exit is as sure as its largest probability, at the temperature at which that is calibrated against the
full model's predictions (Guo et al., ICML 2017, arXiv 1706.04599). One threshold for all exits is chosen so that, with
95 % confidence, no more than a tolerated share of the predictions differ from the full model's: other sequences than
the maps have seen test thresholds from strict to lax up to the first that fails (Learn then Test, Angelopoulos et al.
2021, arXiv 2110.01052; CALM, Schuster et al., NeurIPS 2022, arXiv 2207.07061). No labels are needed.
"""

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional as F

from compress.algorithms.least_squares import least_squares
from compress.algorithms.traits import Needs, Traits
from compress.model import modeling
from compress.model.architectures import blocks_path
from compress.model.embedding import has_head
from compress.model.layers import Exits
from compress.model.modeling import confidence, stages
from compress.model.offload import refuse
from compress.model.structure import refuse_changed
from compress.model.walk import Batch, drop_padding, outputs, row_weights, run
from transmeter.util.progress import track

TRAITS = Traits(Needs(states=1, gradients=False), changes="exits", streams=False)
RIDGE = 1e-2  # pull of the maps towards the identity, relative to the mean squared state
SHARES = (0.375, 0.125, 0.5)  # of the sequences: maps, temperatures, threshold
LEVEL = 0.95  # confidence of the bound on the share of predictions that differ
TEMPERATURES = 2.0 ** np.arange(-3, 5.125, 0.125)
THRESHOLDS = 1 - np.logspace(-4, 0, 81)  # from strict to lax


def compress(
    model: nn.Module, batches: Sequence[Batch], *, exits: int | None = None, tolerance: float = 0.02, seed: int = 0
) -> nn.Module:
    """Add exits, and the threshold at which a sample leaves by one.

    A sequence leaves when all its predictions are sure, and the rest of the batch goes on without it; with a cache,
    as when text is generated, the whole model answers. The model gets larger, by a matrix an exit. Warns and adds
    no exit where the sequences cannot show any threshold to keep the tolerance: of single predictions it takes at
    least 150 for 0.02, in half of the texts.

    Parameters
    ----------
    model
        The model, which is changed.
    batches
        Calibration texts; each entry (batch, tokens).
    exits
        Number of exits, at even depths; None: after every block but the last.
    tolerance
        Share of the predictions (of sequences, or of tokens) that may differ from the full model's, with 95 %
        confidence.
    seed
        Seed of the parts of the sequences that maps, temperatures and threshold are fitted on.

    Returns
    -------
    nn.Module
        `model`.

    Raises
    ------
    ValueError
        For an option out of range, and a model that has exits, streams, or gives values, answers or embeddings.

    References
    ----------
    arXiv 2303.08112, 2110.01052, 2207.07061
    """
    after = _check(model, exits, tolerance)
    fitted, calibrated, tested = _parts(batches, seed)
    if not (fitted and calibrated and tested):
        warnings.warn("no exit is used: the calibration texts have too few sequences for three parts", stacklevel=2)
        return model
    found = _least_squares(model, fitted, after)
    found.temperatures = _temperatures(model, calibrated, found)
    found.threshold = _threshold(model, tested, found, tolerance)
    if found.threshold is not None:
        modeling.attach(model, found)
    return model


def _check(model: nn.Module, exits: int | None, tolerance: float) -> list[int]:
    """Blocks before each exit. Raises ValueError for what the options or the model do not allow."""
    refuse(model, "early exit runs all blocks on every batch")
    refuse_changed(model, (Exits,))
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance {tolerance} is no share of predictions: give more than 0, less than 1")
    kind, blocks = modeling.base_class(model).__name__, model.config.num_hidden_layers
    if not has_head(model):
        raise ValueError(f"a {kind} gives embeddings, of which none is sure: exits are for classes and text")
    if kind.endswith("QuestionAnswering") or kind.endswith("SequenceClassification") and model.config.num_labels == 1:
        raise ValueError(f"a {kind} gives values or answers, of which none is sure: exits are for classes and text")
    exits = blocks - 1 if exits is None else exits
    if not 1 <= exits < blocks:
        raise ValueError(f"exits {exits} is out of range: give 1 to {blocks - 1}, one less than there are blocks")
    return [(i + 1) * blocks // (exits + 1) for i in range(exits)]


def _parts(batches: Sequence[Batch], seed: int) -> list[list[Batch]]:
    """Every sequence in one of three sets of batches, of the sizes that `SHARES` says, drawn at random."""
    count = sum(len(b["input_ids"]) for b in batches)
    place = torch.randperm(count, generator=torch.Generator().manual_seed(seed)) / count
    number = torch.bucketize(place, torch.tensor(SHARES[:2]).cumsum(0), right=True)
    parts: list[list[Batch]] = [[], [], []]
    for batch, numbers in zip(batches, number.split([len(b["input_ids"]) for b in batches])):
        for i, part in enumerate(parts):
            here = (numbers == i).to(batch["input_ids"].device)
            if here.any():
                part.append({k: v[here] for k, v in batch.items()})
    return parts


@torch.no_grad()
def _least_squares(model: nn.Module, batches: Sequence[Batch], after: Sequence[int]) -> Exits:
    """Exits whose maps give, from the states after their blocks, what is nearest to those after the last one.

    min_W |[h mean(h) 1] W - h_last|^2 over real tokens, in float64.
    """
    width = model.config.hidden_size
    causal = any(getattr(m, "is_causal", False) for m in model.modules())
    exits = Exits(blocks_path(model), width, after, causal, [1.0] * len(after), None).to(model.device, model.dtype)
    at = {"dtype": torch.float64, "device": model.device}
    sums = [(torch.zeros(2 * width + 1, 2 * width + 1, **at), torch.zeros(2 * width + 1, width, **at)) for _ in after]
    last = model.config.num_hidden_layers
    for batch in track(batches, "Fitting exits"):
        states, hidden = [], None
        for start, stop in zip([0, *after], [*after, last]):
            hidden = run(model, batch, start, stop, hidden)
            states.append(hidden)
        wanted = drop_padding(batch, states.pop()).double()
        for (gram, right), state in zip(sums, states):
            features = drop_padding(batch, exits.features(state, batch["attention_mask"])).double()
            features = F.pad(features, (0, 1), value=1.0)
            gram += features.T @ features
            right += features.T @ wanted
    for mapped, (gram, right) in zip(exits.maps, sums):
        solution = least_squares(gram, right, torch.eye(2 * width + 1, width, **at), RIDGE).to(model.dtype)
        mapped.weight.copy_(solution[:-1].T)
        mapped.bias.copy_(solution[-1])
    return exits


def _logits(model: nn.Module, batch: Batch, exits: Exits) -> list[Tensor]:
    """Logits (batch, rows, classes) of every exit, and of the end."""
    given = {k: v for k, v in batch.items() if k != "labels"}
    return [outputs(model, output, batch).float() for output in stages(model, given, exits)]


@torch.no_grad()
def _temperatures(model: nn.Module, batches: Sequence[Batch], exits: Exits) -> list[float]:
    """Of every exit the temperature at which what the full model predicts is likeliest."""
    losses = torch.zeros(len(exits.maps), len(TEMPERATURES), dtype=torch.float64)
    for batch in batches:
        *early, end = _logits(model, batch, exits)
        rows = row_weights(model, end, batch).bool()
        for e, logits in enumerate(early):
            for t, temperature in enumerate(TEMPERATURES):
                losses[e, t] += F.cross_entropy(logits[rows] / temperature, end[rows].argmax(-1), reduction="sum").cpu()
    return [float(TEMPERATURES[i]) for i in losses.argmin(1)]


@torch.no_grad()
def _threshold(model: nn.Module, batches: Sequence[Batch], exits: Exits, tolerance: float) -> float | None:
    """The last of the thresholds before the first that does not keep the tolerance."""
    sure, differs, sequence = _tested(model, batches, exits)
    chosen = None
    for threshold in THRESHOLDS:
        leaves = sure >= threshold
        first = leaves.argmax(1)
        wrong = leaves.any(1) & differs[np.arange(len(first)), first]
        if bound(wrong, sequence) > tolerance:
            break
        chosen = float(threshold)
    if chosen is None:
        least = bound(np.zeros(len(differs), dtype=bool), sequence)
        cause = (
            f"{len(differs)} predictions cannot show that no more than {tolerance} of them differ (at best {least:.3g})"
        )
        warnings.warn(f"no exit is used: {cause}: give more calibration texts or a larger tolerance", stacklevel=3)
    return chosen


@torch.no_grad()
def _tested(model: nn.Module, batches: Sequence[Batch], exits: Exits) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows, exits): how sure each exit is, and whether it differs from the end; (rows,): the sequence of the row."""
    sure, differs, sequence, count = [], [], [], 0
    for batch in batches:
        *early, end = _logits(model, batch, exits)
        rows = row_weights(model, end, batch).bool()
        sure.append(torch.stack([confidence(x, t)[rows] for x, t in zip(early, exits.temperatures)], 1).cpu())
        differs.append(torch.stack([(x.argmax(-1) != end.argmax(-1))[rows] for x in early], 1).cpu())
        sequence.append(rows.nonzero()[:, 0].cpu() + count)
        count += len(rows)
    return torch.cat(sure).numpy(), torch.cat(differs).numpy(), torch.cat(sequence).numpy()


def bound(wrong: np.ndarray, sequence: np.ndarray) -> float:
    """Upper bound of an error rate at the confidence `LEVEL`.

    Parameters
    ----------
    wrong
        (rows,) bool: the sample.
    sequence
        (rows,): the sequence of each row; rows of one sequence are not independent.

    Returns
    -------
    float
        Clopper and Pearson's bound, exact where every sequence has one row; else with as many rows as independent
        ones would give the same variance (Korn and Graubard, Survey Methodology 24, 1998).
    """
    rate, count = wrong.mean(), len(wrong)
    errors, sizes = np.bincount(sequence, wrong), np.bincount(sequence)
    variance = count * rate * (1 - rate)
    effect = max(1.0, np.square(errors - rate * sizes).sum() / variance) if variance else 1.0
    return float(stats.beta.ppf(LEVEL, (rate * count) / effect + 1, count * (1 - rate) / effect)) if rate < 1 else 1.0
