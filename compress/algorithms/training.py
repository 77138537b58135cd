"""The one training loop: a student learns, without labels, what its teacher says about the calibration batches.

For recovery after pruning and for distillation (algorithms.distillation_loss has more to learn from a teacher). The
loop is a generator that stops between the gradients of a step and its update, so that a method can act there (prune,
regrow, mask gradients) without a callback. Started in several processes by accelerate, each takes its share of
every step.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from compress.algorithms.options import TrainingConfig
from compress.algorithms.resume import Progress
from compress.model.architectures import blocks_path
from compress.model.layers import Exits, PackedLinear
from compress.model.offload import refuse
from compress.model.structure import refuse_changed
from compress.model.walk import Batch, frozen, row_weights, run
from transmeter.util import writing
from transmeter.util.progress import track

T = TypeVar("T")
Loss = Callable[[Batch, int], Tensor]  # of a batch at a step: the mean over its samples

RATE = 1e-3  # where a method names no other
WARMUP = 0.1  # share of the steps in which the rate rises; it falls in all others
CLIP = 1.0  # largest norm of a step's gradients
KEEP_EVERY = 50  # steps between two writings of a run's state


@dataclass(frozen=True)
class Update:
    """An update that is still to come, its gradients taken.

    Attributes
    ----------
    number
        Of the step, from 0.
    loss
        Over all processes, before the update.
    optimizer
        What will make it.
    """

    number: int
    loss: float
    optimizer: torch.optim.AdamW


def train(
    student: nn.Module,
    teacher: nn.Module,
    batches: Sequence[Batch],
    config: TrainingConfig,
    trained: Mapping[str, nn.Parameter] | None = None,
    progress: Progress | None = None,
    loss: Loss | None = None,
) -> nn.Module:
    """Train to the end.

    Parameters
    ----------
    student, teacher, batches, config, progress, loss
        As of `steps`.
    trained
        As of `steps`; None: every weight of the student.

    Returns
    -------
    nn.Module
        The student itself.
    """
    trained = dict(student.named_parameters()) if trained is None else trained
    for _ in steps(student, teacher, batches, config, trained, progress=progress, loss=loss):
        pass
    return student


def steps(
    student: nn.Module,
    teacher: nn.Module,
    batches: Sequence[Batch],
    config: TrainingConfig,
    trained: Mapping[str, nn.Parameter],
    also: Mapping[str, Tensor] | None = None,
    progress: Progress | None = None,
    loss: Loss | None = None,
) -> Iterator[Update]:
    """Train, and stop before every update.

    Parameters
    ----------
    student
        Is changed. It must share no trained parameter with the teacher (`unshare`).
    teacher
        Runs as it is, as the student does: in eval mode, as dropout would draw from the global generator.
    batches
        Of which every step takes some rows.
    config
        How to train.
    trained
        Parameters of the student, by name.
    also
        Tensors that the caller changes in place between steps; they are kept and restored with the weights.
    progress
        Where a killed run goes on, with the result of one that was never killed; None: nowhere.
    loss
        What is minimised; None: `distance`.

    Yields
    ------
    Update
        In several processes all start from the same, and gradients are averaged, as if one had taken the rows of all.

    Raises
    ------
    RuntimeError
        The loss is not finite.
    """
    config = config.with_rate(RATE)
    together = Accelerator()
    pieces = _pieces(batches, config.rows, together.process_index, together.num_processes)
    if loss is None:
        loss = partial(distance, student, teacher, temperature=config.temperature)
    optimizer = torch.optim.AdamW(trained.values(), lr=config.rate, weight_decay=0.0)
    state = _state(trained, also or {}, optimizer)
    file = progress.folder / "training.safetensors" if progress else None
    if file and file.exists():
        for name, tensor in load_file(file).items():
            state[name].copy_(tensor)
    with frozen(student):
        for parameter in trained.values():
            parameter.requires_grad_(True)
        for number in track(range(int(state["done"]), config.steps), "Training"):
            optimizer.param_groups[0]["lr"] = config.rate * _schedule(number, config.steps)
            share, weight = _draw(pieces, number, config.seed)
            found = loss(share, number) * weight
            reached = float(together.reduce(found.detach(), "mean"))
            if not math.isfinite(reached):
                raise RuntimeError(f"the loss is {reached} at step {number}: lower the rate ({config.rate})")
            found.backward()
            for parameter in trained.values():
                if parameter.grad is None:  # of an expert that none of these rows reaches
                    parameter.grad = torch.zeros_like(parameter)
                if together.num_processes > 1:
                    parameter.grad = together.reduce(parameter.grad, "mean")
            yield Update(number, reached, optimizer)
            nn.utils.clip_grad_norm_(trained.values(), CLIP)
            optimizer.step()
            optimizer.zero_grad()
            state["done"] += 1
            due = state["done"] % KEEP_EVERY == 0 or state["done"] == config.steps
            if file and due and together.is_main_process:
                with writing.replacing(file) as partly:
                    save_file({name: tensor.contiguous() for name, tensor in state.items()}, partly)


def distance(student: nn.Module, teacher: nn.Module, batch: Batch, number: int = 0, temperature: float = 1.0) -> Tensor:
    """Mean over samples of gamma^2 KL(teacher | student).

    Parameters
    ----------
    student
        The student.
    teacher
        The teacher.
    batch
        What the model sees.
    number
        Of the step; changes nothing.
    temperature
        Gamma.

    Returns
    -------
    Tensor
        A scalar.
    """
    with torch.no_grad():
        target = run(teacher, batch).float()
    logits = run(student, batch).float()
    return divergence(target, logits, row_weights(student, logits, batch), temperature).mean()


def divergence(student: Tensor, teacher: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """gamma^2 KL(softmax(z_S / gamma) | softmax(z_T / gamma)) of every sample.

    Parameters
    ----------
    student
        Logits (batch, rows, classes); a single class is a regression, and its distance the squared difference.
    teacher
        As the student's.
    weights
        (batch, rows).
    temperature
        Gamma.

    Returns
    -------
    Tensor
        (batch,): the mean over its rows.
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


