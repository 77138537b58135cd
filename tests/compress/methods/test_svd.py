"""Low rank against its definitions, and the budget that chooses ranks."""

import copy
import itertools

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2ForSequenceClassification

from compress.algorithms.bit_allocation import allocate
from compress.algorithms.fisher import curvature_probe, fisher
from compress.calibration.texts import batches, cut
from compress.methods import round_to_nearest, svd
from compress.model import io, modeling
from compress.model.layers import LowRankLinear
from compress.model.structure import block_linears
from tests.conftest import compressed
from transmeter.util.checkpoint import bytes_of


def linears(model):
    """Path and linear layer of all blocks."""
    return [pair for block in range(model.config.num_hidden_layers) for pair in block_linears(model, block)]


@pytest.mark.parametrize("tied", [False, True])
def test_squared_gradients_block_by_block_are_those_of_one_backward(tied, two_blocks, calibration):
    model, batch = copy.deepcopy(two_blocks), calibration[0]
    paths = [path for path, _ in linears(model)]
    if tied:  # as compress.methods.share leaves them
        for path in paths[len(paths) // 2 :]:
            model.get_submodule(path).weight = model.get_submodule(path.replace("layers.1", "layers.0")).weight
    found = fisher(model, [batch], 3, lambda squares: squares)
    mask = batch["attention_mask"]
    logits = model.requires_grad_(True)(**batch).logits
    values = curvature_probe(logits, mask.to(logits.dtype), 1.0, torch.Generator().manual_seed(3))
    values.sum().backward()
    assert set(found) == set(paths)
    for path in paths:
        expected = model.get_submodule(path).weight.grad.double().square()
        torch.testing.assert_close(found[path], expected, rtol=1e-3, atol=1e-5 * float(expected.max()))


def test_the_factors_against_the_papers_formula():
    """W' = U_r S_r V_r^T L^-1 (arXiv 2403.07378), whose lost output energy is that of the dropped singular values."""
    linear, x = nn.Linear(12, 20), torch.randn(40, 12, dtype=torch.float64)
    new = svd.factorised(linear, x.T @ x, 5)
    weight, root = linear.weight.double(), torch.linalg.cholesky(x.T @ x)
    u, s, v = torch.linalg.svd(weight @ root, full_matrices=False)
    expected = u[:, :5] * s[:5] @ v[:5] @ torch.linalg.inv(root)
    product = new.up.weight.double() @ new.down.weight.double()
    torch.testing.assert_close(product, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close((x @ (weight - product).T).square().sum(), s[5:].square().sum(), rtol=1e-4, atol=0.0)
    assert new.up.bias is linear.bias
    scale = torch.rand(12, dtype=torch.float64) + 0.1  # the diagonal kinds: (W S)_r S^-1
    u, s, v = torch.linalg.svd(weight * scale, full_matrices=False)
    new = svd.factorised(linear, scale.square(), 3)
    expected = u[:, :3] * s[:3] @ v[:3] / scale
    torch.testing.assert_close(new.up.weight.double() @ new.down.weight.double(), expected, rtol=1e-5, atol=1e-6)


def test_allocation_against_every_combination():
    """Never over the budget, and no worse than the best of all by more than one step of a layer."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        drawn = torch.rand(4, 5, 2, generator=generator)
        choices = [[(float(c), float(v)) for c, v in layer] for layer in drawn]
        least = sum(min(layer)[0] for layer in choices)
        allowed = least + float(torch.rand((), generator=generator))
        taken = allocate(choices, allowed)
        assert sum(c[i][0] for c, i in zip(choices, taken)) <= allowed * (1 + 1e-9)
        found = sum(c[i][1] for c, i in zip(choices, taken))
        fit = (m for m in itertools.product(*choices) if sum(c for c, _ in m) <= allowed)
        best = min(sum(v for _, v in m) for m in fit)
        assert found <= best + max(max(v for _, v in layer) for layer in choices)
        with pytest.raises(ValueError, match="cheapest"):
            allocate(choices, least * 0.9)
    convex = [[(c, 2.0**-c * k) for c in range(6)] for k in (1, 3)]
    assert sum(allocate(convex, 5)) == 5 and allocate(convex, 100) == [5, 5]


@pytest.mark.parametrize("kind", ["plain", "activation", "whitened", "fisher"])
def test_every_kind_reaches_its_ratio_with_its_multiple(kind, decoder, calibration):
    small = compressed(svd, decoder[0], calibration, ratio=0.4, kind=kind, multiple=8)

    def size(model):
        return sum(m.weight.numel() for _, m in linears(model))

    assert 0.4 <= 1 - size(small) / size(decoder[0]) <= 0.41
    ranks = [m.spec()["rank"] for m in small.modules() if isinstance(m, LowRankLinear)]
    assert all(r % 8 == 0 for r in ranks) and len(set(ranks)) > 1
    assert all(r < 192 * 192 / 384 or r < 192 * 512 / 704 for r in ranks)


def test_whitened_beats_plain(decoder, calibration):
    """At every ratio the output stays nearer to the dense model's."""
    batch = calibration[0]
    with torch.no_grad():
        dense = decoder[0](**batch).logits.log_softmax(-1)
        for ratio in (0.2, 0.4, 0.6):
            distances = {}
            for kind in ("plain", "whitened"):
                logits = compressed(svd, decoder[0], calibration, ratio=ratio, kind=kind)(**batch).logits.log_softmax(
                    -1
                )
                distances[kind] = float((dense.exp() * (dense - logits)).sum(-1).mean())
            assert distances["whitened"] < distances["plain"], ratio


def test_order_and_padding_do_not_matter(encoder, tokenizer, texts, monkeypatch):
    """Apart from the labels drawn, which ranks hang on."""
    monkeypatch.setattr(svd, "fisher", lambda model, *_: {p: torch.ones(m.in_features) for p, m in linears(model)})
    sequences = cut(tokenizer, texts, 400, 40, seed=0)
    one, other = batches(tokenizer, sequences, size=16), batches(tokenizer, sequences, size=3)[::-1]
    for kind in ("activation", "whitened"):
        with torch.no_grad():
            a, b = (compressed(svd, encoder, data, ratio=0.5, kind=kind)(**one[0]).logits for data in (one, other))
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("recovery", ["full", "lora"])
def test_recovery_lowers_the_distance_and_leaves_the_dense_model(recovery, decoder, calibration):
    batch, before = calibration[0], decoder[0].model.layers[0].mlp.up_proj.weight.clone()
    with torch.no_grad():
        dense = decoder[0](**batch).logits.log_softmax(-1)

        def distance(steps):
            options = {"ratio": 0.6, "recovery": recovery, "steps": steps, "rows": 4, "rate": 3e-4}
            small = compressed(svd, decoder[0], calibration, **options)
            assert not any("lora" in name for name, _ in small.named_parameters())
            with torch.no_grad():
                return float((dense.exp() * (dense - small(**batch).logits.log_softmax(-1))).sum(-1).mean())

    assert distance(20) < 0.9 * distance(0)
    assert torch.equal(before, decoder[0].model.layers[0].mlp.up_proj.weight)


def test_low_rank_is_quantized_and_saved(decoder, calibration, tmp_path):
    small = compressed(svd, decoder[0], calibration, ratio=0.4, multiple=16)
    packed = compressed(round_to_nearest, small, [], group=16)
    io.save(packed, decoder[1], tmp_path / "m", {})
    with torch.no_grad():
        a, b = (m(**calibration[0]).logits for m in (io.load(tmp_path / "m")[0], packed))
    torch.testing.assert_close(a, b, rtol=1e-2, atol=2e-2)  # norms and embeddings in half precision
    with pytest.raises(ValueError, match="already"):
        compressed(svd, packed, calibration)


def test_side_by_side_projections_are_factorised(tokenizer, calibration, tmp_path):
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=4, n_positions=64, pad_token_id=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GPT2ForSequenceClassification(config).eval()
    modeling.linearise(model)
    small = compressed(svd, model, calibration, ratio=0.5)
    io.save(small, tokenizer, tmp_path / "m", {})  # compares the logits of the reloaded model
    assert bytes_of(tmp_path / "m") > 0


@pytest.mark.parametrize(
    "options, message",
    [
        ({"kind": "random"}, "give one of 'plain'"),
        ({"recovery": "some"}, "give one of 'none', 'full', 'lora'"),
        ({"ratio": 0.99}, "give at most 0.9"),
        ({"multiple": 64}, "give at most 0.000"),
        ({"damping": 0.0}, "above 0"),
        ({"multiple": 0}, "1 or more"),
    ],
)
def test_options_out_of_range_are_refused(options, message, encoder, calibration):
    with pytest.raises(ValueError, match=message):
        compressed(svd, encoder, calibration, **options)
