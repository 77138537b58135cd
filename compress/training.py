"""The one training loop: a student learns, without labels, what its teacher says about the calibration batches.

For recovery after pruning and for distillation. The loop is a generator that stops between the gradients of a step
and its update, so that a method can act there (prune, regrow, mask gradients) without a callback.
"""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from compress.progress import Progress
from compress.structure import blocks_path
from compress.walk import Batch, frozen, inputs, real, row_weights, run, track

WARMUP = 0.1  # share of the steps in which the rate rises; it falls in all others
CLIP = 1.0  # largest norm of a step's gradients
KEEP_EVERY = 50  # steps between two writings of a run's state


@dataclass(frozen=True)
class Settings:
    """How to train. Raises ValueError for a value out of range.

    steps: updates; rate: the largest learning rate; temperature: gamma of the divergence; hidden: weight of the hidden
    states beside the logits; rows: sequences a step; seed: of the order of the batches.
    """

    steps: int = 200
    rate: float = 1e-3
    temperature: float = 1.0
    hidden: float = 0.0
    rows: int = 8
    seed: int = 0

    def __post_init__(self):
        if self.rate <= 0 or self.temperature <= 0:
            raise ValueError(f"rate {self.rate} and temperature {self.temperature}: both must be above 0")
        if self.rows < 1 or min(self.steps, self.hidden) < 0:
            raise ValueError(f"steps {self.steps}, hidden {self.hidden}, rows {self.rows}: give 0, 0 and 1 or more")


@dataclass(frozen=True)
class Step:
    """One step, its gradients taken, its update still to come; loss: of its batch, before the update."""

    number: int
    loss: float
    optimizer: torch.optim.AdamW


def train(
    student: nn.Module,
    teacher: nn.Module,
    batches: Sequence[Batch],
    settings: Settings,
    progress: Progress | None = None,
) -> nn.Module:
    """Train every weight of `student`, in place, and return it. Raises as `steps`."""
    for _ in steps(student, teacher, batches, settings, dict(student.named_parameters()), progress=progress):
        pass
    return student


def steps(
    student: nn.Module,
    teacher: nn.Module,
    batches: Sequence[Batch],
    settings: Settings,
    trained: Mapping[str, nn.Parameter],
    also: Mapping[str, Tensor] | None = None,
    progress: Progress | None = None,
) -> Iterator[Step]:
    """Train the parameters `trained` of `student`, by name, in place; yields each step before its update.

    The student must share no trained parameter with the teacher (structure.own). also: tensors that the caller changes
    in place between steps, kept and restored with the weights; progress: where a killed run goes on, with the result of
    one that was never killed. Both models run as they are, so put them in eval mode: dropout would draw from the global
    generator. Raises RuntimeError when the loss is not finite.
    """
    pieces = [
        {k: v[i : i + settings.rows] for k, v in batch.items()}
        for batch in batches
        for i in range(0, len(batch["input_ids"]), settings.rows)
    ]
    optimizer = torch.optim.AdamW(trained.values(), lr=settings.rate, weight_decay=0.0)
    state = _state(trained, also or {}, optimizer)
    file = progress.folder / "training.safetensors" if progress else None
    if file and file.exists():
        for name, tensor in load_file(file).items():
            state[name].copy_(tensor)
    with frozen(student):
        for parameter in trained.values():
            parameter.requires_grad_(True)
        for number in track(range(int(state["done"]), settings.steps), "Training"):
            optimizer.param_groups[0]["lr"] = settings.rate * _schedule(number, settings.steps)
            loss = distance(student, teacher, _draw(pieces, number, settings.seed), settings)
            if not math.isfinite(loss.item()):
                raise RuntimeError(f"the loss is {loss.item()} at step {number}: lower the rate ({settings.rate})")
            loss.backward()
            yield Step(number, loss.item(), optimizer)
            nn.utils.clip_grad_norm_(trained.values(), CLIP)
            optimizer.step()
            optimizer.zero_grad()
            state["done"] += 1
            if file and (state["done"] % KEEP_EVERY == 0 or state["done"] == settings.steps):
                partial = file.with_suffix(".partial")
                save_file({name: tensor.contiguous() for name, tensor in state.items()}, partial)
                os.replace(partial, file)


def distance(student: nn.Module, teacher: nn.Module, batch: Batch, settings: Settings) -> Tensor:
    """Mean over samples of gamma^2 KL(teacher | student), plus `hidden` times the distance of the hidden states.

    Of what enters every block but the first: the mean squared difference over real tokens, relative to the teacher's
    mean square. A student with fewer blocks is compared with the teacher at the same relative depth.
    """
    ours = [f"{blocks_path(student)}.{i}" for i in range(1, student.config.num_hidden_layers)]
    depth = teacher.config.num_hidden_layers / student.config.num_hidden_layers
    theirs = [f"{blocks_path(teacher)}.{round(i * depth)}" for i in range(1, student.config.num_hidden_layers)]
    with torch.no_grad(), inputs(teacher, theirs) as wanted:
        target = run(teacher, batch).float()
    with inputs(student, ours) as given:
        logits = run(student, batch).float()
    loss = divergence(target, logits, row_weights(logits, batch), settings.temperature).mean()
    if settings.hidden:
        for our, their in zip(ours, theirs):
            right = real(batch, wanted[their])
            loss = loss + settings.hidden * (real(batch, given[our]) - right).square().mean() / right.square().mean()
    return loss


def divergence(student: Tensor, teacher: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """gamma^2 KL(softmax(z_S / gamma) | softmax(z_T / gamma)) of every sample, (batch,): the mean over its rows.

    Logits (batch, rows, classes), weights (batch, rows); a single class is a regression and its distance the squared
    difference.
    """
    if student.shape[-1] == 1:
        each = (student - teacher).square().squeeze(-1)
    else:
        p, q = (F.log_softmax(z / temperature, -1) for z in (student, teacher))
        each = temperature**2 * F.kl_div(q, p, reduction="none", log_target=True).sum(-1)
    return (each * weights).sum(1) / weights.sum(1)


def _schedule(number: int, total: int) -> float:
    """Share of the rate at a step: linear warm-up, linear decay."""
    warm = max(1, round(WARMUP * total))
    return min((number + 1) / warm, (total - number) / max(1, total - warm))


def _draw(pieces: Sequence[Batch], number: int, seed: int) -> Batch:
    """The batch of a step; every pass takes all in an order of its own, which depends on nothing but the seed."""
    epoch, place = divmod(number, len(pieces))
    order = torch.randperm(len(pieces), generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))
    return pieces[order[place]]


def _state(
    trained: Mapping[str, nn.Parameter], also: Mapping[str, Tensor], optimizer: torch.optim.AdamW
) -> dict[str, Tensor]:
    """All that a run is made of, by name; the tensors are the live ones, so that writing into them restores it."""
    for p in trained.values():
        optimizer.state[p] = {
            "step": torch.tensor(0.0),
            "exp_avg": torch.zeros_like(p),
            "exp_avg_sq": torch.zeros_like(p),
        }
    moments = {f"{kind}.{n}": t for n, p in trained.items() for kind, t in optimizer.state[p].items()}
    weights = {f"weight.{n}": p.detach() for n, p in trained.items()}
    return weights | moments | {f"also.{n}": t for n, t in also.items()} | {"done": torch.tensor(0)}
