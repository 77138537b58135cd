"""Distillation: a small student learns what its teacher says, and how it gets there.

Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, arXiv 1503.02531; what else counts in the
loss, and where it comes from, is in algorithms.distillation_loss. The student is cut from the teacher (blocks at even
distances, as in Sanh et al., DistilBERT, arXiv 1910.01108; heads and neurons by K-prune), is another model with the
same tokens, or is what the steps before this one have made of the teacher.

Measured on a MiniLM with 8,000 tokens of text, one seed: hidden states beside the logits pay, attention maps do not;
a student with half of the blocks bears a rate of 3e-4, one that K-prune has fitted already loses by it and gains at
1e-4 where much was removed. Where little was removed, there is nothing to regain from so few tokens.
"""

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from compress.algorithms.distillation_loss import DistillationLoss, showing_maps
from compress.algorithms.options import DistillationConfig, TrainingConfig, UnitLimits
from compress.algorithms.resume import Progress
from compress.algorithms.training import checkpointed, require_trainable, train
from compress.algorithms.traits import Needs, Traits
from compress.methods import kprune
from compress.model import io
from compress.model.embedding import has_head
from compress.model.structure import context, keep_blocks, shallow_copy, unshare
from compress.model.walk import Batch, run

TRAITS = Traits(Needs(models=6, states=3, matrices=4, copies=5), learns=True, resumes=True, streams=False)


def compress(
    model: nn.Module,
    batches: Sequence[Batch],
    *,
    teacher: nn.Module | None = None,
    student: str | None = None,
    depth: int | None = None,
    width: float | None = None,
    loss: DistillationConfig = DistillationConfig(hidden=1.0),
    training: TrainingConfig = TrainingConfig(rate=1e-4),
    checkpointing: bool = False,
    progress: Progress | None = None,
) -> nn.Module:
    """Train a student of a teacher.

    A student from a folder takes the place of `model`, which is its teacher.

    Parameters
    ----------
    model
        The model, which is changed.
    batches
        Calibration texts; each entry (batch, tokens).
    teacher
        What is learnt from; None: `model` as it is.
    student
        Folder or hub name of a model for the same task with the same tokens, also of other sizes; None: `model`.
    depth
        Number of blocks of the student that stay, at even distances; None: all.
    width
        Share of the FLOPs of its heads and neurons that stays; None: all.
    loss
        What counts in the distillation loss.
    training
        Number of steps, learning rate, temperature of the logits, rows a step and seed.
    checkpointing
        Whether blocks run anew for their gradients, which takes time and saves memory.
    progress
        Where the state of the training is kept; None: nowhere.

    Returns
    -------
    nn.Module
        `model`, or the student.

    Raises
    ------
    ValueError
        For an option that model and batches do not allow, and where student and teacher are the same.
    RuntimeError
        The loss is not finite.

    References
    ----------
    arXiv 1503.02531, 1910.01108
    """
    _check(model, batches, loss, depth, width, student)
    if training.steps and teacher is None and student is None and depth in (None, model.config.num_hidden_layers):
        if width in (None, 1) and not loss.labels:
            raise ValueError("the student would be its own teacher: give depth, width or student, or a step before it")
    teacher = shallow_copy(model) if teacher is None else teacher
    pupil = _load(student, model, batches) if student else model
    if depth is not None and depth < pupil.config.num_hidden_layers:
        keep_blocks(pupil, _evenly(pupil.config.num_hidden_layers, depth))
    if width is not None:
        cut = Progress(progress.folder / "width") if progress else None
        kprune.compress(pupil, batches, limits=UnitLimits(1 - width), seed=training.seed, progress=cut)
    distillation = DistillationLoss(unshare(pupil, teacher), teacher, loss, training.seed)
    trained = dict(pupil.named_parameters()) | distillation.parameters
    with ExitStack() as stack:
        if loss.attention:
            stack.enter_context(showing_maps(pupil, teacher))
        if checkpointing:
            stack.enter_context(checkpointed(pupil))
        train(pupil, teacher, batches, training, trained, progress, distillation.loss)
    return pupil


def require_student(student: str, tokenizer: PreTrainedTokenizerBase, first: bool = True) -> None:
    """Refuse a student that cannot take the place of the model, as far as its files tell.

    Parameters
    ----------
    student
        Folder or hub name.
    tokenizer
        Of the teacher.
    first
        Whether no step comes before, whose result would be lost.

    Raises
    ------
    ValueError
        For a student behind another step, or with other tokens.
    """
    if not first:
        raise ValueError(f"student {student} would take the place of what the steps before it make: put distil first")
    ours, theirs = io.skeleton(student)[1].get_vocab(), tokenizer.get_vocab()
    if ours != theirs:
        other = sum(ours.get(token) != i for token, i in theirs.items())
        what = f"{len(ours)} tokens, the teacher's {len(theirs)}, of which {other} are others"
        raise ValueError(f"student {student} has another tokenizer ({what}): give a student that reads as its teacher")


def _check(
    model: nn.Module,
    batches: Sequence[Batch],
    loss: DistillationConfig,
    depth: int | None,
    width: float | None,
    student: str | None,
) -> None:
    """Raise ValueError for what the model, or the batches, do not allow."""
    require_trainable(model, "distil")
    blocks = model.config.num_hidden_layers
    if depth is not None and (depth < 1 or depth > blocks and student is None):
        raise ValueError(f"depth {depth} is out of range: give 1 to {blocks}, the number of blocks that stay")
    if width is not None and not 0 < width <= 1:
        raise ValueError(f"width {width} is no share of heads and neurons that stays: give more than 0, up to 1")
    if loss.on_policy and not model.can_generate():
        raise ValueError(f"on_policy {loss.on_policy} asks a {model.config.model_type} to write: give 0, or a decoder")
    if loss.labels and not model.can_generate() and any("labels" not in batch for batch in batches):
        raise ValueError(f"labels {loss.labels} weighs labels, which the batches do not have: give labels=0")


def _load(student: str, model: nn.Module, batches: Sequence[Batch]) -> nn.Module:
    """The model `student` where it can take the place of `model`, else ValueError."""
    found = io.load(student, str(model.device), model.dtype)[0]
    require_trainable(found, "distil")
    longest = max(batch["input_ids"].shape[1] for batch in batches)
    if context(found, longest) < longest:
        raise ValueError(f"student {student} has {context(found, longest)} positions, the texts {longest} tokens")
    probe = {k: v[:1] for k, v in batches[0].items()}
    with torch.no_grad():
        ours, theirs = (tuple(run(m, probe).shape[1:]) for m in (found, model))
    if ours != theirs and not (has_head(found) or has_head(model)):
        widths = f"embeddings of {ours[0]} numbers, the teacher's have {theirs[0]}"
        raise ValueError(f"student {student} gives {widths}: give one of the same width")
    if ours != theirs:
        what = f"outputs (rows, classes) {ours}, the teacher {theirs}"
        raise ValueError(f"student {student} is for another task: it has {what}")
    found.config.id2label, found.config.label2id = dict(model.config.id2label), dict(model.config.label2id)
    return found


def _evenly(blocks: int, depth: int) -> list[int]:
    """`depth` of so many blocks, at even distances, the first among them."""
    return [i * blocks // depth for i in range(depth)]
