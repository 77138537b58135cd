"""Checks that every file of compress/methods must pass; adding a method adds its tests."""

import copy
import inspect

import pytest
import torch

from compress.algorithms.budget import budget, flops
from compress.algorithms.fisher import curvature_probe
from compress.algorithms.least_squares import least_squares
from compress.algorithms.options import Limits
from compress.algorithms.training import divergence
from compress.calibration.texts import batches, cut
from compress.methods import methods, traits
from compress.model import io, structure
from compress.model.walk import mean_length
from tests.conftest import compressed, strayed
from tests.rereader import check_generation
from transmeter.util.checkpoint import bytes_of
from transmeter.util.signatures import grouped, keyword_options

# every way of each method that has its own storage; a new method is tested with its defaults without being named here
OPTIONS = {name: {option.name for option in keyword_options(method)} for name, method in methods().items()}
PRUNING = [name for name in methods() if "ratio" in OPTIONS[name] and name != "svd"]
WAYS = [(name, {}) for name in PRUNING if name != "dynamic_sparse"] + [
    ("magnitude", {"unit": "weights"}),
    ("magnitude", {"unit": "weights", "pattern": "2:4"}),
    ("wanda", {"pattern": "2:4"}),
    ("sparsegpt", {"pattern": "2:4"}),
    ("kprune", {"iterative": True, "knowledge": "gradient"}),
]
# training at its default length is for real models
WAYS += [
    ("dynamic_sparse", {"steps": 4, "every": 1, "share": 0.1, "recovery": recovery}) for recovery in ("full", "lora")
]
# what makes a model smaller by other means: options that fit the small encoder too, and options that change nothing
OTHERS = [
    ("awq", {"group": 8}, None),
    ("distil", {"depth": 1, "steps": 2}, {"depth": None, "steps": 0}),
    ("early_exit", {"tolerance": 0.9}, None),
    ("gptq", {"group": 8}, None),
    ("gqa", {"heads": 2}, {"heads": 6}),
    ("kmeans", {"bits": 5}, None),
    ("mixed", {"group": 8}, None),
    ("round_to_nearest", {"group": 8}, None),
    ("share", {"steps": 2}, None),
    ("smoothquant", {}, None),
    ("svd", {"ratio": 0.5}, {"ratio": 0.0}),
    ("vector", {"bits": 4, "width": 2, "update": False}, None),
]
DECODERS = {"gqa"}  # methods for decoders alone
LARGER = {"early_exit"}  # methods that save time and add to the bytes
every_way = pytest.mark.parametrize("name, options", WAYS, ids=[f"{n} {o}" if o else n for n, o in WAYS])
both_models = pytest.mark.parametrize("kind", ["encoder", "decoder"])


@pytest.fixture
def model(request, kind):
    """A BERT or two blocks of the real Llama."""
    return request.getfixturevalue("encoder" if kind == "encoder" else "two_blocks")


def compress(name, model, data, **options):
    """Run a method of that name; a pattern stands for the ratio, all of it for ratio 0."""
    if "pattern" in options and options.pop("ratio", None) == 0:
        options["pattern"] = "4:4"
    return compressed(name, model, data, **options)


def skip_encoders(name, kind):
    """A method for decoders alone says so by itself."""
    if name in DECODERS and kind == "encoder":
        pytest.skip("for decoders alone")


def logits(model, batch):
    """Logits without gradients."""
    with torch.no_grad():
        return model(**batch).logits


@pytest.fixture(scope="module")
def dense_bytes(encoder, two_blocks, tokenizer, tmp_path_factory):
    """Bytes of the folders of both models."""
    folder = tmp_path_factory.mktemp("dense")
    models = {"encoder": encoder, "decoder": two_blocks}
    return {kind: bytes_of(io.save(model, tokenizer, folder / kind, {})) for kind, model in models.items()}


@both_models
@pytest.mark.parametrize(
    "name, options",
    [(n, o | {"ratio": 0.5}) for n, o in WAYS] + [o[:2] for o in OTHERS],
    ids=[f"{n} {o}" if o else n for n, o, *_ in [*WAYS, *OTHERS]],
)
def test_result_is_new_finite_smaller_and_reloads(
    name, options, kind, model, dense_bytes, calibration, tokenizer, reread, tmp_path
):
    skip_encoders(name, kind)
    before = copy.deepcopy(model.state_dict())
    small = compress(name, model, calibration, **options)
    assert small is not model
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    found = logits(small, calibration[0])
    assert found.shape == logits(model, calibration[0]).shape and found.isfinite().all()
    assert {p.dtype for p in small.parameters() if p.is_floating_point()} == {torch.float32}
    io.save(small, tokenizer, tmp_path / "small", {})
    if name not in LARGER:
        assert bytes_of(tmp_path / "small") < dense_bytes[kind]
    reloaded, _ = io.load(tmp_path / "small")
    stored = copy.deepcopy(small)
    for p in filter(torch.is_floating_point, stored.parameters()):
        p.data = p.data.to(small.config.dtype or torch.float32).float()
    assert torch.equal(logits(reloaded, calibration[0]), logits(stored, calibration[0]))
    auto = "AutoModelForSequenceClassification" if kind == "encoder" else "AutoModelForCausalLM"
    alone = reread(tmp_path / "small", auto, calibration[0])
    assert torch.equal(alone["logits"], logits(reloaded, calibration[0]))
    if kind == "decoder":
        check_generation(alone)
        assert reloaded.lm_head.weight is reloaded.model.embed_tokens.weight


