"""Sharing across depth: the merge against its definition, ties in memory, and recovery."""

import copy
import warnings

import pytest
import torch

from compress.algorithms import training
from compress.algorithms.resume import Progress
from compress.methods import magnitude, share
from compress.model import architectures
from compress.model.walk import drop_padding, inputs, run
from compress.pipeline import Step, apply
from tests.conftest import compressed

both_models = pytest.mark.parametrize("kind", ["encoder", "decoder"])


@pytest.fixture
def model(request, kind):
    """A BERT with three classes or the real Llama."""
    found = request.getfixturevalue(kind)
    return found if kind == "encoder" else found[0]


def blocks(model):
    """The transformer blocks."""
    return model.get_submodule(architectures.blocks_path(model))


def groups(model):
    """Which blocks hold the very same parameters, as lists of their numbers."""
    found = {}
    for i, block in enumerate(blocks(model)):
        found.setdefault(tuple(id(p) for p in block.parameters()), []).append(i)
    return list(found.values())


def equal(a, b):
    """Whether all weights are the same."""
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@torch.no_grad()
def apart(student, teacher, data):
    """Mean divergence of the logits over all batches."""
    return sum(float(training.distance(student, teacher, b)) for b in data) / len(data)


@both_models
def test_runs_of_neighbours_hold_the_same_parameters_and_recover(kind, model, calibration):
    calibration = calibration[:3]
    before, state = copy.deepcopy(model), torch.get_rng_state()
    merged = compressed(share, model, calibration, steps=0)
    found = compressed(share, model, calibration, steps=8)
    expected = [[0, 1]] if kind == "encoder" else [[0, 1], [2, 3], [4, 5]]
    assert groups(merged) == groups(found) == expected
    if kind == "decoder":  # the random encoder hardly differs
        assert apart(found, model, calibration) < 0.95 * apart(merged, model, calibration)
    assert equal(model, before) and torch.equal(torch.get_rng_state(), state)
    shared = {id(p) for p in found.parameters()} & {id(p) for p in model.parameters()}
    assert not shared and found.config.num_hidden_layers == model.config.num_hidden_layers
    smaller = sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in found.parameters())
    assert smaller == sum(p.numel() for p in blocks(model).parameters()) // 2
    if kind == "decoder":
        assert found.lm_head.weight is found.model.embed_tokens.weight
        written = found.generate(calibration[0]["input_ids"][:1], max_new_tokens=4, do_sample=False)
        again = found.generate(calibration[0]["input_ids"][:1], max_new_tokens=4, do_sample=False, use_cache=False)
        assert torch.equal(written, again)  # every block has a cache of its own


@pytest.mark.parametrize("number, expected", [(1, [[0, 1, 2, 3, 4, 5]]), (4, [[0], [1, 2], [3], [4, 5]])])
def test_any_number_of_groups(number, expected, decoder, calibration):
    found = compressed(share, decoder[0], calibration[:1], groups=number, merge="mean", steps=0)
    assert groups(found) == expected
    kept = [i for run in expected if len(run) == 1 for i in run]
    assert all(
        torch.equal(p, q) for i in kept for p, q in zip(*(blocks(m)[i].parameters() for m in (found, decoder[0])))
    )


@both_models
def test_as_many_groups_as_blocks_is_the_identity(kind, model, calibration):
    same = compressed(share, model, calibration, groups=model.config.num_hidden_layers)
    assert same is not model and equal(same, model)


def test_the_merged_weights_are_the_least_squares_fit(encoder, calibration, monkeypatch):
    monkeypatch.setattr(share, "RIDGE", 1e-12)
    found = compressed(share, encoder, calibration, steps=0)
    name = "attention.self.query"
    paths = [f"bert.encoder.layer.{i}.{name}" for i in (0, 1)]
    left, right = [], []
    for batch in calibration:
        with torch.no_grad(), inputs(encoder, paths) as seen:
            run(encoder, batch)
        for path in paths:
            x = drop_padding(batch, seen[path]).double()
            left.append(x)
            right.append(x @ encoder.get_submodule(path).weight.double().T)
    expected = torch.linalg.lstsq(torch.cat(left), torch.cat(right)).solution.T
    torch.testing.assert_close(found.get_submodule(paths[0]).weight.double(), expected, rtol=1e-3, atol=1e-3)
    for kind in ("attention.self.query.bias", "output.LayerNorm.weight"):
        mean = sum(block.get_parameter(kind) for block in blocks(encoder)) / 2
        torch.testing.assert_close(blocks(found)[0].get_parameter(kind), mean)


def test_fitting_starts_closer_than_the_mean(decoder, calibration):
    fit, mean = (compressed(share, decoder[0], calibration, groups=5, merge=m, steps=0) for m in ("fit", "mean"))
    assert apart(fit, decoder[0], calibration) < 0.9 * apart(mean, decoder[0], calibration)


def test_a_killed_run_goes_on_to_the_same_result(encoder, calibration, tmp_path, monkeypatch, dying_at):
    monkeypatch.setattr(training, "KEEP_EVERY", 4)

    def go(folder):
        return compressed(share, encoder, calibration, steps=10, progress=Progress(tmp_path / folder))

    undisturbed = go("undisturbed")
    with dying_at(6):
        go("killed")
    resumed = go("killed")
    assert equal(resumed, undisturbed) and groups(resumed) == [[0, 1]]


def test_bad_options_and_models_are_refused(encoder, calibration):
    for options, message in [
        ({"groups": 0}, "groups 0 is out of range: give 1 to 2"),
        ({"groups": 3}, "groups 3 is out of range"),
        ({"merge": "max"}, "merge of share is 'max': give one of 'fit', 'mean'"),
        ({"rate": -1.0}, "rate -1.0"),
    ]:
        with pytest.raises(ValueError, match=message):
            compressed(share, encoder, calibration, **options)
    with pytest.raises(ValueError, match="blocks 0 and 1 differ in their parameters.*: share before pruning"):
        compressed(share, compressed(magnitude, encoder, calibration, ratio=0.3), calibration)
    with pytest.raises(ValueError, match="share cannot train weights of torch.float16"):
        compressed(share, copy.deepcopy(encoder).half(), calibration)


@pytest.mark.parametrize("method", ["round_to_nearest", "gptq", "wanda", "svd", "magnitude"])
def test_a_step_that_takes_blocks_apart_says_so(method, decoder, calibration):
    net, data = decoder[0], calibration[:2]
    shared = apply(net, data, Step("share", {"steps": 0}), in_place=False)
    options = {"unit": "weights", "ratio": 0.5} if method == "magnitude" else {}
    with pytest.warns(UserWarning, match=f"{method} gives .* of its own that other blocks shared: the file holds it"):
        apply(shared, data, Step(method, options), in_place=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", message=".*tokens.*")
        apply(net, data, Step(method, options), in_place=False)
