"""Parameters shared across depth: every run of neighbouring blocks gets one set of weights, then the model recovers.

Lan et al., "ALBERT: A Lite BERT for Self-supervised Learning of Language Representations", ICLR 2020,
arXiv 1909.11942, shares from the start of training; here a trained model is merged. For every linear layer of a run the
single W that best gives what each member W_m gives on its own inputs X_m: min_W sum_m |X_m (W - W_m)|^2, by its normal
equations (RegMean, Jin et al., ICLR 2023, arXiv 2212.09849, equation 2); norms and biases are averaged. The blocks stay
modules of their own, with the very same parameters, and learn the teacher's logits and hidden states, tied.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from compress.algorithms.distillation_loss import DistillationLoss
from compress.algorithms.hessian import blocks, gram
from compress.algorithms.least_squares import least_squares
from compress.algorithms.options import DistillationConfig, TrainingConfig
from compress.algorithms.resume import Progress
from compress.algorithms.training import require_trainable, train
from compress.algorithms.traits import Needs, Traits
from compress.model.architectures import blocks_path
from compress.model.structure import shallow_copy, unshare
from compress.model.walk import Batch

TRAITS = Traits(Needs(models=6, states=1, matrices=4, copies=5), resumes=True, streams=False)
RIDGE = 1e-3  # pull of the merged weights towards the mean ones, relative to the mean squared input


def compress(
    model: nn.Module,
    batches: Sequence[Batch],
    *,
    groups: int | None = None,
    merge: Literal["fit", "mean"] = "fit",
    hidden: float = 1.0,
    training: TrainingConfig = TrainingConfig(),
    progress: Progress | None = None,
) -> nn.Module:
    """Let runs of neighbouring blocks, as even as they can be, share one set of weights each.

    Saves disk and memory, not time: as many blocks run as before.

    Parameters
    ----------
    model
        The model, which is changed.
    batches
        Calibration texts; each entry (batch, tokens).
    groups
        Number of distinct blocks that stay; None: half of them.
    merge
        How the shared weights start: fit by least squares, or as the mean.
    hidden
        Weight of the hidden states in the distillation loss, beside that of the logits.
    training
        Number of steps, learning rate, temperature of the logits, rows a step and seed.
    progress
        Where the state of the training is kept; None: nowhere.

    Returns
    -------
    nn.Module
        `model`.

    Raises
    ------
    ValueError
        For an option out of range, or blocks of different sizes.
    RuntimeError
        The loss is not finite.

    References
    ----------
    arXiv 1909.11942, 2212.09849
    """
    config = DistillationConfig(training.temperature, hidden)
    require_trainable(model, "share")
    count = model.config.num_hidden_layers
    groups = -(-count // 2) if groups is None else groups
    if not 1 <= groups <= count:
        raise ValueError(f"groups {groups} is out of range: give 1 to {count}, the number of blocks that stay distinct")
    runs = [range(g * count // groups, (g + 1) * count // groups) for g in range(groups)]
    for run in runs:
        _require_alike(model, run)
    teacher = shallow_copy(model)
    if groups == count:
        return model
    merged = _fitted(teacher, batches, runs) if merge == "fit" else {}
    for run in runs:
        if len(run) > 1:
            _tie(model, run, merged)
    loss = DistillationLoss(unshare(model, teacher), teacher, config, training.seed)
    return train(model, teacher, batches, training, progress=progress, loss=loss.loss)


def _require_alike(model: nn.Module, run: Sequence[int]) -> None:
    """Raise ValueError unless the blocks of a run have parameters of the same names and sizes."""
    shapes = [{n: tuple(p.shape) for n, p in _block(model, i).named_parameters()} for i in run]
    for i, shape in zip(run, shapes):
        if shape != shapes[0]:
            what = f"blocks {run[0]} and {i} differ in their parameters"
            raise ValueError(f"{what}, so that they cannot share: share before pruning")


def _fitted(model: nn.Module, batches: Sequence[Batch], runs: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """By name in the first block of its run, every linear layer's weight (out, in) that fits all members best."""
    where = {block: run for run in runs if len(run) > 1 for block in run}
    found: dict[str, Tensor] = {}
    sums: dict[str, list[Tensor]] = {}
    counts: Counter[str] = Counter()
    for block, shared in enumerate(blocks(model, batches, gram, "Merging")):
        if block not in where:
            continue
        run, here, first = where[block], f"{blocks_path(model)}.{block}.", f"{blocks_path(model)}.{where[block][0]}."
        for paths, moment in shared:
            for path in paths:
                weight = model.get_submodule(path).weight.double().T  # (in, out)
                terms = [moment, moment @ weight, weight / len(run)]
                name = path.replace(here, first, 1)
                counts[name] += 1  # an expert may be reached in some of them alone
                sums[name] = [a + b for a, b in zip(sums[name], terms)] if name in sums else terms
        if block == run[-1]:
            complete = {name: terms for name, terms in sums.items() if counts[name] == len(run)}
            found |= {f"{n}.weight": least_squares(*terms, ridge=RIDGE).T for n, terms in complete.items()}
            sums, counts = {}, Counter()
    return found


@torch.no_grad()
def _tie(model: nn.Module, run: Sequence[int], merged: dict[str, Tensor]) -> None:
    """Make every parameter of the blocks of a run one and the same: what was `merged`, else the mean of all."""
    for name, old in list(_block(model, run[0]).named_parameters()):
        path = f"{blocks_path(model)}.{run[0]}.{name}"
        value = merged.get(path)
        if value is None:
            value = torch.stack([_block(model, i).get_parameter(name).double() for i in run]).mean(0)
        shared = nn.Parameter(value.to(old.dtype).contiguous(), old.requires_grad)
        holder, _, kind = name.rpartition(".")
        for i in run:
            setattr(_block(model, i).get_submodule(holder), kind, shared)


def _block(model: nn.Module, block: int) -> nn.Module:
    return model.get_submodule(f"{blocks_path(model)}.{block}")