@both_models
@pytest.mark.parametrize("name, options, nothing", OTHERS, ids=[o[0] for o in OTHERS])
def test_other_methods_keep_the_contract(name, options, nothing, kind, model, calibration, tokenizer, texts):
    """What changes nothing is the identity, padding and order do not matter, and any calibration size will do."""
    skip_encoders(name, kind)
    if nothing is not None:
        same = compress(name, model, calibration, **options | nothing)
        assert same is not model
        assert torch.equal(logits(same, calibration[0]), logits(model, calibration[0]))
    sequences = cut(tokenizer, texts, 400, 40, seed=0)
    one, other = batches(tokenizer, sequences, size=16), batches(tokenizer, sequences, size=3)[::-1]
    # training takes the batches as they are, one a step; svd, mixed and early_exit draw in order
    if "steps" not in options and name not in ("svd", "mixed", "early_exit"):
        a, b = (logits(compress(name, model, data, **options), one[0]) for data in (one, other))
        assert (
            a - b
        ).square().mean() < 1e-2 * b.square().mean()  # the last bit of a sum may decide where a weight goes
    few = batches(tokenizer, cut(tokenizer, texts, 8, 16, seed=0))
    assert strayed(logits(compress(name, model, few, **options), few[0]), logits(model, few[0])) < 2


def test_every_method_is_checked():
    assert {*PRUNING, *(name for name, *_ in OTHERS)} == set(methods())


@both_models
@every_way
def test_the_request_is_reached(name, options, kind, model, calibration):
    small = compress(name, model, calibration, ratio=0.5, **options)
    length = mean_length(calibration)
    if traits(name).removes and options.get("unit") != "weights":
        reached = 1 - flops(small, length) / flops(model, length)
        limit = budget(model, length, Limits(0.5), traits(name).changes[:-1])
        assert 0.495 <= reached <= 0.505 + limit.step / limit.dense
        smaller = sum(p.numel() for p in small.parameters())
        assert smaller < sum(p.numel() for p in model.parameters())
    else:
        for block in range(model.config.num_hidden_layers):
            for _, linear in structure.block_linears(small, block):
                zeros = linear.weight == 0
                if "pattern" in options:
                    assert (zeros.view(-1, 4).sum(1) == 2).all()
                else:
                    assert abs(float(zeros.float().mean()) - 0.5) < 0.02


@both_models
@every_way
def test_nothing_removed_is_the_identity(name, options, kind, model, calibration):
    same = compress(name, model, calibration, ratio=0.0, **options)
    assert same is not model
    assert torch.equal(logits(same, calibration[0]), logits(model, calibration[0]))


@every_way
def test_order_and_padding_of_batches_do_not_matter(name, options, encoder, tokenizer, texts):
    sequences = cut(tokenizer, texts, 400, 40, seed=0)
    one, other = batches(tokenizer, sequences, size=16), batches(tokenizer, sequences, size=3)[::-1]
    for batch in [*one, *other]:  # so that no method draws any
        batch["labels"] = (batch["input_ids"] * batch["attention_mask"]).sum(1) % 3
    if name == "kprune" and options.get("knowledge") != "gradient":
        options = {**options, "predictive": 0.0}  # curvature draws a label a sequence, in order
    if name == "dynamic_sparse":
        options = {**options, "steps": 0}  # training takes the batches as they are, one a step
    a, b = (compress(name, encoder, data, ratio=0.4, **options) for data in (one, other))
    torch.testing.assert_close(logits(a, one[0]), logits(b, one[0]), rtol=1e-3, atol=1e-3)


@every_way
@pytest.mark.parametrize("tokens", [8, 40])
def test_any_calibration_size_will_do(name, options, tokens, encoder, tokenizer, texts):
    data = batches(tokenizer, cut(tokenizer, texts, tokens, 16, seed=0))
    found = logits(compress(name, encoder, data, ratio=0.5, **options), data[0])
    assert 0 < strayed(found, logits(encoder, data[0])) < 2


@pytest.mark.parametrize("name", [*PRUNING, "svd"])
@pytest.mark.parametrize("ratio", [-0.1, 1.0, 1.5])
def test_a_ratio_out_of_range_is_refused(name, ratio, encoder, calibration):
    with pytest.raises(ValueError, match="0 <= ratio < 1"):
        compress(name, encoder, calibration, ratio=ratio)


