"""GPTQ, AWQ and SmoothQuant against plain float64, what their models lose on real text, and resuming."""

import copy

import pytest
import torch

from compress.algorithms.quantization import Grid, smoothing
from compress.algorithms.resume import Progress
from compress.algorithms.training import divergence
from compress.calibration.texts import batches, cut
from compress.methods import awq, gptq, round_to_nearest, smoothquant
from compress.model import io, modeling, structure
from compress.model.walk import inputs
from tests.conftest import compressed, strayed
from transmeter.util.checkpoint import bytes_of


def layer(outs=6, features=32, tokens=200, seed=0):
    """Weights (outs, features) and X^T X of correlated states with a few large features, float64, one dead."""
    g = torch.Generator().manual_seed(seed)
    mixing = torch.randn(features, features, generator=g, dtype=torch.float64)
    states = torch.randn(tokens, features, generator=g, dtype=torch.float64) @ mixing
    states[:, 5:8] *= 8
    states[:, 3] = 0
    return torch.randn(outs, features, generator=g, dtype=torch.float64), states.T @ states


def lost(change, gram):
    """Squared error of the outputs."""
    return float(((change @ gram) * change).sum())


def by_the_paper(weight, gram, places, grid, damping=0.01):
    """Algorithm 1 as it is derived: settle a column, update all that are left, take the column from the inverse."""
    gram = gram + damping * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    work, left, done = weight.clone(), places.tolist(), torch.zeros_like(weight)
    group, scale, zero = grid.group or len(gram), None, None
    while left:
        inverse = torch.linalg.inv(gram[left][:, left])
        if len(left) % group == 0:
            members = left[:group]
            # U_jj^-2 of these columns, from the inverse of what is left at each one's turn
            costs = [1 / torch.linalg.inv(gram[left[i:]][:, left[i:]])[0, 0] for i in range(group)]
            scale, zero = Grid(grid.bits, None, grid.symmetric).fit(work[:, members], torch.float16, torch.stack(costs))
        j = left[0]
        one = Grid(grid.bits, None, grid.symmetric)
        done[:, j] = one.values(one.codes(work[:, j : j + 1], scale, zero), scale, zero)[:, 0]
        error = (work[:, j] - done[:, j]) / inverse[0, 0]
        work[:, left] -= error[:, None] * inverse[0]
        left = left[1:]
    return done


@pytest.mark.parametrize("block", [1, 8, 12, 64])
@pytest.mark.parametrize("grid", [Grid(3, 8, False), Grid(4, None, True), Grid(2, 16, True)])
@pytest.mark.parametrize("order", [True, False])
def test_gptq_against_its_derivation(block, grid, order):
    weight, gram = layer()
    places = gptq.arranged(gram.diagonal(), grid.group) if order else torch.arange(32)
    found = gptq.quantize([weight[:2], weight[2:]], gram, places, grid, torch.float16, 0.01, block)
    assert [(p.rows, p.columns) for p in found] == [(2, 32), (4, 32)]
    dense = torch.cat([p.unpack() for p in found])
    torch.testing.assert_close(dense, by_the_paper(weight, gram, places, grid), rtol=1e-6, atol=1e-6)


def test_groups_have_their_turns_as_a_whole():
    diagonal = torch.tensor([1.0, 5.0, 2.0, 9.0, 3.0, 0.0])
    assert gptq.arranged(diagonal, 2).tolist() == [3, 2, 1, 0, 4, 5]
    assert gptq.arranged(diagonal, None).tolist() == [3, 1, 4, 2, 0, 5]


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_less_of_the_output_is_lost(bits):
    """On single layers: GPTQ below AWQ below round to nearest, and AWQ below its own rounding without scales."""
    grid, errors = Grid(bits, 8, False), []
    for seed in range(5):
        weight, gram = layer(outs=24, seed=seed)
        weight, gram = weight.float(), gram.float()
        packed = gptq.quantize([weight], gram.double(), torch.arange(32), grid, torch.float16, 0.01, 128)[0]
        smooth = awq.scales(weight, gram, gram.diagonal().sqrt(), grid, torch.float16)
        importance = torch.stack([(gram / smooth / smooth[:, None])[i : i + 8, i : i + 8] for i in range(0, 32, 8)])
        scaled = grid.nearest(weight * smooth, torch.float16, importance).unpack() / smooth
        plain = grid.nearest(weight, torch.float16, torch.ones(32)).unpack()
        errors.append([lost(x - weight, gram) for x in (packed.unpack(), scaled, plain)])
    one, two, three = torch.tensor(errors).log().mean(0).exp().tolist()
    assert one < 0.8 * two and two < 0.8 * three


