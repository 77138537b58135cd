"""shape=uniform: every layer keeps as many heads and neurons, so that a plain model is left."""

import json
import warnings

import pytest
import torch
import transformers

from compress import pipeline
from compress.algorithms.budget import budget, flops, uniform_counts
from compress.algorithms.options import UnitLimits
from compress.algorithms.resume import Progress
from compress.model import io, structure
from compress.pipeline import Step
from tests.compress.methods.test_architectures import batches, build, logits
from tests.conftest import compressed

UNIFORM = {"ratio": 0.5, "shape": "uniform"}
every_way = pytest.mark.parametrize("method", ["kprune", "kwon", "magnitude"])
warned = pytest.mark.filterwarnings(
    "ignore:shape=uniform removes neurons", "ignore:.*calibration tokens are", "ignore:head_dim=8 is in the config"
)
HEADS_GO = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "smollm3",
    "granite",
    "gemma2",
    "gemma3_text",
    "olmo2",
    "olmo3",
    "phi3",
)


def sizes(model):
    """Units of the attentions, and of the feed-forward networks."""
    return [{s.units for s in structure.sublayers(model) if s.kind == kind} for kind in ("attention", "ffn")]


@warned
@every_way
@pytest.mark.parametrize("kind", [*HEADS_GO, "bert", "deberta-v2", "distilbert", "gpt2", "gpt_neox", "modernbert"])
def test_what_is_left_is_a_plain_model(kind, method, letters, tmp_path):
    model, data = build(kind), batches()
    ratio = 0.55 if kind in HEADS_GO else 0.3  # neurons alone do not come to more than half
    small = compressed(method, model, data, ratio=ratio, shape="uniform")
    (heads,), (neurons,) = sizes(small)
    assert heads == (1 if kind in HEADS_GO else sizes(model)[0].pop()) and 0 < neurons < 48
    tokens = sum(int(b["attention_mask"].sum()) for b in data) / 16
    assert abs(flops(small, tokens) / flops(model, tokens) - (1 - ratio)) < 0.08
    folder = io.save(small, letters, tmp_path / "small", {})
    assert not list(folder.glob("*.py")) and json.loads((folder / "config.json").read_text())["model_type"] == kind
    alone = getattr(transformers, type(model).__name__).from_pretrained(folder).eval()
    torch.testing.assert_close(logits(alone, data[0]), logits(small, data[0]), rtol=1e-4, atol=1e-5)


@warned
@every_way
def test_it_is_the_free_shape_where_nothing_goes(method):
    model, data = build("llama"), batches()
    same = compressed(method, model, data, ratio=0.0, shape="uniform")
    assert torch.equal(logits(same, data[0]), logits(model, data[0])) and same.config.intermediate_size == 48


def test_the_shape_is_that_of_least_loss():
    """Against all pairs of numbers."""
    model = build("llama")
    limit = budget(model, 10.0, UnitLimits(**UNIFORM))
    generator = torch.Generator().manual_seed(0)
    scores = [torch.rand(s.units, generator=generator, dtype=torch.float64) for s in limit.found]
    least = {}
    for heads in (1, 2):
        for neurons in range(1, 49):
            counts = [heads if s.kind == "attention" else neurons for s in limit.found]
            cost = sum(n * c for n, c in zip(counts, limit.costs))
            if cost <= limit.allowed:
                lost = sum(
                    c * float(s.sort().values[: len(s) - n].sum()) for s, c, n in zip(scores, limit.costs, counts)
                )
                least[lost] = counts
    assert uniform_counts(scores, limit) == least[min(least)]


@pytest.mark.parametrize(
    ("kind", "settings", "what"),
    [("bert", {}, "heads than 4"), ("qwen3", {"num_key_value_heads": 1}, "key-value groups than 1")],
)
def test_neurons_alone_go_where_no_config_has_fewer_heads_and_it_is_said(kind, settings, what):
    model = build(kind, **settings)
    with pytest.warns(UserWarning, match=f"removes neurons alone: no {kind} of width 32 has fewer {what}$"):
        small = compressed("magnitude", model, batches(), ratio=0.2, shape="uniform")
    assert sizes(small)[0] == sizes(model)[0] and sizes(small)[1] != sizes(model)[1]


def test_a_setting_that_others_may_not_read_is_said():
    with pytest.warns(UserWarning, match="head_dim=8 is in the config of a smollm3 now: transformers reads it there"):
        small = compressed("magnitude", build("smollm3"), batches(), ratio=0.55, shape="uniform")
    assert (small.config.head_dim, small.config.num_attention_heads, small.config.num_key_value_heads) == (8, 2, 1)


@warned
@pytest.mark.parametrize("method", ["kprune", "kwon", "magnitude"])
def test_what_no_shape_comes_to_is_refused_before_the_work(method, monkeypatch):
    """Not one forward is run."""
    model, data = build("bert"), batches()
    monkeypatch.setattr(type(model), "forward", None)
    text = (
        r"may stay, which layers of one size miss: give another limit \(they take 2.002e\+05 at least\), or shape=free"
    )
    with pytest.raises(ValueError, match=text):
        compressed(method, model, data, ratio=0.9, shape="uniform")


@warned
def test_layers_of_several_sizes_are_refused():
    free = compressed("magnitude", build("llama"), batches(), ratio=0.3)
    with pytest.raises(ValueError, match="takes layers of one size, but attention differs: give the dense model"):
        compressed("magnitude", free, batches(), ratio=0.5, shape="uniform")
    with pytest.raises(ValueError, match="unit=weights takes only ratio or pattern"):
        compressed("magnitude", build("llama"), batches(), unit="weights", **UNIFORM)


def test_steps_that_leave_several_sizes_are_refused_before_the_first(letters):
    uniform, model = Step("kprune", UNIFORM), build("llama")
    for before in (Step("kwon", {}), Step("sublayer", {})):
        with pytest.raises(ValueError, match=f"takes layers of one size, {before.method} leaves several: leave it out"):
            pipeline.check_fit([before, uniform], model, letters)
    for before in (uniform, Step("depth", {}), Step("magnitude", {"unit": "weights"})):
        pipeline.check_fit([before, uniform], model, letters)
    pipeline.check_fit([Step("magnitude", {"unit": "weights"}), Step("gptq", {"group": 16})], model, letters)


@warned
def test_a_run_goes_on_with_the_shape_that_it_had(tmp_path):
    model, data, folder = build("qwen3"), batches(), tmp_path / "step"
    folder.mkdir()
    whole = compressed("kprune", model, data, progress=Progress(folder), **UNIFORM)
    sorted(folder.glob("*.safetensors"))[-1].unlink()
    again = compressed("kprune", model, data, progress=Progress(folder), **UNIFORM)
    assert torch.equal(logits(again, data[0]), logits(whole, data[0])) and sizes(again) == sizes(whole)


@warned
def test_a_multiple_is_kept_and_the_result_is_pruned_once_more():
    model, data = build("qwen3"), batches()
    small = compressed("magnitude", model, data, ratio=0.4, shape="uniform", multiple=8)
    assert small.config.intermediate_size % 8 == 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = compressed("kprune", small, data, ratio=0.3, shape="uniform")
    assert again.config.intermediate_size < 48 and flops(again, 10) < 0.55 * flops(model, 10)