@pytest.mark.parametrize("name", methods())
def test_signature_is_the_configuration(name):
    parameters = list(inspect.signature(methods()[name]).parameters.values())
    assert [p.name for p in parameters[:2]] == ["model", "batches"]
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in parameters[2:])


@pytest.mark.parametrize("name", methods())
def test_traits_are_those_of_the_signature(name):
    """What the pipeline passes, the method takes; and all that limit what stays take the same options."""
    assert traits(name).learns == ("teacher" in OPTIONS[name])
    assert traits(name).resumes == ("progress" in OPTIONS[name])
    assert not traits(name).removes or {"ratio", "parameters", "bytes", "latency"} <= OPTIONS[name]
    assert (traits(name).changes == "units") == (traits(name).removes and "multiple" in OPTIONS[name])


@pytest.mark.parametrize("name", [*PRUNING, *(name for name, *_ in OTHERS if name not in DECODERS)])
def test_the_model_itself_is_changed(name, encoder, calibration):
    options = {other: options for other, options, _ in OTHERS}.get(name, {"ratio": 0.5})
    model = copy.deepcopy(encoder)
    assert methods()[name](model, calibration, **grouped(methods()[name], options)) is model


def test_steps_run_one_after_another(encoder, calibration, tokenizer, tmp_path):
    small = compress("wanda", compress("kprune", encoder, calibration, ratio=0.5), calibration, ratio=0.5)
    io.save(small, tokenizer, tmp_path / "m", {})
    again = compress("kprune", io.load(tmp_path / "m")[0], calibration, ratio=0.5)
    assert flops(again, 40) < 0.3 * flops(encoder, 40)


def test_kprune_keeps_what_matters(decoder, tokenizer, texts):
    """On real text the pruned model stays far closer to the teacher than magnitude does at the same FLOPs."""
    data = batches(tokenizer, cut(tokenizer, texts, 3000, 128, seed=0))
    held_out = batches(tokenizer, cut(tokenizer, texts, 1000, 128, seed=1))[0]
    teacher = logits(decoder[0], held_out)

    def distance(name):
        student = logits(compress(name, decoder[0], data, ratio=0.3), held_out)
        return float(divergence(student, teacher, held_out["attention_mask"], 1.0).mean())

    assert distance("kprune") < 0.3 * distance("magnitude")


def test_least_squares_against_numpy_and_without_data():
    a, b, old = (torch.randn(*s, dtype=torch.float64) for s in ((50, 6), (50, 3), (6, 3)))
    found = least_squares(a.T @ a, a.T @ b, old, 0.0)
    torch.testing.assert_close(found, torch.linalg.lstsq(a, b).solution)
    a[:, 2] = 0  # a direction without data keeps its old weights
    found = least_squares(a.T @ a, a.T @ b, old, 1e-8)
    torch.testing.assert_close(found[2], old[2])


def test_divergence_against_its_definition():
    s, t = torch.randn(4, 7, 5).double(), torch.randn(4, 7, 5).double()
    mask = torch.ones(4, 7)
    mask[1, 3:] = 0
    p, q = (s / 2).softmax(-1), (t / 2).softmax(-1)
    each = 4 * (p * (p / q).log()).sum(-1)
    expected = torch.stack([each[0].mean(), each[1, :3].mean(), each[2].mean(), each[3].mean()])
    torch.testing.assert_close(divergence(s, t, mask, 2.0), expected)
    torch.testing.assert_close(divergence(s[:, :1, :1], t[:, :1, :1], mask[:, :1], 2.0), (s - t)[:, 0, 0] ** 2)


@pytest.mark.parametrize("shape", [(1, 3), (6, 3), (1, 1), (4, 1)])
def test_curvature_probe_squares_to_the_second_derivative(shape):
    """Mean squared gradient against the Hessian of the divergence at zero, for one sample with one mask."""
    g = torch.Generator().manual_seed(0)
    base, direction = torch.randn(1, *shape, generator=g).double(), torch.randn(1, *shape, generator=g).double()
    tokens = torch.ones(1, shape[0])

    def value(m):
        return divergence(base + (m - 1) * direction, base, tokens, 2.0).sum()

    exact = torch.autograd.functional.hessian(value, torch.ones((), dtype=torch.float64))
    draws = 4000
    m = torch.ones(draws, dtype=torch.float64, requires_grad=True)
    logits = base + (m - 1).view(-1, 1, 1) * direction
    probe = curvature_probe(logits, tokens.expand(draws, -1), 2.0, g)
    gradient = torch.autograd.grad(probe.sum(), m)[0]
    assert gradient.square().mean().item() == pytest.approx(exact.item(), rel=0.1)