@pytest.mark.parametrize("grid", [Grid(2, 8, False), Grid(3, 8, True), Grid(4, 16, False), Grid(8, None, True)])
@pytest.mark.parametrize("full", [True, False])
def test_ranges_are_about_as_good_as_those_of_a_fine_search(grid, full):
    """61 shares of the whole range, each weight by itself, in float64."""
    weight, gram = layer(outs=40)
    size, top = grid.group or 32, 2**grid.bits - 1
    gram = gram if full else gram.diagonal().diag()
    matrices = [gram[i : i + size, i : i + size] for i in range(0, 32, size)]
    best = torch.full((40, len(matrices)), torch.inf, dtype=torch.float64)
    for shrink in torch.linspace(1.0, 0.4, 61).tolist():
        for g, matrix in enumerate(matrices):
            part = weight[:, size * g : size * (g + 1)]
            low, high = part.amin(1, keepdim=True).clamp(max=0), part.amax(1, keepdim=True).clamp(min=0)
            span = 2 * torch.maximum(-low, high) if grid.symmetric else high - low
            scale = (shrink * span / top).half().double()
            zero = (top + 1) / 2 if grid.symmetric else (-low / (span / top).half().double()).round()
            change = ((part / scale).round() + zero).clamp(0, top).sub(zero) * scale - part
            best[:, g] = torch.minimum(best[:, g], ((change @ matrix) * change).sum(1))
    found = grid.fit(weight, torch.float16, torch.stack(matrices) if full else gram.diagonal())
    change = grid.values(grid.codes(weight, *found), *found) - weight
    reached = sum(lost(part, matrix) for part, matrix in zip(change.split(size, 1), matrices))
    assert reached < (1.1 if full else 1.01) * best.sum()


def test_smoothing_is_exact_and_around_one():
    found = smoothing(torch.tensor([0.0, 4.0, 16.0, torch.inf]), torch.float16)
    assert torch.equal(found, torch.tensor([1.0, 0.5, 2.0, 1.0]).half().float())
    assert torch.equal(smoothing(torch.zeros(3), torch.float16), torch.ones(3))


@pytest.fixture(scope="module")
def real(decoder, tokenizer, texts):
    """(calibration batches, a held-out batch) of one domain."""
    data = batches(tokenizer, cut(tokenizer, texts, 6000, 128, seed=0))
    return data, batches(tokenizer, cut(tokenizer, texts, 2000, 128, seed=1))[0]


def distance(small, model, batch):
    """Divergence of the logits from those of the model."""
    with torch.no_grad():
        pair = small(**batch).logits, model(**batch).logits
    return float(divergence(*pair, batch["attention_mask"], 1.0).mean())


@pytest.mark.parametrize("bits", [3, 4])
def test_calibrated_rounding_is_closer_to_the_model(bits, two_blocks, real):
    data, held = real
    one, two, three = (
        distance(compressed(m, two_blocks, data, bits=bits), two_blocks, held) for m in (gptq, awq, round_to_nearest)
    )
    assert one < 0.8 * three and two < 0.95 * three


