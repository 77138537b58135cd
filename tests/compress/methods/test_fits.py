"""Least-squares fits where a norm or a multiplier stands between a sublayer and the residual stream."""

from dataclasses import replace

import pytest
import torch

from compress.algorithms.least_squares import Pair, fit
from compress.methods import kwon
from compress.model import structure, walk
from tests.compress.methods.test_architectures import batches, build

every_gain = pytest.mark.parametrize("kind", ["granite", "gemma2", "gemma3_text", "olmo2", "gpt_neox"])
every_sublayer = pytest.mark.parametrize("index", [2, 3])


def pair(kind, index):
    """A teacher and a student that has lost units below a sublayer, both in float64, that sublayer, and its units."""
    teacher = build(kind).double()
    student = structure.shallow_copy(teacher)
    below, sub = structure.sublayers(teacher)[0], structure.sublayers(teacher)[index]
    structure.remove(student, below, torch.arange(below.units) < 1)
    found = Pair(teacher, student, batches())
    found.advance(sub.block)
    return found, sub, torch.arange(sub.units) % 2 == 0


def inputs(found, sub):
    """What enters the sublayer and its output projection in the teacher, and in the student, of real tokens."""
    states = []
    for model, hidden in ((found.teacher, found.teacher_in), (found.student, found.student_in)):
        each = []
        for batch, entered in zip(found.batches, hidden):
            with torch.no_grad(), walk.inputs(model, [sub.entry, sub.output]) as seen:
                walk.run(model, batch, sub.block, sub.block + 1, entered)
            each.append([walk.drop_padding(batch, seen[path]) for path in (sub.entry, sub.output)])
        states += [torch.cat(parts) for parts in zip(*each)]
    return states


def beside(found, sub):
    """What the attention of the block adds in the teacher, and in the student, of real tokens."""
    attention = next(s for s in structure.sublayers(found.student) if s.block == sub.block)
    states = inputs(found, replace(sub, output=attention.output))
    outputs = (model.get_submodule(attention.output) for model in (found.teacher, found.student))
    return [output(entered) for output, entered in zip(outputs, states[1::2])]


def after(model, sub, given):
    """What is added to the residual stream, by the definition of the norm, and its factors 1 / r and g."""
    if not sub.norm:
        return given * sub.multiplier, torch.ones(len(given), 1), torch.full((sub.width,), sub.multiplier)
    norm = model.get_submodule(sub.norm)
    gain = norm.weight.detach() + (1 if "Gemma" in type(norm).__name__ else 0)
    eps = getattr(norm, "eps", None) or norm.variance_epsilon
    inverse = (given.square().mean(-1, keepdim=True) + eps).rsqrt()
    return given * inverse * gain, inverse, gain


@every_gain
@every_sublayer
@torch.no_grad()
def test_a_fit_is_that_of_weighted_least_squares(kind, index):
    """Against numpy's solver, feature by feature."""
    found, sub, keep = pair(kind, index)
    stream, entered, other, features = inputs(found, sub)
    if sub.parallel:
        stream, other = (x + y for x, y in zip((stream, other), beside(found, sub)))
    added, inverse, gain = after(found.teacher, sub, found.teacher.get_submodule(sub.output)(entered))
    features = features[:, keep.repeat_interleave(sub.columns)]
    if found.student.get_submodule(sub.output).bias is not None:
        features = torch.cat([features, torch.ones(len(features), 1)], 1)
    a, b = features * inverse, (stream + added - other) / gain
    expected = torch.linalg.lstsq(a, b, driver="gelsd").solution.T
    weight, *bias = fit(found, sub, keep, 1e-12).values()
    solved = torch.cat([weight[:, keep.repeat_interleave(sub.columns)], *(x[:, None] for x in bias)], 1)
    torch.testing.assert_close(a @ solved.T, a @ expected.T, rtol=1e-4, atol=1e-6)


@every_gain
@every_sublayer
@torch.no_grad()
def test_a_fit_brings_the_residual_stream_nearer(kind, index):
    found, sub, keep = pair(kind, index)
    stream, entered, other, features = inputs(found, sub)
    if sub.parallel:
        stream, other = (x + y for x, y in zip((stream, other), beside(found, sub)))
    output, columns = found.student.get_submodule(sub.output), keep.repeat_interleave(sub.columns)
    wanted = stream + after(found.teacher, sub, output(entered))[0]

    def error(weight, bias):
        given = features[:, columns] @ weight[:, columns].T + (0 if bias is None else bias)
        return float((other + after(found.student, sub, given)[0] - wanted).square().mean())

    weight, *bias = fit(found, sub, keep, 1e-6).values()
    assert error(weight, *(bias or [None])) < 0.8 * error(output.weight, output.bias)


@every_gain
@torch.no_grad()
def test_what_lost_nothing_is_fitted_to_itself(kind):
    found, sub, _ = pair(kind, 3)
    same = Pair(found.teacher, found.teacher, found.batches)
    same.advance(sub.block)
    everything = torch.ones(sub.units, dtype=torch.bool)
    weight = found.teacher.get_submodule(sub.output).weight
    torch.testing.assert_close(fit(same, sub, everything, 1e-6)[f"{sub.output}.weight"], weight)
    values = kwon.tuned(same, sub, everything, 1e-6)
    torch.testing.assert_close(values, torch.ones_like(values))
