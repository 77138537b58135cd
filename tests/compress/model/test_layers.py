"""Storage of changed layers against plain arithmetic, and the models that are made of them."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.algorithms import quantization
from compress.algorithms.quantization import Grid
from compress.methods import round_to_nearest
from compress.model import io, layers, modeling, storage
from tests.conftest import compressed
from transmeter.util.checkpoint import bytes_of


@given(st.integers(1, 8), st.integers(0, 70), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_bits_come_back(bits, count, seed):
    codes = torch.randint(0, 2**bits, (count,), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    packed = layers.pack_bits(codes, bits)
    assert len(packed) == -(-count * bits // 8)
    assert torch.equal(layers.unpack_bits(packed, bits, count), codes)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("clip", [True, False])
def test_the_grid_against_its_definition(bits, symmetric, clip):
    """Levels scale * (code - zero), spaced as asked, and no level of the grid nearer than the one taken."""
    weight = torch.randn(6, 24, generator=torch.Generator().manual_seed(0))
    grid = Grid(bits, 8, symmetric)
    scale, zero = grid.fit(weight, torch.float16, torch.ones(24) if clip else None)
    assert torch.equal(scale.half().float(), scale)
    packed = grid.nearest(weight, torch.float16, torch.ones(24) if clip else None)
    middle = torch.full_like(scale, 2 ** (bits - 1)) if zero is None else zero.float()
    levels = scale[..., None] * (torch.arange(2**bits) - middle[..., None])  # (rows, groups, levels)
    away = (weight.view(6, 3, 8, 1) - levels[:, :, None]).abs()
    taken = (packed.unpack().view(6, 3, 8) - weight.view(6, 3, 8)).abs()
    torch.testing.assert_close(taken, away.amin(-1), rtol=0, atol=1e-6)  # of two levels equally near either will do
    if not clip and not symmetric:
        assert away.amin(-1).max() <= scale.max() / 2 * 1.01


def test_a_smaller_range_never_makes_the_error_larger():
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(0)) ** 3
    for bits in (2, 3, 4):
        grid = Grid(bits, 32, False)
        errors = [
            (grid.nearest(weight, torch.float32, i).unpack() - weight).square().sum() for i in (None, torch.ones(64))
        ]
        assert errors[1] < errors[0]


def test_codebook_stands_for_its_values():
    codes = torch.randint(0, 8, (6, 5), dtype=torch.uint8)
    values = torch.randn(3, 8, 2)
    dense = layers.Codebook.pack(codes, values).unpack()
    for row in range(6):
        expected = torch.cat([values[row // 2, c] for c in codes[row].long()])
        assert torch.equal(dense[row], expected)


def test_activations_are_rounded_token_by_token():
    x = torch.tensor([[[1.0, -0.5, 0.24]], [[100.0, 0.0, 0.3]]])
    found = layers.rounded(x, 8)
    assert torch.allclose(found[0, 0] * 127, torch.tensor([127.0, -64.0, 30.0]), atol=1e-4)
    assert found[1, 0, 2] == 0 and torch.equal(layers.rounded(torch.zeros(1, 3), 8), torch.zeros(1, 3))


@pytest.mark.parametrize("embeddings", [True, False])
def test_tied_embeddings_are_packed_once(embeddings, decoder, tmp_path):
    options = {"bits": 4, "group": None, "embeddings": embeddings, "head": embeddings}
    small = compressed(round_to_nearest, decoder[0], [], **options)
    io.save(small, decoder[1], tmp_path / "m", {})
    again, _ = io.load(tmp_path / "m")
    if embeddings:
        assert again.lm_head.packed.codes is again.model.embed_tokens.packed.codes
        assert torch.equal(again.lm_head.weight, small.lm_head.weight)
    else:
        assert again.lm_head.weight is again.model.embed_tokens.weight
    one = "the head of this model is its embedding"
    with pytest.raises(ValueError, match=one):
        compressed(round_to_nearest, decoder[0], [], embeddings=True)


def test_bytes_are_those_of_bits_and_scales(decoder, tmp_path):
    inner = sum(m.weight.numel() for _, m in decoder[0].model.layers.named_modules() if hasattr(m, "in_features"))
    rest = sum(p.numel() for p in decoder[0].parameters()) - inner
    for bits, group in ((4, 64), (3, 32), (8, 64)):
        small = compressed(round_to_nearest, decoder[0], [], bits=bits, group=group, symmetric=True)
        io.save(small, decoder[1], tmp_path / f"m{bits}{group}", {})
        nominal = inner * (bits + 16 / group) / 8 + rest * 2
        assert bytes_of(tmp_path / f"m{bits}{group}") <= 1.05 * nominal


def test_a_packed_model_is_refused_by_what_changes_weights(decoder, calibration):
    from compress.methods import kprune, wanda

    small = compressed(round_to_nearest, decoder[0], [])
    with pytest.raises(ValueError, match="self_attn.q_proj is quantized already.*quantize last"):
        compressed(round_to_nearest, small, [])
    for method in (kprune, wanda):
        with pytest.raises(ValueError, match="is quantized already"):
            compressed(method, small, calibration, ratio=0.5)


def test_sizes_that_do_not_divide_name_the_nearest(decoder, encoder):
    with pytest.raises(ValueError, match="group 100 does not divide the 192 inputs of .*: the nearest is 64"):
        compressed(round_to_nearest, decoder[0], [], group=100)
    with pytest.raises(ValueError, match="bits 9: give 2 to 8"):
        compressed(round_to_nearest, encoder, [], bits=9)


def test_low_rank_layers_reload_also_packed(decoder, tmp_path):
    model = copy.deepcopy(decoder[0])
    old = model.model.layers[0].mlp.up_proj
    low = layers.LowRankLinear(192, 512, 64, False)
    u, s, v = torch.linalg.svd(old.weight.detach(), full_matrices=False)
    low.up.weight.data, low.down.weight.data = u[:, :64] * s[:64], v[:64].contiguous()
    model.set_submodule("model.layers.0.mlp.up_proj", low)
    io.save(model, decoder[1], tmp_path / "low", {})
    small = compressed(round_to_nearest, model, [], bits=8)
    io.save(small, decoder[1], tmp_path / "packed", {})
    again, _ = io.load(tmp_path / "packed")
    assert isinstance(again.model.layers[0].mlp.up_proj.down, layers.PackedLinear)
    assert bytes_of(tmp_path / "packed") < 0.7 * bytes_of(tmp_path / "low")


def test_a_check_leaves_no_dense_weight_in_memory(decoder):
    small = compressed(round_to_nearest, decoder[0], [], embeddings=True, head=True)
    packed = [m for m in small.modules() if isinstance(m, layers.PackedLinear | layers.PackedEmbedding)]
    with torch.no_grad(), storage.forgetting(small):
        within = small(torch.arange(9)[None]).logits
    assert all(m._dense is None for m in packed)
    with torch.no_grad():
        assert torch.equal(small(torch.arange(9)[None]).logits, within)
    assert all(m._dense is not None for m in packed)
    storage.forget(small)
    assert all(m._dense is None for m in packed)


def test_tensors_that_are_the_same_stay_the_same(decoder, tmp_path):
    model = copy.deepcopy(decoder[0])
    for (_, a), (_, b) in zip(model.model.layers[0].named_modules(), model.model.layers[1].named_modules()):
        if hasattr(a, "weight"):
            b.weight = a.weight
    assert len(modeling.tied(model)) == 10  # nine weights of a block, and the head
    io.save(model, decoder[1], tmp_path / "m", {})
    again, _ = io.load(tmp_path / "m")
    assert again.model.layers[1].mlp.up_proj.weight is again.model.layers[0].mlp.up_proj.weight
    assert again.lm_head.weight is again.model.embed_tokens.weight
    assert bytes_of(tmp_path / "m") < 0.88 * 6_892_248


def test_more_bits_than_requested_are_an_error():
    packed = Grid(8, 8, True).nearest(torch.randn(8, 64), torch.float32)
    with pytest.raises(RuntimeError, match="bits: 8.000 a weight reached, 4.000 requested"):
        quantization.require(packed, 4)


def test_a_layer_of_no_inputs_or_outputs_is_made_without_a_warning(recwarn):
    for inputs, outputs in ((0, 3), (3, 0)):
        made = layers.make("Linear", {"in_features": inputs, "out_features": outputs, "bias": True})
        assert made.weight.shape == (outputs, inputs)
    assert not recwarn.list