def with_outliers(model):
    """The same function with a few channels of every normed state 60 times as large, and what reads them smaller."""
    model = copy.deepcopy(model)
    for block in model.model.layers:
        readers = {
            "input_layernorm": [block.self_attn.q_proj, block.self_attn.k_proj, block.self_attn.v_proj],
            "post_attention_layernorm": [block.mlp.gate_proj, block.mlp.up_proj],
        }
        for norm, linears in readers.items():
            getattr(block, norm).weight.data[[3, 50, 120]] *= 60
            for linear in linears:
                linear.weight.data[:, [3, 50, 120]] /= 60
    return model


def test_smoothquant_takes_the_outliers_of_the_activations(two_blocks, real):
    data, held = real
    model = with_outliers(two_blocks)
    plain, smooth = (compressed(smoothquant, model, data, strength=s) for s in (None, 0.5))
    one, other = distance(smooth, model, held), distance(plain, model, held)
    assert one < 0.1 * other
    query = smooth.model.layers[0].self_attn.q_proj
    assert query.activations == 8 and query.packed.bits == 8 and query.packed.scale.shape == (192, 1)
    assert plain.model.layers[0].self_attn.q_proj.smooth is None


def test_smoothquant_moves_what_the_paper_says(two_blocks, real):
    """max|x|^a / max|w|^(1 - a), up to a factor, of the first layers, which nothing comes before."""
    model, data = two_blocks, real[0]
    paths = [f"model.layers.0.self_attn.{name}_proj" for name in "qkv"]
    peaks = torch.zeros(192)
    for batch in data:
        with torch.no_grad(), inputs(model, paths) as seen:
            model(**batch)
        states = seen[paths[0]] * batch["attention_mask"][:, :, None]
        peaks = torch.maximum(peaks, states.flatten(0, 1).abs().amax(0))
    tops = torch.stack([model.get_submodule(path).weight.abs().amax(0) for path in paths]).amax(0)
    wanted = peaks.double() ** 0.25 / tops.double() ** 0.75
    small = compressed(smoothquant, model, data, strength=0.25)
    first, *others = (small.get_submodule(path) for path in paths)
    ratio = first.smooth.double() / wanted
    assert ratio.max() / ratio.min() < 1.002  # fp16
    assert all(layer.smooth is first.smooth for layer in others)
    change = first.packed.unpack() - model.get_submodule(paths[0]).weight * first.smooth
    assert (change.abs() <= first.packed.scale * 0.51).float().mean() > 0.99


@pytest.mark.parametrize("method", [gptq, awq, smoothquant])
def test_a_killed_run_goes_on_where_it_stood(method, two_blocks, calibration, tmp_path, monkeypatch):
    once = compressed(method, two_blocks, calibration)
    keep = Progress.keep

    def killed(self, step, model, blocks):
        keep(self, step, model, blocks)
        raise KeyboardInterrupt  # behind the first block

    monkeypatch.setattr(Progress, "keep", killed)
    with pytest.raises(KeyboardInterrupt):
        compressed(method, two_blocks, calibration, progress=Progress(tmp_path / "p"))
    monkeypatch.undo()
    for _ in range(2):  # the second time every block is finished
        again = compressed(method, two_blocks, calibration, progress=Progress(tmp_path / "p"))
        expected = once.state_dict()
        assert again.state_dict().keys() == expected.keys()
        assert all(torch.equal(v, expected[k]) for k, v in again.state_dict().items())
        assert modeling.changes(again) == modeling.changes(once)


def test_what_lies_outside_the_blocks_is_rounded_when_asked(decoder, calibration, tmp_path):
    options = {"group": 32, "embeddings": True, "head": True}
    for method in (gptq, awq):
        small = compressed(method, decoder[0], calibration, **options)
        assert small.lm_head.packed is small.model.embed_tokens.packed
        expected = compressed(round_to_nearest, decoder[0], [], **options).lm_head.packed.unpack()
        assert torch.equal(small.lm_head.packed.unpack(), expected)
        assert not any(isinstance(m, torch.nn.Linear) for m in small.modules())
        io.save(small, decoder[1], tmp_path / method.__name__, {})


