"""Least squares between a teacher and its student, sublayer by sublayer."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.model.structure import Sublayer
from compress.model.walk import Batch, capture_inputs, drop_padding, inputs, run


@dataclass
class Pair:
    """Teacher and student at the entrance of one block, below which the two are the same when the pair is made.

    Attributes
    ----------
    teacher
        The teacher.
    student
        The student.
    batches
        Calibration texts.
    block
        Number of the block.
    teacher_in, student_in
        What enters it, (batch, tokens, width) a batch.
    """

    teacher: nn.Module
    student: nn.Module
    batches: Sequence[Batch]
    block: int = 0
    teacher_in: list[Tensor] = field(init=False)
    student_in: list[Tensor] = field(init=False)

    @torch.no_grad()
    def __post_init__(self):
        self.teacher_in = [run(self.teacher, b, stop=self.block) for b in self.batches]
        self.student_in = list(self.teacher_in)

    @torch.no_grad()
    def advance(self, block: int) -> None:
        """Move on to the entrance of `block`."""
        if block != self.block:
            for model, states in ((self.teacher, self.teacher_in), (self.student, self.student_in)):
                for i, batch in enumerate(self.batches):  # the old states go one by one
                    states[i] = run(model, batch, self.block, block, states[i])
            self.block = block


@torch.no_grad()
def normal_equations(pair: Pair, sub: Sublayer, keep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Normal equations of a sublayer's output projection, in float64, over real tokens.

    What the projection gives is added after a norm in some architectures, y * g / r for a gain g of every feature and
    the root mean square r of every token, which is taken to stay the teacher's, and after a multiplier in others.

    Parameters
    ----------
    pair
        Teacher and student.
    sub
        The sublayer.
    keep
        (units,): the units that stay.

    Returns
    -------
    tuple of Tensor
        A^T A (f + 1, f + 1), A^T B (f + 1, width), and the gain (width,) that the weights W are multiplied by in
        |B - A (gain W)^T|^2. A: what enters the student's projection from the units that stay, and a column of ones,
        both over r; B: what the teacher adds with its residual, less the student's residual.
    """
    kept = keep.repeat_interleave(sub.columns).nonzero().squeeze(1)
    gain = gains(pair.teacher, sub)
    at = {"dtype": torch.float64, "device": pair.student.device}
    gram, right = torch.zeros(len(kept) + 1, len(kept) + 1, **at), torch.zeros(len(kept) + 1, sub.width, **at)
    for batch, teacher_in, student_in in zip(pair.batches, pair.teacher_in, pair.student_in):
        stream, states = _around(pair.teacher, batch, sub, teacher_in)
        other, features = _around(pair.student, batch, sub, student_in)
        added, inverse = _added(pair.teacher, sub, states, gain)
        wanted = drop_padding(batch, stream + added - other).double()
        features = F.pad(drop_padding(batch, features)[:, kept].double(), (0, 1), value=1.0)
        if inverse is not None:
            features *= drop_padding(batch, inverse)
        gram += features.T @ features
        right += features.T @ wanted
    return gram, right, gain


def _around(model: nn.Module, batch: Batch, sub: Sublayer, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """The residual stream without what `sub` adds, (batch, tokens, width), and what enters its output projection.

    hidden: what enters the block.
    """
    if not sub.parallel:
        states = capture_inputs(model, batch, sub.block, hidden, [sub.entry, sub.output])
        return states[sub.entry], states[sub.output]
    with inputs(model, [sub.output]) as states:
        after = run(model, batch, sub.block, sub.block + 1, hidden)
    return after - model.get_submodule(sub.output)(states[sub.output]), states[sub.output]


def _added(model: nn.Module, sub: Sublayer, states: Tensor, gain: Tensor) -> tuple[Tensor, Tensor | None]:
    """What `sub` adds where `states` (batch, tokens, features) enter its output projection.

    Beside it 1 / r of every token, (batch, tokens, 1), where a norm divides by r.
    """
    given = model.get_submodule(sub.output)(states)
    if not sub.norm:
        return given * sub.multiplier, None
    added = model.get_submodule(sub.norm)(given)
    scaled = given.double() * gain  # added is scaled / r
    squares = scaled.square().sum(-1, keepdim=True).clamp(min=torch.finfo(scaled.dtype).tiny)
    return added, (scaled * added).sum(-1, keepdim=True) / squares


@torch.no_grad()
def gains(model: nn.Module, sub: Sublayer) -> Tensor:
    """What every feature is multiplied by between a sublayer's output projection and the residual stream.

    Parameters
    ----------
    model
        The model.
    sub
        The sublayer.

    Returns
    -------
    Tensor
        (width,) in float64: what its norm makes of ones, or its multiplier.
    """
    weight = model.get_submodule(sub.output).weight
    gain = weight.new_ones(sub.width)
    return (model.get_submodule(sub.norm)(gain) if sub.norm else gain * sub.multiplier).double()


@torch.no_grad()
def fit(pair: Pair, sub: Sublayer, keep: Tensor, ridge: float) -> dict[str, Tensor]:
    """Fit the output weights of the units that stay to the teacher.

    Parameters
    ----------
    pair
        Teacher and student.
    sub
        The sublayer.
    keep
        (units,): the units that stay.
    ridge
        Pull towards the old values, relative to the mean of the diagonal.

    Returns
    -------
    dict
        Weight, and bias where there is one, by name: min_W |(X_T + Sub_T(X_T)) - X_S - b - A W^T|^2 over real tokens,
        behind the norm and the multiplier of `normal_equations`.
    """
    output = pair.student.get_submodule(sub.output)
    kept = keep.repeat_interleave(sub.columns).nonzero().squeeze(1)
    gram, right, gain = normal_equations(pair, sub, keep)
    old = output.weight[:, kept].T
    if output.bias is None:
        gram, right = gram[:-1, :-1], right[:-1]
    else:
        old = torch.cat([old, output.bias[None]])
    solution = least_squares(gram, right, old.double() * gain, ridge) / gain
    solution = torch.where(gain == 0, old.double(), solution).to(output.weight.dtype)
    weight = output.weight.clone()
    weight[:, kept] = solution[: len(kept)].T
    return {f"{sub.output}.weight": weight} | ({} if output.bias is None else {f"{sub.output}.bias": solution[-1]})


def least_squares(gram: Tensor, right: Tensor, old: Tensor, ridge: float) -> Tensor:
    """Solve min |A W - B|^2 + r |W - old|^2.

    Parameters
    ----------
    gram
        A^T A, (f, f).
    right
        A^T B, (f, o).
    old
        (f, o); directions without data stay as there.
    ridge
        r relative to the mean of the diagonal of gram.

    Returns
    -------
    Tensor
        W, (f, o).
    """
    if not len(gram):
        return old
    pull = max(ridge * float(gram.diagonal().mean()), torch.finfo(gram.dtype).tiny)
    factor = gram.clone()
    factor.diagonal().add_(pull)
    factor = torch.linalg.cholesky(factor)
    return torch.cholesky_solve(right + pull * old, factor)
