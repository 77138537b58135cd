"""Dynamic sparse training: while a pruned model recovers, useless connections are exchanged for better ones.

Evci et al., "Rigging the Lottery: Making All Tickets Winners" (RigL), ICML 2020, arXiv 1911.11134; the exchange goes
back to Mocanu et al. (SET), arXiv 1707.04780. From the zeros of another method, the weights that are left learn the
teacher's logits; now and then every layer drops some of them and regrows as many others. The share exchanged falls
like a cosine and ends at 3/4 of the steps.

RigL drops the smallest |w| and regrows the largest dense gradient |g|, at zero. Its network starts from chance, here it
starts from a trained one, W0: what goes is smallest in |w| times the root mean square of its gradient, what comes is
largest in |g W0|, and it comes back with the value W0. Measured on a small Llama, 70 % zeros, 150 steps, one seed:
perplexity 16.4 by RigL's rule, 16.1 without exchange, 15.8 by this one; in 60 steps no exchange pays.

recovery=lora trains low-rank updates W0 + BA under the mask (algorithms.lora): the optimizer's state is small. Its
exchange keeps what is largest in |W0 + BA|; that costs (17.2 against 16.8 without), so that it is off by default.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from compress.algorithms.options import TrainingConfig, UnitLimits, check_ratio
from compress.algorithms.resume import Progress
from compress.algorithms.training import Update, require_peft, steps
from compress.algorithms.traits import Needs, Traits
from compress.methods import magnitude, wanda
from compress.model.architectures import blocks_path
from compress.model.offload import refuse
from compress.model.structure import block_linears, shallow_copy, unshare
from compress.model.walk import Batch

Train = Callable[[Mapping[str, nn.Parameter]], Iterator[Update]]  # of the parameters named
TRAITS = Traits(Needs(models=6, states=1, matrices=0, copies=5), resumes=True, streams=False)
RATES = {"full": 2e-3, "lora": 5e-3}  # what gave the lowest perplexity on a small Llama
SHARES = {"full": 0.1, "lora": 0.0}
END = 0.75  # share of the steps after which no connection is exchanged


def compress(
    model: nn.Module,
    batches: Sequence[Batch],
    *,
    ratio: float = 0.5,
    start: Literal["wanda", "magnitude"] = "wanda",
    recovery: Literal["full", "lora"] = "full",
    training: TrainingConfig = TrainingConfig(steps=150, rate=None),
    every: int = 15,
    share: float | None = None,
    rank: int = 16,
    progress: Progress | None = None,
) -> nn.Module:
    """Set a share of the weights of every linear layer in the blocks to zero, and train the others.

    Parameters
    ----------
    model
        The model, which is changed.
    batches
        Calibration texts; each entry (batch, tokens).
    ratio
        Share of the weights that is zero.
    start
        Where the first zeros come from.
    recovery
        full: all weights of the blocks that are not zero are trained; lora: low-rank updates of them.
    training
        Number of steps, learning rate (None: `RATES` of the recovery), temperature, rows a step and seed.
    every
        Number of steps between two exchanges of connections.
    share
        Share of the connections that the first exchange takes; None: `SHARES` of the recovery.
    rank
        Rank of the updates with recovery=lora.
    progress
        Where the state of the training is kept; None: nowhere.

    Returns
    -------
    nn.Module
        `model`.

    Raises
    ------
    ValueError
        For an option out of range, and where recovery=lora misses peft.
    RuntimeError
        The loss is not finite, or the sparsity reached misses the request.

    References
    ----------
    arXiv 1911.11134
    """
    check_ratio(ratio)
    training = training.with_rate(RATES[recovery])
    share = SHARES[recovery] if share is None else share
    if every < 1 or rank < 1 or not 0 <= share <= 1:
        raise ValueError(f"every {every}, rank {rank}, share {share}: give 1 or more, 1 or more, and 0 to 1")
    refuse(model, "dynamic_sparse trains all weights at once")
    if recovery == "lora":
        require_peft()
    teacher = shallow_copy(model)
    if start == "wanda":
        wanda.compress(model, batches, ratio=ratio)
    else:
        magnitude.compress(model, batches, limits=UnitLimits(ratio), unit="weights")
    if ratio == 0 or training.steps == 0:
        return model
    blocks = range(model.config.num_hidden_layers)
    masks = {path: linear.weight != 0 for block in blocks for path, linear in block_linears(model, block)}
    zeros = {path: int((~mask).sum()) for path, mask in masks.items()}
    shares = [_share(step, every, share, END * training.steps) for step in range(training.steps)]
    train = partial(steps, model, teacher, batches, training, also=masks, progress=progress)
    dense = {path: teacher.get_submodule(path).weight for path in masks}
    if recovery == "full":
        _full(unshare(model, teacher), masks, dense, shares, train)
    else:
        _lora(model, masks, dense, shares, train, rank, training.seed)
    for path, wanted in zeros.items():
        found = int((model.get_submodule(path).weight == 0).sum())
        if found < wanted:
            raise RuntimeError(f"zeros of {path}: {found} reached, {wanted} requested")
    return model


def _share(step: int, every: int, share: float, end: float) -> float:
    """Share of the connections that `step` exchanges: falls like a cosine from `share` to 0 at `end`."""
    if step == 0 or step % every or step >= end:
        return 0.0
    return share / 2 * (1 + math.cos(math.pi * step / end))


def exchange(mask: Tensor, kept: Tensor, grown: Tensor, share: float) -> Tensor:
    """Exchange connections of a layer.

    Parameters
    ----------
    mask
        Which weights are not zero.
    kept
        Of its shape; the lowest of the mask are dropped.
    grown
        Of its shape; the largest outside of what is left are set. What was just dropped may regrow, as in RigL.
    share
        Share of the ones that is exchanged.

    Returns
    -------
    Tensor
        The new mask, bool.
    """
    flat = mask.flatten()
    count = min(round(share * int(flat.sum())), int((~flat).sum()))
    lowest = kept.flatten().masked_fill(~flat, math.inf).argsort(stable=True)[:count]
    rest = flat.index_fill(0, lowest, False)
    best = grown.flatten().masked_fill(rest, -math.inf).argsort(descending=True, stable=True)[:count]
    return rest.index_fill(0, best, True).view_as(mask)


def _full(
    student: nn.Module, masks: dict[str, Tensor], dense: dict[str, Tensor], shares: Sequence[float], train: Train
) -> None:
    """Train all weights of the blocks; gradients are masked, so that zeros stay zeros between two exchanges."""
    blocks = blocks_path(student) + "."
    weights = {path: student.get_submodule(path).weight for path in masks}
    for step in train({name: p for name, p in student.named_parameters() if name.startswith(blocks)}):
        with torch.no_grad():
            for path, weight in weights.items():
                mask = masks[path]
                if share := shares[step.number]:
                    state = step.optimizer.state[weight]
                    squares = state["exp_avg_sq"]  # of the gradients, their running mean
                    new = exchange(mask, weight.abs() * squares.sqrt(), (weight.grad * dense[path]).abs(), share)
                    weight.copy_(torch.where(mask, weight, dense[path]) * new)
                    for moment in (state["exp_avg"], squares):
                        moment.mul_(new & mask)
                    mask.copy_(new)
                weight.grad.mul_(mask)


def _lora(
    student: nn.Module,
    masks: dict[str, Tensor],
    dense: dict[str, nn.Parameter],
    shares: Sequence[float],
    train: Train,
    rank: int,
    seed: int,
) -> None:
    """Train low-rank updates of the dense weights under the masks, and merge them."""
    from compress.algorithms import lora

    for path, weight in dense.items():  # shared with the teacher: nothing changes it
        student.get_submodule(path).weight = weight
    adapters = lora.adapt(student, masks, rank, seed)
    for step in train({name: p for name, p in student.named_parameters() if ".lora_" in name}):
        if share := shares[step.number]:
            for path, adapter in adapters.items():
                size = adapter.dense().detach().abs()
                masks[path].copy_(exchange(masks[path], size, size, share))
    lora.merge(student, adapters)
