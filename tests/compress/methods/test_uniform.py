"""shape=uniform: every layer keeps as many heads and neurons, so that a plain model is left."""

import json
import warnings

import pytest
import torch
import transformers

from compress.algorithms.budget import budget, flops, uniform_counts
from compress.algorithms.options import UnitLimits
from compress.algorithms.resume import Progress
from compress.model import io, structure
from tests.compress.methods.test_architectures import batches, build, logits
from tests.conftest import compressed

UNIFORM = {"ratio": 0.5, "shape": "uniform"}
every_way = pytest.mark.parametrize("method", ["kprune", "kwon", "magnitude"])
warned = pytest.mark.filterwarnings("ignore:shape=uniform removes neurons alone", "ignore:.*calibration tokens are")


def sizes(model):
    """Units of the attentions, and of the feed-forward networks."""
    return [{s.units for s in structure.sublayers(model) if s.kind == kind} for kind in ("attention", "ffn")]


@warned
@every_way
@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma3_text", "granite", "bert", "distilbert", "gpt2", "phi3"])
def test_what_is_left_is_a_plain_model(kind, method, letters, tmp_path):
    model, data = build(kind), batches()
    small = compressed(method, model, data, ratio=0.3, shape="uniform")
    (heads,), (neurons,) = sizes(small)
    assert heads == sizes(model)[0].pop() or kind in ("llama", "qwen3", "gemma3_text")
    assert 0 < neurons < 48 and heads > 0
    tokens = sum(int(b["attention_mask"].sum()) for b in data) / 16
    assert abs(flops(small, tokens) / flops(model, tokens) - 0.7) < 0.08
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
    assert uniform_counts(model, scores, limit) == least[min(least)]


def test_neurons_alone_go_where_the_config_has_no_width_of_a_head_and_it_is_said():
    with pytest.warns(UserWarning, match="neurons alone and leaves the 4 heads: the config of a bert has no head_dim"):
        compressed("magnitude", build("bert"), batches(), ratio=0.2, shape="uniform")


@warned
def test_what_no_shape_comes_to_is_refused():
    with pytest.raises(ValueError, match="which no number of heads and neurons that is the same in every layer comes"):
        compressed("magnitude", build("bert"), batches(), ratio=0.9, shape="uniform")
    free = compressed("magnitude", build("llama"), batches(), ratio=0.3)
    with pytest.raises(ValueError, match="takes layers of one size, but attention differs: give the dense model"):
        compressed("magnitude", free, batches(), ratio=0.5, shape="uniform")
    with pytest.raises(ValueError, match="unit=weights takes only ratio or pattern"):
        compressed("magnitude", build("llama"), batches(), unit="weights", **UNIFORM)


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
