"""Mixtures of experts: split into layers of their own, compressed by the tokens that reach them, and written back."""

import copy

import pytest
import torch
import transformers
from safetensors import safe_open

from compress import export
from compress.algorithms import hessian, memory
from compress.algorithms.quantization import Grid
from compress.methods import gptq, mixed, traits
from compress.model import io, modeling, structure
from tests.compress.methods.test_architectures import MODELS, SIZES, batches, build, logits
from tests.conftest import compressed

KINDS = ["mixtral", "qwen3_moe", "olmoe"]
every_kind = pytest.mark.parametrize("kind", KINDS)
stays_whole = pytest.mark.filterwarnings("ignore:experts keep their neurons")


def as_transformers_has_it(kind):
    """The random model of `build`, experts in two tensors."""
    model = build(kind)
    modeling.join_experts(model)
    return model


@every_kind
@torch.no_grad()
def test_split_experts_compute_what_transformers_does(kind):
    joined, data = as_transformers_has_it(kind).double(), batches()[0]
    joined.set_experts_implementation("eager")  # the others have no float64
    split = copy.deepcopy(joined)
    modeling.split_experts(split)
    assert len(structure.experts(split)) == 2 and not structure.experts(joined)
    torch.testing.assert_close(logits(split, data), logits(joined, data), rtol=1e-12, atol=1e-12)
    before = joined.state_dict()
    modeling.join_experts(split)
    assert split.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in split.state_dict().items())


@torch.no_grad()
def routed(model, data, block, expert):
    """What enters gate and up, and what enters the output of an expert: of the real tokens that it is for, float64."""
    mlp, entering, inner, seen = model.model.layers[block].mlp, [], [], []
    handle = mlp.gate.register_forward_hook(lambda module, args, output: seen.append((args[0], output[2])))
    for batch in data:
        model(**batch)
        states, chosen = seen.pop()
        x = states[batch["attention_mask"].flatten().bool() & (chosen == expert).any(1)].double()
        gate, up = (x @ mlp.experts.gate_up_proj[expert].double().T).chunk(2, 1)
        entering.append(x)
        inner.append(torch.nn.functional.silu(gate) * up)
    handle.remove()
    return torch.cat(entering), torch.cat(inner)


@every_kind
def test_moments_are_of_the_real_tokens_that_are_routed_to_an_expert(kind):
    model, joined, data = build(kind), as_transformers_has_it(kind), batches()
    names, counts = modeling.EXPERTS[kind], []
    for block, shared in enumerate(hessian.blocks(model, data, hessian.gram, "")):
        found = {path: (paths, moment) for paths, moment in shared for path in paths}
        for expert in range(4):
            inside = f"model.layers.{block}.mlp.experts.{expert}"
            entering, inner = routed(joined, data, block, expert)
            paths, moment = found[f"{inside}.{names[0]}"]
            assert sorted(paths) == sorted(f"{inside}.{name}" for name in names[:2])
            torch.testing.assert_close(moment, entering.T @ entering, rtol=1e-4, atol=1e-4)
            paths, moment = found[f"{inside}.{names[2]}"]
            assert paths == [f"{inside}.{names[2]}"]
            torch.testing.assert_close(moment, inner.T @ inner, rtol=1e-4, atol=1e-4)
            counts.append(len(entering))
    tokens = sum(int(batch["attention_mask"].sum()) for batch in data)
    assert sum(counts) == 2 * 2 * tokens and all(0 < count < tokens for count in counts)  # two of four, two blocks


@pytest.mark.filterwarnings("ignore:no calibration token reaches")
@pytest.mark.parametrize("method", ["gptq", "svd"])
def test_memory_is_planned_for_the_moments_of_all_experts(method):
    model, data = build("mixtral", num_local_experts=48), batches()[:1]
    held = max(sum(moment.nbytes for _, moment in shared) for shared in hessian.blocks(model, data, hessian.gram, ""))
    found = memory.estimate(model, data, traits(method), {}, torch.float32).whole
    weights = 4 * sum(p.numel() for p in model.parameters())
    assert held > 8 * 36 * (32**2 + 48**2)  # of most experts
    beside = 1 if method == "gptq" else 0  # the weights as they are stored, until all are packed
    assert held < found - (traits(method).needs.models + beside) * weights


def assert_alike(found, expected, weight, moment):
    """Equal, but for a row in twenty where a weight between two levels went the other way, at the same error."""
    equal = ((found - expected).abs() <= 1e-6 + 1e-5 * expected.abs()).all(1)
    assert equal.float().mean() >= 0.95
    errors = [((w - weight).double() @ moment.double() * (w - weight)).sum(1)[~equal] for w in (found, expected)]
    torch.testing.assert_close(*errors, rtol=0.1, atol=1e-6)


