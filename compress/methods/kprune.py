"""K-prune: retraining-free removal of attention heads and neurons that preserves the teacher's knowledge.

Park, Choi, Kang, "Accurate Retraining-free Pruning for Pretrained Encoder-based Language Models", ICLR 2024,
arXiv 2308.03449. Sublayer by sublayer, bottom to top: measure the knowledge in every remaining unit on the partly
pruned student, search the mask of this sublayer and all above it against the remaining FLOPs, commit this sublayer
alone, and fit its output weights to the teacher by least squares. Needs no labels.

Two deviations, both measured (benchmarks/compress_quality.py): a head has one mask, not one a dimension; and the
predictive knowledge is the curvature of the divergence, not its squared gradient, which is zero as long as the
student still is the teacher and mostly noise while it is close. knowledge=gradient is the paper's.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.structure import Sublayer, check_ratio, flops, remove, require_flops, select, sublayers
from compress.walk import Batch, inputs, mean_length, real, run, track


@dataclass
class _Pair:
    """Teacher and student at the entrance of one block, and what enters it, one tensor a batch; last: what enters the
    last block of the teacher, where knowledge=gradient needs it."""

    teacher: nn.Module
    student: nn.Module
    batches: Sequence[Batch]
    teacher_in: list[Tensor]
    student_in: list[Tensor]
    last: list[Tensor | None]

    @torch.no_grad()
    def advance(self, block: int, to: int) -> None:
        """Move from the entrance of `block` to that of `to`."""
        self.teacher_in = [run(self.teacher, b, block, to, h) for b, h in zip(self.batches, self.teacher_in)]
        self.student_in = [run(self.student, b, block, to, h) for b, h in zip(self.batches, self.student_in)]


def compress(
    model: nn.Module,
    batches: Sequence[Batch],
    *,
    ratio: float = 0.5,
    knowledge: Literal["curvature", "gradient"] = "curvature",
    temperature: float = 2.0,
    predictive: float = 1.0,
    representational: float = 2.5e-4,
    ridge: float = 1e-6,
    seed: int = 0,
    in_place: bool = False,
) -> nn.Module:
    """Remove the share `ratio` of the FLOPs of all heads and neurons.

    knowledge: how the predictive kind is measured; temperature: its gamma; predictive, representational: weights of
    the two kinds; ridge: pull of the tuned weights towards the old ones, relative to the mean squared feature; seed:
    of the labels that curvature draws. Raises ValueError for a ratio outside [0, 1) or an unknown knowledge, and
    RuntimeError when the FLOPs reached miss the request.
    """
    check_ratio(ratio)
    if knowledge not in ("curvature", "gradient"):
        raise ValueError(f"knowledge '{knowledge}' is unknown: give curvature or gradient")
    if temperature <= 0 or min(predictive, representational, ridge) < 0:
        raise ValueError("temperature must be above 0; predictive, representational and ridge at least 0")
    student = model if in_place else copy.deepcopy(model)
    if ratio == 0:
        return student
    teacher = copy.deepcopy(model) if in_place else model
    tokens = mean_length(batches)
    dense = flops(model, tokens)
    budget = (1 - ratio) * dense
    with torch.no_grad():
        first = [run(teacher, b, stop=0) for b in batches]
        end = model.config.num_hidden_layers - 1
        last = [run(teacher, b, stop=end) if knowledge == "gradient" else None for b in batches]
    pair = _Pair(teacher, student, batches, first, first, last)
    generator = torch.Generator().manual_seed(seed) if knowledge == "curvature" else None
    found, changed = sublayers(student), False
    for index, sub in enumerate(track(found, "K-prune")):
        if index and sub.block != found[index - 1].block:
            pair.advance(found[index - 1].block, sub.block)
        costs = [s.unit_flops(tokens) for s in found[index:]]
        measured = _knowledge(pair, found[index:], temperature, generator)
        scores = [(predictive * p + representational * r) / c for (p, r), c in zip(measured, costs)]
        keep = select(scores, costs, budget)[0]
        changed = changed or not bool(keep.all())
        if changed:
            _tune(pair, sub, keep, ridge)
        remove(student, sub, keep)
        budget -= int(keep.sum()) * costs[0]
    require_flops(flops(student, tokens), dense, max(s.unit_flops(tokens) for s in found), ratio)
    return student


def _knowledge(
    pair: _Pair, remaining: Sequence[Sublayer], temperature: float, generator: torch.Generator | None
) -> list[tuple[Tensor, Tensor]]:
    """(predictive, representational) knowledge, each (units,), of every remaining sublayer.

    K_pred = mean over samples of 1/2 (dQ/dm)^2, m the mask of a unit on the input of its output projection; Q is the
    divergence from the teacher, or with a generator the probe of its curvature. K_rep = mean over real tokens of a^2,
    times the mean squared weight behind it, summed over the dimensions of a head.
    """
    outputs = [pair.student.get_submodule(s.output) for s in remaining]
    predictive = [torch.zeros(s.units, dtype=torch.float64) for s in remaining]
    squares = [torch.zeros(p.in_features, dtype=torch.float64) for p in outputs]
    samples = sum(len(b["input_ids"]) for b in pair.batches)
    tokens = sum(int(b["attention_mask"].sum()) for b in pair.batches)
    for batch, hidden, last in zip(pair.batches, pair.student_in, pair.last):
        masks = [torch.ones(len(batch["input_ids"]), s.units, requires_grad=True) for s in remaining]
        with _masked(remaining, outputs, masks) as entered:
            logits = run(pair.student, batch, remaining[0].block, hidden=hidden)
        if generator is None:
            with torch.no_grad():
                target = run(pair.teacher, batch, pair.student.config.num_hidden_layers - 1, hidden=last)
            loss = divergence(logits, target, batch["attention_mask"], temperature)
        else:
            loss = curvature_probe(logits, batch["attention_mask"], temperature, generator)
        for total, gradient in zip(predictive, torch.autograd.grad(loss.sum(), masks)):
            total += 0.5 * gradient.double().square().sum(0)
        for total, features in zip(squares, entered):
            total += real(batch, features.detach()).double().square().sum(0)
    found = []
    for sub, projection, pred, square in zip(remaining, outputs, predictive, squares):
        rep = square / tokens * projection.weight.detach().double().square().mean(0)
        found.append((pred / samples, rep.view(sub.units, -1).sum(1)))
    return found


def divergence(student: Tensor, teacher: Tensor, attention_mask: Tensor, temperature: float) -> Tensor:
    """gamma^2 KL(softmax(z_S / gamma) | softmax(z_T / gamma)) of every sample, (batch,).

    Logits are (batch, classes), or (batch, tokens, classes) and then the mean over real tokens; a single output is a
    regression and its distance the squared difference.
    """
    if student.shape[-1] == 1:
        each = (student - teacher).square().squeeze(-1)
    else:
        p, q = (F.log_softmax(z / temperature, -1) for z in (student, teacher))
        each = temperature**2 * F.kl_div(q, p, reduction="none", log_target=True).sum(-1)
    if each.dim() == 1:
        return each
    weights = attention_mask.to(each.dtype)
    return (each * weights).sum(1) / weights.sum(1)


def curvature_probe(logits: Tensor, attention_mask: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """(batch,) values whose squared gradients are, on average, the second derivatives of `divergence` at zero.

    gamma times the log-probability of a label that the model itself draws (Fisher information); of one label a token,
    independently, over the root of their number. Shapes as in `divergence`.
    """
    if logits.shape[-1] == 1:
        return 2**0.5 * logits.flatten()
    logs = F.log_softmax(logits / temperature, -1)
    flat = logs.detach().flatten(0, -2).exp()
    drawn = torch.multinomial(flat, 1, generator=generator).view(*logs.shape[:-1], 1)
    each = temperature * logs.gather(-1, drawn).squeeze(-1)
    if each.dim() == 1:
        return each
    weights = attention_mask.to(each.dtype)
    return (each * weights).sum(1) / weights.sum(1).sqrt()


@contextmanager
def _masked(
    remaining: Sequence[Sublayer], outputs: Sequence[nn.Linear], masks: Sequence[Tensor]
) -> Iterator[list[Tensor]]:
    """Multiply what enters every projection by the mask (batch, units) of its units; gives what enters, in order."""
    entered: list[Tensor] = []

    def hook(columns: int, mask: Tensor):
        def multiply(module, args):
            entered.append(args[0])
            return args[0] * mask.repeat_interleave(columns, dim=1)[:, None]

        return multiply

    handles = [p.register_forward_pre_hook(hook(s.columns, m)) for s, p, m in zip(remaining, outputs, masks)]
    try:
        yield entered
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def _tune(pair: _Pair, sub: Sublayer, keep: Tensor, ridge: float) -> None:
    """Fit the output weights of the kept units to the teacher, in place.

    min_W |(X_T + Sub_T(X_T)) - X_S - b - A W^T|^2 over real tokens: the teacher's output with its residual, the
    student's residual X_S, the features A (tokens, kept). The bias b, where there is one, is fitted along. Normal
    equations and Cholesky in float64.
    """
    output, original = pair.student.get_submodule(sub.output), pair.teacher.get_submodule(sub.output)
    kept = keep.repeat_interleave(sub.columns).nonzero().squeeze(1)
    fit_bias = output.bias is not None
    size = len(kept) + fit_bias
    gram = torch.zeros(size, size, dtype=torch.float64)
    right = torch.zeros(size, sub.width, dtype=torch.float64)
    for batch, teacher_in, student_in in zip(pair.batches, pair.teacher_in, pair.student_in):
        with inputs(pair.teacher, [sub.entry, sub.output]) as t, inputs(pair.student, [sub.entry, sub.output]) as s:
            run(pair.teacher, batch, sub.block, sub.block + 1, teacher_in)
            run(pair.student, batch, sub.block, sub.block + 1, student_in)
        wanted = real(batch, t[sub.entry] + original(t[sub.output]) - s[sub.entry]).double()
        features = real(batch, s[sub.output])[:, kept].double()
        if fit_bias:
            features = F.pad(features, (0, 1), value=1.0)
        gram += features.T @ features
        right += features.T @ wanted
    solution = least_squares(gram, right, _stacked(output, kept), ridge)
    output.weight[:, kept] = solution[: len(kept)].T.to(output.weight.dtype)
    if fit_bias:
        output.bias.copy_(solution[-1])


def least_squares(gram: Tensor, right: Tensor, old: Tensor, ridge: float) -> Tensor:
    """Solve min |A W - B|^2 + r |W - old|^2 from gram = A^T A (f, f) and right = A^T B (f, o); r = ridge * mean(diag).

    The pull goes to the old weights, so that directions without data stay as they were.
    """
    if not len(gram):
        return old
    pull = max(ridge * float(gram.diagonal().mean()), torch.finfo(gram.dtype).tiny)
    factor = torch.linalg.cholesky(gram + pull * torch.eye(len(gram), dtype=gram.dtype))
    return torch.cholesky_solve(right + pull * old, factor)


def _stacked(output: nn.Linear, kept: Tensor) -> Tensor:
    """The old weights of the kept columns, with the bias as last row, (kept + bias, width) float64."""
    weight = output.weight[:, kept].T
    return (weight if output.bias is None else torch.cat([weight, output.bias[None]])).double()
