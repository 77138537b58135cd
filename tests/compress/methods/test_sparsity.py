"""Single weights: SparseGPT against an exact implementation, N:M patterns, what the pruned layers lose, resuming."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from compress.algorithms import hessian
from compress.algorithms.resume import Progress
from compress.algorithms.sparsity import Sparsity, lowest, sparsity_for
from compress.calibration.texts import batches, cut
from compress.methods import magnitude, sparsegpt, wanda
from compress.model import architectures, structure
from compress.model.walk import drop_padding, inputs
from tests.conftest import compressed


def layer(outs=7, features=40, tokens=200, seed=0):
    """Weights (outs, features) and correlated states (tokens, features), float64, one feature dead."""
    g = torch.Generator().manual_seed(seed)
    mixing = torch.randn(features, features, generator=g, dtype=torch.float64)
    states = torch.randn(tokens, features, generator=g, dtype=torch.float64) @ mixing
    states[:, 3] = 0
    return torch.randn(outs, features, generator=g, dtype=torch.float64), states


def damped(states, damping=0.01):
    """The Hessian with its damping."""
    gram = states.T @ states
    return gram + damping * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)


def exact_obs(weight, gram, mask):
    """Optimal brain surgeon for a fixed mask: remove weight after weight, and every column from the inverse."""
    weight, inverse = weight.clone(), torch.linalg.inv(gram)
    for j in range(weight.shape[1]):
        for out in range(len(weight)):
            if mask[out, j]:
                weight[out, j:] -= weight[out, j] / inverse[j, j] * inverse[j, j:]
        inverse = inverse - inverse[:, j : j + 1] @ inverse[j : j + 1] / inverse[j, j]
    return weight


@pytest.mark.parametrize("block", [1, 8, 24, 64])
@pytest.mark.parametrize("sparsity", [Sparsity(0.5), Sparsity(0.7), Sparsity(0.5, 4), Sparsity(0.75, 8)])
def test_sweep_against_exact_obs(sparsity, block):
    weight, states = layer()
    factor = hessian.inverse_factor(states.T @ states, 0.01)
    found = sparsegpt.prune([weight[:3], weight[3:]], factor, sparsity, block)
    alone = sparsegpt.prune([weight[:3]], factor, sparsity, block)[0]
    torch.testing.assert_close(found[0], alone)  # layers do not meet
    found = torch.cat(found)
    expected = exact_obs(weight, damped(states), found == 0)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    sparsity.require(found)


def test_the_first_block_drops_what_costs_least():
    """Scores by the inverse Hessian left when the columns before are gone, in a block, and anew in every group."""
    weight, states = layer()
    factor = hessian.inverse_factor(states.T @ states, 0.01)
    costs, inverse = [], torch.linalg.inv(damped(states))
    for j in range(16):
        costs.append(weight[:, j] ** 2 / inverse[j, j])
        inverse = inverse - inverse[:, j : j + 1] @ inverse[j : j + 1] / inverse[j, j]
    costs = torch.stack(costs, 1)
    pruned = sparsegpt.prune([weight], factor, Sparsity(0.5), 16)[0][:, :16]
    assert torch.equal(pruned == 0, costs <= costs.flatten().kthvalue(7 * 8).values)
    pruned = sparsegpt.prune([weight], factor, Sparsity(0.5, 4), 16)[0][:, :4]
    assert torch.equal(pruned == 0, costs[:, :4].argsort(1).argsort(1) < 2)


def test_moments_and_their_factor_are_those_of_whole_matrices():
    """Wider than a tile, by numpy's product and inverse in float64; the factor also in float32."""
    states = torch.randn(900, 450, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    states[:, :40] += 3 * states[:, 40:80]
    exact = states.float().double().numpy().T @ states.float().double().numpy()
    found = hessian.gram(states.float())
    assert found.dtype == torch.float64 and torch.equal(found, found.T)
    torch.testing.assert_close(found, torch.from_numpy(exact), rtol=1e-5, atol=1e-2)
    inverse = np.linalg.inv(exact + 0.01 * exact.diagonal().mean() * np.eye(450))
    for dtype, close in ((None, 1e-9), (torch.float32, 1e-4)):
        factor = hessian.inverse_factor(torch.from_numpy(exact), 0.01, dtype).double()
        assert torch.equal(factor, factor.triu())
        torch.testing.assert_close((factor.T @ factor).numpy(), inverse, rtol=close, atol=close * inverse.max())


def test_inverse_factor_with_dead_features_and_without_data():
    _, states = layer(tokens=20)  # fewer tokens than features
    factor = hessian.inverse_factor(states.T @ states, 0.01)
    assert torch.equal(factor, factor.triu())
    torch.testing.assert_close(factor.T @ factor, torch.linalg.inv(damped(states)))
    torch.testing.assert_close(hessian.inverse_factor(torch.zeros(3, 3).double(), 0.01), torch.eye(3).double())


def test_moments_of_a_block_against_float64(decoder, calibration):
    """Every linear layer once, those of one input together, padding left out, the blocks before already changed."""
    model, path = structure.shallow_copy(decoder[0]), architectures.blocks_path(decoder[0])
    walk = hessian.blocks(model, calibration, hessian.gram, "test")
    next(walk)
    for name, linear in structure.block_linears(model, 0):
        structure.set_parameter(model, f"{name}.weight", 0.5 * linear.weight.detach())
    shared = next(walk)
    found = {p.removeprefix(f"{path}.1."): moment for paths, moment in shared for p in paths}
    assert sorted(len(paths) for paths, _ in shared) == [1, 1, 2, 3] and len(found) == 7
    for name, moment in found.items():
        expected = torch.zeros_like(moment)
        for batch in calibration:
            with torch.no_grad(), inputs(model, [f"{path}.1.{name}"]) as seen:
                model(**batch)
            states = drop_padding(batch, *seen.values()).double()
            expected += states.T @ states
        torch.testing.assert_close(moment, expected, rtol=1e-4, atol=1e-4 * float(expected.diagonal().mean()))


@pytest.mark.parametrize("pattern", ["2:4", "1:2", "5:8", "1:16"])
@pytest.mark.parametrize("method", [sparsegpt, wanda, magnitude])
def test_n_of_every_m_stay(method, pattern, decoder, calibration):
    options = {"unit": "weights"} if method is magnitude else {}
    small = compressed(method, decoder[0], calibration, pattern=pattern, **options)
    keep, group = map(int, pattern.split(":"))
    for block in range(decoder[0].config.num_hidden_layers):
        for _, linear in structure.block_linears(small, block):
            assert ((linear.weight != 0).view(-1, group).sum(1) == keep).all()
    assert torch.equal(small.lm_head.weight, decoder[0].lm_head.weight)


def test_the_better_the_statistics_the_smaller_the_error(two_blocks, tokenizer, texts):
    """Squared error of what the first block's layers give, and of the logits, on real text."""
    data = batches(tokenizer, cut(tokenizer, texts, 6000, 128, seed=0))
    model = two_blocks
    shared = next(hessian.blocks(structure.shallow_copy(model), data, hessian.gram, "test"))
    with torch.no_grad():
        wanted_logits = model(**data[0]).logits
    for options in ({"ratio": 0.5}, {"pattern": "2:4"}):
        small = {
            "sparsegpt": compressed(sparsegpt, model, data, **options),
            "wanda": compressed(wanda, model, data, **options),
            "magnitude": compressed(magnitude, model, data, unit="weights", **options),
        }

        totals = dict.fromkeys(small, 0.0)
        for paths, gram in shared:
            for path in paths:
                before, errors = model.get_submodule(path).weight.detach().double(), {}
                for name, net in small.items():
                    change = net.get_submodule(path).weight.detach().double() - before
                    errors[name] = float(((change @ gram) * change).sum())
                    totals[name] += errors[name]
                assert errors["sparsegpt"] < 0.8 * min(errors["wanda"], errors["magnitude"]), path
        assert list(totals.values()) == sorted(totals.values())
        with torch.no_grad():
            errors = [float((net(**data[0]).logits - wanted_logits).square().mean()) for net in small.values()]
        assert errors == sorted(errors) and errors[0] < 0.8 * errors[1]


@pytest.mark.parametrize("method", [sparsegpt, wanda])
def test_bfloat16_stays(method, decoder, calibration):
    small = compressed(method, copy.deepcopy(decoder[0]).bfloat16(), calibration, pattern="2:4")
    for block in range(small.config.num_hidden_layers):
        for _, linear in structure.block_linears(small, block):
            assert linear.weight.dtype == torch.bfloat16
            assert ((linear.weight == 0).view(-1, 4).sum(1) == 2).all()


@pytest.mark.parametrize("method", [sparsegpt, wanda])
def test_a_killed_run_goes_on_where_it_stood(method, decoder, calibration, tmp_path, monkeypatch):
    once = compressed(method, decoder[0], calibration, ratio=0.5)
    keep = Progress.keep

    def killed(self, step, model, blocks):
        keep(self, step, model, blocks)
        if step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "keep", killed)
    with pytest.raises(KeyboardInterrupt):
        compressed(method, decoder[0], calibration, ratio=0.5, progress=Progress(tmp_path / "p"))
    monkeypatch.undo()
    for _ in range(2):  # the second time every block is finished
        again = compressed(method, decoder[0], calibration, ratio=0.5, progress=Progress(tmp_path / "p"))
        assert all(torch.equal(v, once.state_dict()[k]) for k, v in again.state_dict().items())