@every_kind
@torch.no_grad()
def test_a_quantized_expert_is_its_matrices_quantized_alone(kind):
    model, joined, data = build(kind), as_transformers_has_it(kind), batches()
    small = compressed("gptq", model, data, group=8)
    for expert, names in ((e, modeling.EXPERTS[kind]) for e in range(4)):
        old = model.get_submodule(f"model.layers.0.mlp.experts.{expert}")  # of the first block: all before it is dense
        new = small.get_submodule(f"model.layers.0.mlp.experts.{expert}")
        for states, layers in zip(routed(joined, data, 0, expert), (names[:2], names[2:])):
            moment = states.T @ states
            places = gptq.arranged(moment.diagonal(), 8)
            for name in layers:
                weight, grid = old.get_submodule(name).weight, Grid(4, 8, False)
                (alone,) = gptq.quantize([weight], moment, places, grid, torch.float32, 0.01, 128)
                assert_alike(new.get_submodule(name).weight, alone.unpack(), weight, moment)
                assert not torch.allclose(alone.unpack(), grid.rounded(weight, torch.float32), atol=1e-3)


@pytest.fixture
def unreached():
    """A Mixtral with one expert a token, the last of whose four none is for: its logit is the mean of the others'."""
    model = build("mixtral", num_experts_per_tok=1)
    for layer in model.model.layers:
        layer.mlp.gate.weight.data[3] = layer.mlp.gate.weight.data[:3].mean(0)
    return model


told = pytest.mark.filterwarnings("ignore:no calibration token reaches")


@pytest.mark.parametrize("method", ["gptq", "awq", "mixed", "round_to_nearest"])
def test_an_expert_that_no_token_reaches_is_rounded_to_nearest(method, unreached, letters, tmp_path):
    options = {"group": 8} | ({"bits": 4.0, "choices": "4"} if method == "mixed" else {})
    if method == "round_to_nearest":  # which asks for no texts
        small = compressed(method, unreached, batches(), **options)
    else:
        what = r"^no calibration token reaches 2 of 8 experts \(model\.layers\.0\.mlp\.experts\.3 first\): quantizers "
        with pytest.warns(UserWarning, match=what):
            small = compressed(method, unreached, batches(), **options)
    for layer, before in zip(small.model.layers, unreached.model.layers):
        for name in ("w1", "w3", "w2"):
            weight = before.mlp.experts[3].get_submodule(name).weight.detach()
            expected = Grid(4, 8, False).nearest(weight, torch.float32, torch.ones(weight.shape[1]))
            assert torch.equal(layer.mlp.experts[3].get_submodule(name).packed.unpack(), expected.unpack())
    io.save(small, letters, tmp_path / "small", {})  # compared when it is read again


def test_an_expert_that_only_tokens_of_the_dense_model_reach_gets_its_bits(monkeypatch):
    """Behind rounded blocks tokens may go elsewhere: it still has the bits that it was given."""
    whole, measured, away = mixed.blocks, mixed._assigned, "model.layers.1.mlp.experts.2."
    taken = {}

    def blocks(*given):
        for shared in whole(*given):
            yield [([path for path in paths if not path.startswith(away)], moment) for paths, moment in shared]

    monkeypatch.setattr(mixed, "blocks", blocks)
    monkeypatch.setattr(mixed, "_assigned", lambda *given: taken.setdefault("bits", measured(*given)))
    small, bits = compressed("mixed", build("mixtral"), batches(), group=8, bits=3.0, choices="2,8"), taken["bits"]
    assert {path: small.get_submodule(path).packed.bits for path in bits} == bits
    assert sum(path.startswith(away) for path in bits) == 3 and len(set(bits.values())) == 2


@told
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("wanda", {}),
        ("sparsegpt", {}),
        ("svd", {}),
        ("svd", {"kind": "fisher"}),
        ("share", {"groups": 2}),
        ("dynamic_sparse", {"steps": 2, "every": 1}),
    ],
)
def test_other_methods_leave_it_as_it_is(method, options, unreached):
    options = options if method in ("share", "dynamic_sparse") else {"ratio": 0.4} | options
    small = compressed(method, unreached, batches(), **options)
    for layer, before in zip(small.model.layers, unreached.model.layers):
        for name in ("w1", "w3", "w2") if method != "dynamic_sparse" else ():
            weight = before.mlp.experts[3].get_submodule(name).weight
            assert torch.equal(layer.mlp.experts[3].get_submodule(name).weight, weight)
    assert method == "share" or not torch.equal(logits(small, batches()[0]), logits(unreached, batches()[0]))


@told
def test_a_ratio_that_it_stands_in_the_way_of_is_refused(unreached):
    for layer in unreached.model.layers:
        layer.mlp.gate.weight.data[2:] = layer.mlp.gate.weight.data[:2].mean(0)
    with pytest.raises(ValueError, match="reaches experts of 18,432 parameters, which stay, 17,203 are allowed: give"):
        compressed("svd", unreached, batches(), ratio=0.6)