def require_trainable(model: nn.Module, method: str) -> None:
    """Refuse a model that cannot be trained.

    Parameters
    ----------
    model
        The model.
    method
        Name, for the error.

    Raises
    ------
    ValueError
        The model streams, has exits, is quantized, or in float16.
    """
    refuse(model, f"{method} trains all weights at once")
    refuse_changed(model, (Exits, PackedLinear))
    for block in range(model.config.num_hidden_layers):
        path = f"{blocks_path(model)}.{block}"
        if not any(isinstance(m, nn.Linear) for m in model.get_submodule(path).modules()):
            raise ValueError(f"{path} has no plain linear layer that {method} could train: put quantization behind it")
    if model.dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(f"{method} cannot train weights of {model.dtype}: give --dtype float32 or bfloat16")


def require_peft() -> None:
    """Raise ValueError where the peft library is missing.

    Raises
    ------
    ValueError
        With the remedy.
    """
    try:
        import peft  # noqa: F401
    except ImportError:
        raise ValueError("recovery=lora needs the peft library: pip install peft, or give recovery=full") from None


@contextmanager
def checkpointed(model: nn.Module) -> Iterator[None]:
    """While the context is open the backward pass runs every block anew instead of keeping its activations.

    transformers' own switch asks for training mode, and so for dropout.

    Parameters
    ----------
    model
        The model.

    Yields
    ------
    None
    """
    blocks = model.get_submodule(blocks_path(model))
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def _pieces(batches: Sequence[Batch], rows: int, process: int, processes: int) -> list[tuple[Batch, float]]:
    """What every step takes, of `rows` sequences in each process: the share of this one, and its weight.

    Weighted losses, averaged over the processes, give the mean over the rows of all. A process for which no row is left
    takes the first one, with weight 0.
    """
    found = []
    for batch in batches:
        for start in range(0, len(batch["input_ids"]), rows * processes):
            piece = {k: v[start : start + rows * processes] for k, v in batch.items()}
            share = {k: v[process::processes] if process < len(v) else v[:1] for k, v in piece.items()}
            all_rows = len(piece["input_ids"])
            found.append((share, len(range(process, all_rows, processes)) * processes / all_rows))
    return found


def _draw(pieces: Sequence[T], number: int, seed: int) -> T:
    """The piece of a step; every pass takes all in an order of its own, which depends on nothing but the seed."""
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
