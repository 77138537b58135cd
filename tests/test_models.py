"""Saving and loading: exact, atomic, by transformers alone in another process, never silently wrong."""

import copy
import json
import subprocess
import sys

import pytest
import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoTokenizer

from compress import layers, models, structure

ALONE = """
import sys, torch, transformers
folder, auto = sys.argv[1:]
assert "compress" not in sys.modules
try:
    getattr(transformers, auto).from_pretrained(folder)
    print("loaded without remote code")
except Exception as error:
    print(type(error).__name__)
cls = getattr(transformers, auto)
model = cls.from_pretrained(folder, trust_remote_code=True, dtype=torch.float32).eval()
ids = torch.arange(24).view(2, 12)
with torch.no_grad():
    torch.save(model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits, folder + "/logits.pt")
if hasattr(model, "lm_head"):
    generate = dict(max_new_tokens=6, do_sample=False, pad_token_id=1)
    a, b = (model.generate(ids, **generate, use_cache=c).tolist() for c in (True, False))
    print("cache agrees" if a == b else "cache differs")
"""


def thinned(model):
    """A copy that lost half of its units, all heads of the first block, and many single weights."""
    model = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    for sub in structure.sublayers(model):
        keep = torch.rand(sub.units, generator=generator) < 0.5
        structure.remove(model, sub, keep & (sub.block != 0 or sub.kind != "attention"))
    weight = model.get_submodule(structure.sublayers(model)[-1].output).weight
    weight.data[torch.rand(weight.shape, generator=generator) < 0.6] = 0
    return model


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_transformers_alone_reloads_in_another_process_and_refuses_without_remote_code(
    kind, request, tokenizer, tmp_path
):
    model = request.getfixturevalue(kind)
    model = thinned(model if kind == "encoder" else model[0])
    folder = models.save(model, tokenizer, tmp_path / "m", {"a": 1})
    auto = "AutoModelForCausalLM" if kind == "decoder" else "AutoModelForSequenceClassification"
    command = [sys.executable, "-c", ALONE, str(folder), auto]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert "loaded without" not in done.stdout
    assert kind == "encoder" or "cache agrees" in done.stdout
    found = torch.load(folder / "logits.pt", weights_only=True)
    ids = torch.arange(24).view(2, 12)
    with torch.no_grad():
        assert torch.equal(models.load(folder)[0](input_ids=ids, attention_mask=torch.ones_like(ids)).logits, found)


def test_shapes_in_the_file_shrink_and_types_are_kept(decoder, tokenizer, tmp_path):
    from safetensors import safe_open

    models.save(thinned(decoder[0]), tokenizer, tmp_path / "m", {})
    with safe_open(tmp_path / "m/model.safetensors", "pt") as file:
        shapes = {k: tuple(file.get_slice(k).get_shape()) for k in file.keys()}
        types = {file.get_tensor(k).dtype for k in shapes}
    assert shapes["model.layers.2.mlp.up_proj.weight"][0] < 512
    assert not any(k.startswith("model.layers.0.self_attn") for k in shapes)
    assert "lm_head.weight" not in shapes and types == {torch.float16, torch.uint8}


def test_what_was_not_changed_stays_a_plain_model(decoder, tmp_path):
    models.save(*decoder, tmp_path / "m", {})
    config = json.loads((tmp_path / "m/config.json").read_text())
    assert config["model_type"] == "llama" and "auto_map" not in config
    assert not (tmp_path / "m/modeling.py").exists()


def test_a_difference_after_reloading_is_an_error_and_leaves_nothing(decoder, tmp_path, monkeypatch):
    monkeypatch.setattr(layers.Bitmask, "unpack", lambda self: torch.zeros(self.rows, self.columns))
    with pytest.raises(RuntimeError, match="differs after reloading"):
        models.save(thinned(decoder[0]), decoder[1], tmp_path / "m", {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shape", [(3, 5), (8, 8), (1, 17)])
def test_bitmask_is_exact(shape):
    linear = torch.nn.Linear(shape[1], shape[0])
    linear.weight.data[torch.rand(shape) < 0.6] = 0
    packed = layers.PackedLinear(layers.Bitmask.pack(linear.weight), bias=True)
    packed.bias = linear.bias
    assert torch.equal(packed.weight, linear.weight)
    x = torch.randn(2, 4, shape[1])
    assert torch.equal(packed(x), linear(x))


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("I/O error: No space left")])
def test_a_full_disk_is_an_os_error_and_leaves_nothing(error, decoder, tmp_path, monkeypatch):
    def full(self, folder, *args, **kwargs):
        (folder / "model.safetensors").write_bytes(b"half")
        raise error

    monkeypatch.setattr(transformers.PreTrainedModel, "save_pretrained", full)
    with pytest.raises(OSError, match="m cannot be written: .*No space left") as found:
        models.save(*decoder, tmp_path / "m", {})
    assert "\n" not in str(found.value) and list(tmp_path.iterdir()) == []


def test_weights_that_are_not_finite_are_refused_by_name(encoder, tokenizer, tmp_path):
    broken = copy.deepcopy(encoder)
    broken.bert.encoder.layer[1].output.dense.weight.data[3, 5] = float("nan")
    broken.classifier.bias.data[0] = float("inf")
    broken.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"'bert.encoder.layer.1.output.dense.weight' holds NaN or infinity"):
        models.load(tmp_path)


def test_tokenizers_that_are_not_the_models_are_refused(encoder, tokenizer, root, tmp_path):
    copy.deepcopy(encoder).save_pretrained(tmp_path)  # it changes the config
    with pytest.raises(ValueError, match="has no tokenizer in it"):
        models.load(tmp_path)
    larger = AutoTokenizer.from_pretrained(root / "data/mixlm")
    larger.add_tokens(["<new>"])
    larger.save_pretrained(tmp_path)
    n = len(tokenizer)
    with pytest.raises(
        ValueError, match=f"the tokenizer has {n + 1} tokens, the model {n} embeddings: give the model's"
    ):
        models.load(tmp_path)


def test_a_slow_tokenizer_is_refused(encoder, tokenizer, tmp_path, monkeypatch):
    copy.deepcopy(encoder).save_pretrained(tmp_path)  # it changes the config
    tokenizer.save_pretrained(tmp_path)
    monkeypatch.setattr(type(tokenizer), "is_fast", False)
    with pytest.raises(ValueError, match="has a slow tokenizer .* need a fast tokenizer: save one as tokenizer.json"):
        models.load(tmp_path)


def test_weights_at_odd_addresses_load_to_equal_sums(encoder, tokenizer, tmp_path):
    """A file may hold a weight at any address; vector instructions then sum in another order."""
    models.save(encoder, tokenizer, tmp_path / "m", {})
    assert all(p.data_ptr() % 64 == 0 for p in models.load(tmp_path / "m")[0].parameters())


def test_models_that_cannot_be_loaded_are_refused(tmp_path, tokenizer):
    with pytest.raises(ValueError, match="neither a model folder nor a hub name"):
        models.load("nobody/nothing")
    with pytest.raises(ValueError, match="no config.json"):
        models.load(tmp_path)
    (tmp_path / "config.json").write_text('{"architectures": ["Mystery"], "model_type": "mystery"}')
    with pytest.raises(ValueError, match="'Mystery' has no head to compress for"):
        models.load(tmp_path)
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}')
    with pytest.raises(ValueError, match="cannot be loaded"):
        models.load(tmp_path)