@every_kind
def test_files_are_those_of_the_type_and_may_hold_all_experts_in_one_tensor(kind, letters, tmp_path):
    model, data = build(kind), batches()[0]
    plain = io.save(model, letters, tmp_path / "plain", {})
    with safe_open(plain / "model.safetensors", "pt") as file:
        mlp = "block_sparse_moe" if kind == "mixtral" else "mlp"
        assert f"model.layers.1.{mlp}.experts.3.{modeling.EXPERTS[kind][2]}.weight" in file.keys()
    assert not list(plain.glob("*.py"))
    alone = type(model).from_pretrained(plain).eval()
    torch.testing.assert_close(logits(alone, data), logits(model, data), rtol=1e-4, atol=1e-5)
    alone.save_pretrained(plain, save_original_format=False)
    assert torch.equal(logits(io.load(plain)[0], data), logits(model, data))
    with pytest.raises(ValueError, match="is stored in a form that cannot be streamed: give more memory"):
        io.load(plain, stream=True)


@pytest.mark.parametrize(
    "method, options", [("gptq", {"group": 8}), ("sparsegpt", {"ratio": 0.5}), ("depth", {"ratio": 0.5})]
)
def test_blocks_with_experts_stream_from_their_files(method, options, letters, tmp_path):
    folder, data = io.save(build("mixtral"), letters, tmp_path / "m", {}), batches()
    whole, streamed = (compressed(method, io.load(folder, stream=s)[0], data, **options) for s in (False, True))
    one, other = io.save(whole, letters, tmp_path / "one", {}), io.save(streamed, letters, tmp_path / "other", {})
    assert torch.equal(logits(io.load(one)[0], data[0]), logits(io.load(other)[0], data[0]))
    alone = transformers.AutoModelForCausalLM.from_pretrained(other, trust_remote_code=True).eval()
    torch.testing.assert_close(logits(alone, data[0]), logits(whole, data[0]), rtol=1e-4, atol=1e-5)


@stays_whole
def test_heads_that_go_are_heads_that_are_masked(letters, tmp_path):
    model, data = build("qwen3_moe"), batches()[0]
    small = compressed("magnitude", model, batches(), ratio=0.5)
    masked, stay = copy.deepcopy(model), {s.output: s for s in structure.sublayers(small)}
    assert {s.kind for s in stay.values()} == {"attention"}
    for sub in structure.sublayers(model):
        left, key = stay.get(sub.output), f"model.layers.{sub.block}.self_attn.k_proj"
        rows = model.get_submodule(key).weight
        kept = [] if left is None else small.get_submodule(key).weight.tolist()
        keep = torch.tensor([row in kept for row in rows.tolist()]).view(sub.units, -1).all(1)
        masked.get_submodule(sub.output).weight.data[:, ~keep.repeat_interleave(sub.columns)] = 0
        assert int(keep.sum()) == (left.units if left else 0)
    torch.testing.assert_close(logits(small, data), logits(masked, data), rtol=1e-4, atol=1e-5)
    io.save(small, letters, tmp_path / "small", {})


def test_what_experts_do_not_allow_is_said(letters, tmp_path):
    model, data = build("mixtral"), batches()
    with pytest.warns(UserWarning, match="^experts keep their neurons: a ratio is one of what else can go"):
        compressed("magnitude", model, data, ratio=0.5)
    with pytest.raises(ValueError, match="^a size counts heads and neurons, a block with experts is more than them"):
        compressed("depth", model, data, bytes=10_000)
    folder = io.save(model, letters, tmp_path / "m", {})
    for format in ("gguf", "torchao", "compressed-tensors", "onnx"):
        if all(export.find_spec(name) for name in export.NEEDED[format]):
            with pytest.raises(ValueError, match=f"is a mixture of experts, which {format} as it is written here"):
                export.export(str(folder), format, tmp_path / format)


@stays_whole
def test_layers_of_one_size_are_refused():
    with pytest.raises(ValueError, match="^shape=uniform cuts the neurons of every layer, those of experts stay"):
        compressed("kprune", build("mixtral"), batches(), ratio=0.5, shape="uniform")


def test_experts_of_other_types_are_refused_by_name():
    settings = SIZES | {"num_key_value_heads": 2, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2}
    config = transformers.GptOssConfig(**settings, rope_parameters={"rope_type": "default", "rope_theta": 1e4})
    model = transformers.GptOssForCausalLM(config).eval()
    what = r"model\.layers\.0\.mlp\.experts holds all experts in one tensor, .* of type mixtral, olmoe, qwen3_moe"
    with pytest.raises(ValueError, match=what):
        compressed("round_to_nearest", model, batches())


def test_every_type_with_experts_is_tried():
    assert set(modeling.EXPERTS) == set(KINDS) <= set(MODELS)