@pytest.mark.parametrize(
    "options, message",
    [
        ({"pattern": "2-4"}, "pattern '2-4' is not understood: give N:M"),
        ({"pattern": "5:4"}, "not understood"),
        ({"pattern": "0:4"}, "not understood"),
        ({"pattern": "2:4", "ratio": 0.5}, "ratio and pattern are both given"),
        ({"pattern": "3:7"}, r"192 inputs are no multiple of 7; .* the inputs of every layer is 8"),
        ({"ratio": 1.0}, "0 <= ratio < 1"),
    ],
)
def test_bad_requests(options, message, decoder, calibration):
    for method in (sparsegpt, wanda):
        with pytest.raises(ValueError, match=message):
            compressed(method, decoder[0], calibration, **options)
    with pytest.raises(ValueError, match=message):
        compressed(magnitude, decoder[0], calibration, unit="weights", **options)


@pytest.mark.parametrize("options", [{"block": 0}, {"damping": 0.0}, {"damping": -1.0}])
def test_sparsegpt_options_out_of_range(options, decoder, calibration):
    with pytest.raises(ValueError, match="must be at least 1 and damping"):
        compressed(sparsegpt, decoder[0], calibration, **options)


def test_a_pattern_of_heads_is_refused(decoder, calibration):
    with pytest.raises(ValueError, match="give unit=weights"):
        compressed(magnitude, decoder[0], calibration, pattern="2:4")


def test_a_miss_is_an_error():
    weight = torch.ones(2, 8)
    weight[:, :4] = 0
    Sparsity(0.5).require(weight)
    with pytest.raises(RuntimeError, match="0.0000 reached, 0.5000 requested"):
        Sparsity(0.5, 4).require(weight)
    with pytest.raises(RuntimeError, match="0.5000 reached, 0.7500 requested"):
        Sparsity(0.75).require(weight)
    Sparsity(0.5).require(nn.Linear(0, 3).weight)


def test_exact_counts(encoder, calibration):
    small = compressed(sparsegpt, encoder, calibration, ratio=0.37, block=10)
    for block in range(encoder.config.num_hidden_layers):
        for _, linear in structure.block_linears(small, block):
            assert int((linear.weight == 0).sum()) == round(0.37 * linear.weight.numel())
    assert sparsity_for(encoder, None, None) == Sparsity(0.5)
    assert lowest(torch.zeros(2, 5), 3).sum(1).tolist() == [3, 3]  # ties