def test_bytes_are_those_of_bits_and_scales(two_blocks, tokenizer, calibration, tmp_path):
    inner = sum(m.weight.numel() for _, m in two_blocks.model.layers.named_modules() if hasattr(m, "in_features"))
    rest = 2 * (sum(p.numel() for p in two_blocks.parameters()) - inner)
    smooth = 2 * 2 * (192 + 192 + 192 + 512)  # of the layers that share an input one set
    for method, options, bits, more in (
        (gptq, {"bits": 4}, 4 + 20 / 64, 0),
        (gptq, {"bits": 3, "group": 32, "symmetric": True}, 3 + 16 / 32, 0),
        (awq, {"bits": 4}, 4 + 20 / 64, smooth),
        (smoothquant, {}, 8, smooth),
    ):
        folder = tmp_path / f"{method.__name__} {options}"
        small = compressed(method, two_blocks, calibration, **options)
        assert all(getattr(m, "_dense", None) is None for m in small.modules())  # nor is memory that of two models
        io.save(small, tokenizer, folder, {})
        assert bytes_of(folder) <= 1.05 * (inner * bits / 8 + rest + more)


def test_a_layer_without_inputs_or_with_few(encoder, calibration):
    """Fewer tokens than features, and no batch at all, where everything is rounded to nearest."""
    expected = compressed(round_to_nearest, encoder, [], group=16)
    few = [{k: v[:1, :2] for k, v in calibration[0].items()}]
    for method in (gptq, awq):
        none = compressed(method, encoder, [], group=16)
        for (name, one), two in zip(none.state_dict().items(), expected.state_dict().values()):
            assert torch.equal(one, two), name
        small = compressed(method, encoder, few, group=16)
        with torch.no_grad():
            dense, found = (m(**calibration[0]).logits for m in (encoder, small))
        assert 0 < strayed(found, dense) < 0.05


@pytest.mark.parametrize("name", ["round_to_nearest", "gptq", "awq", "smoothquant", "kmeans", "mixed", "vector"])
def test_sublayers_that_pruning_has_emptied_are_left(name, encoder, calibration):
    pruned = copy.deepcopy(encoder)
    sublayers = structure.sublayers(pruned)
    for sublayer in (sublayers[0], sublayers[3]):  # attention of the first block, neurons of the second
        structure.remove(pruned, sublayer, torch.zeros(sublayer.units, dtype=torch.bool))
    options = {} if name in ("smoothquant", "kmeans") else {"bits": 4} if name == "vector" else {"group": 16}
    small = compressed(name, pruned, calibration, **options)
    with torch.no_grad():
        assert 0 < strayed(small(**calibration[0]).logits, pruned(**calibration[0]).logits) < 0.1


@pytest.mark.parametrize(
    "method, options, message",
    [
        (gptq, {"bits": 9}, "bits 9: give 2 to 8"),
        (gptq, {"group": 100}, "group 100 does not divide the 192 inputs of .*: the nearest is 64"),
        (gptq, {"damping": 0.0}, "block 128 must be at least 1 and damping 0.0 above 0"),
        (gptq, {"block": 0}, "block 0 must be at least 1"),
        (gptq, {"head": True}, "the head of this model is its embedding"),
        (awq, {"group": 0}, "group 0: give 1 or more inputs"),
        (smoothquant, {"activations": 1}, "activations 1: give 2 to 8 bits"),
        (smoothquant, {"strength": 1.5}, "strength 1.5: give 0 to 1"),
    ],
)
def test_bad_requests(method, options, message, decoder):
    with pytest.raises(ValueError, match=message):
        compressed(method, decoder[0], [], **options)


@pytest.mark.parametrize("method", [gptq, awq, smoothquant])
def test_a_quantized_model_is_refused(method, decoder, calibration):
    small = compressed(round_to_nearest, decoder[0], [])
    with pytest.raises(ValueError, match="is quantized already"):
        compressed(method, small, calibration)
