"""Saving and loading: exact, atomic, by transformers alone in another process, never silently wrong."""

import copy
import json
import shlex
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from compress import export, pipeline
from compress.model import io, layers, modeling, storage, structure
from tests import rereader

ALONE = """
import sys, torch, transformers
assert "compress" not in sys.modules
for name in ("AutoModelForSequenceClassification", "AutoModelForCausalLM"):
    cls, folder = getattr(transformers, name), name
    try:
        cls.from_pretrained(folder)
        print("loaded without remote code")
    except Exception as error:
        print(type(error).__name__)
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


def test_transformers_alone_reloads_in_another_process_and_refuses_without_remote_code(
    encoder, decoder, tokenizer, tmp_path
):
    models = {"AutoModelForSequenceClassification": encoder, "AutoModelForCausalLM": decoder[0]}
    for name, model in models.items():
        io.save(thinned(model), tokenizer, tmp_path / name, {"a": 1})
    command = [sys.executable, "-c", ALONE]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert "loaded without" not in done.stdout and "cache agrees" in done.stdout
    ids = torch.arange(24).view(2, 12)
    for name in models:
        found = torch.load(tmp_path / name / "logits.pt", weights_only=True)
        with torch.no_grad():
            again = io.load(tmp_path / name)[0](input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        assert torch.equal(again, found)


def test_shapes_in_the_file_shrink_and_types_are_kept(decoder, tokenizer, tmp_path):
    from safetensors import safe_open

    io.save(thinned(decoder[0]), tokenizer, tmp_path / "m", {})
    with safe_open(tmp_path / "m/model.safetensors", "pt") as file:
        shapes = {k: tuple(file.get_slice(k).get_shape()) for k in file.keys()}
        types = {file.get_tensor(k).dtype for k in shapes}
    assert shapes["model.layers.2.mlp.up_proj.weight"][0] < 512
    assert not any(k.startswith("model.layers.0.self_attn") for k in shapes)
    assert "lm_head.weight" not in shapes and types == {torch.float16, torch.uint8}


def test_a_model_that_is_used_up_is_written_all_the_same(decoder, tokenizer, tmp_path):
    kept, used = thinned(decoder[0]), thinned(decoder[0])
    before = {k: v.clone() for k, v in kept.state_dict().items()}
    one, other = io.save(kept, tokenizer, tmp_path / "one"), io.save(used, tokenizer, tmp_path / "other", keep=False)
    assert all((other / file.name).read_bytes() == file.read_bytes() for file in one.iterdir())
    assert not sum(p.numel() for p in used.parameters())
    assert all(torch.equal(before[k], v) for k, v in kept.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_stays_as_it_is_when_it_is_saved(dtype, decoder, tokenizer, tmp_path):
    model = thinned(decoder[0])
    storage.cast(model, dtype)
    model.config.dtype = dtype
    before = {k: v.clone() for k, v in model.state_dict().items()}
    io.save(model, tokenizer, tmp_path / "m")
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(v, after[k]) for k, v in before.items())


def test_what_was_not_changed_stays_a_plain_model(decoder, tmp_path):
    io.save(*decoder, tmp_path / "m", {})
    config = json.loads((tmp_path / "m/config.json").read_text())
    assert config["model_type"] == "llama" and "auto_map" not in config
    assert not (tmp_path / "m/modeling.py").exists()


def test_a_difference_after_reloading_is_an_error_and_leaves_nothing(decoder, tmp_path, monkeypatch):
    monkeypatch.setattr(layers.Bitmask, "unpack", lambda self: torch.zeros(self.rows, self.columns))
    with pytest.raises(RuntimeError, match="differs after reloading"):
        io.save(thinned(decoder[0]), decoder[1], tmp_path / "m", {})
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
        io.save(*decoder, tmp_path / "m", {})
    assert "\n" not in str(found.value) and list(tmp_path.iterdir()) == []


def test_weights_that_are_not_finite_are_refused_by_name(encoder, tokenizer, tmp_path):
    broken = copy.deepcopy(encoder)
    broken.bert.encoder.layer[1].output.dense.weight.data[3, 5] = float("nan")
    broken.classifier.bias.data[0] = float("inf")
    broken.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"'bert.encoder.layer.1.output.dense.weight' holds NaN or infinity"):
        io.load(tmp_path)


def test_tokenizers_that_are_not_the_models_are_refused(encoder, tokenizer, root, tmp_path):
    copy.deepcopy(encoder).save_pretrained(tmp_path)  # it changes the config
    with pytest.raises(ValueError, match="has no tokenizer in it"):
        io.load(tmp_path)
    larger = AutoTokenizer.from_pretrained(root / "data/mixlm")
    larger.add_tokens(["<new>"])
    larger.save_pretrained(tmp_path)
    n = len(tokenizer)
    with pytest.raises(
        ValueError, match=f"the tokenizer has {n + 1} tokens, the model {n} embeddings: give the model's"
    ):
        io.load(tmp_path)


def test_a_slow_tokenizer_is_refused(encoder, tokenizer, tmp_path, monkeypatch):
    copy.deepcopy(encoder).save_pretrained(tmp_path)  # it changes the config
    tokenizer.save_pretrained(tmp_path)
    monkeypatch.setattr(type(tokenizer), "is_fast", False)
    with pytest.raises(ValueError, match="has a slow tokenizer .* need a fast tokenizer: save one as tokenizer.json"):
        io.load(tmp_path)


def test_weights_at_odd_addresses_load_to_equal_sums(encoder, tokenizer, tmp_path):
    """A file may hold a weight at any address; vector instructions then sum in another order."""
    io.save(encoder, tokenizer, tmp_path / "m", {})
    assert all(p.data_ptr() % 64 == 0 for p in io.load(tmp_path / "m")[0].parameters())


def test_models_that_cannot_be_loaded_are_refused(tmp_path, tokenizer):
    with pytest.raises(ValueError, match="neither a model folder nor a hub name"):
        io.load("nobody/nothing")
    with pytest.raises(ValueError, match="no config.json"):
        io.load(tmp_path)
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"architectures": ["Mystery"], "model_type": "mystery"}')
    with pytest.raises(ValueError, match="'Mystery' is none that can be compressed"):
        io.load(tmp_path)
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}')
    with pytest.raises(ValueError, match="lacks 291 of 291 weights that its config asks for"):
        io.load(tmp_path)


CUTS = {"direction": "Right", "max_length": 9, "strategy": "LongestFirst", "stride": 0}
PADS = {
    "strategy": {"Fixed": 12},
    "direction": "Left",
    "pad_to_multiple_of": None,
    "pad_id": 1,
    "pad_type_id": 0,
    "pad_token": "</s>",
}


@pytest.mark.parametrize("before", [(None, None), (CUTS, PADS)])
def test_a_tokenizer_is_written_as_it_was_read(before, root, texts, tmp_path, monkeypatch):
    """What reads tokenizer.json by the tokenizers library gets every token, unless the given one cut already."""
    source = shutil.copytree(root / "data/mixlm", tmp_path / "given")
    raw = json.loads((source / "tokenizer.json").read_text())
    (source / "tokenizer.json").write_text(json.dumps(raw | dict(zip(("truncation", "padding"), before))))
    step = pipeline.Step("wanda", {"ratio": 0.5})
    pipeline.run(
        str(source), [step, step], str(root / "data/text/math.txt"), tmp_path / "m", tokens=300
    )  # it reads and cuts
    model, tokenizer = io.load(source)
    tokenizer("one text, another one", truncation=True, max_length=5)
    io.save(model, tokenizer, tmp_path / "again", {})
    monkeypatch.setattr(export, "_compare", lambda *_: None)  # in a new process, which reads no tokenizer
    export.export(str(source), "torchao-dynamic", tmp_path / "exported")
    tokenizer(texts[0])
    long = " ".join(texts[:9])
    wanted = Tokenizer.from_file(str(source / "tokenizer.json")).encode(long).ids
    assert len(wanted) == (12 if before[1] else 9 if before[0] else 1276)
    for name in ("m", "again", "exported"):
        file = tmp_path / name / "tokenizer.json"
        assert Tokenizer.from_file(str(file)).encode(long).ids == wanted
        written = json.loads(file.read_text())
        assert (written["truncation"], written["padding"]) == before


def written_before(folder):
    """Make `folder` one of the first format: its code knows the cache by one name, its config has no format."""
    code, config = (folder / "layers.py").read_text(), json.loads((folder / "config.json").read_text())
    old = code.replace("find_cache([*args, *kwargs.values()])", 'kwargs.get("past_key_values")')
    assert old != code and config["compressed"].pop("format") == modeling.FORMAT
    (folder / "layers.py").write_text(old)
    (folder / "config.json").write_text(json.dumps(config))


def test_a_folder_whose_own_code_forgets_the_cache_is_read_rightly_and_says_how_to_rewrite_it(
    decoder, calibration, reread, tmp_path, monkeypatch
):
    model = copy.deepcopy(decoder[0])
    attention = structure.sublayers(model)[0]
    structure.remove(model, attention, torch.zeros(attention.units, dtype=torch.bool))
    io.save(model, decoder[1], tmp_path / "old", {"steps": []})
    written_before(tmp_path / "old")
    auto = "AutoModelForCausalLM"
    alone = reread(tmp_path / "old", auto, calibration[0])
    assert (alone["cached left"] - alone["alone"]).abs().max() > 0.5  # the fault, and with it other text
    assert not torch.equal(alone["written cached"], alone["written"])
    monkeypatch.chdir(tmp_path)
    with pytest.warns(UserWarning, match="was written by an earlier version") as caught:
        again, _ = io.load("old")
    assert type(again.model.layers[0].self_attn) is layers.NoAttention  # the module of the package
    with torch.no_grad():
        rows = [ids[mask.bool()][:20] for ids, mask in zip(*calibration[0].values())][::3]
        rereader.check_generation(rereader.generation(again, rows))
    message = str(caught.list[0].message)
    assert "\n" not in message and len(caught) == 1
    command = shlex.split(message.partition("rewrite it: ")[2])
    assert command[:2] == ["python", "-c"] and len(command) == 3
    exec(command[2], {})
    assert (tmp_path / "NEW/layers.py").read_text() == Path(layers.__file__).read_text()
    assert json.loads((tmp_path / "NEW/compression.json").read_text()) == {"steps": []}
    rereader.check_generation(reread(tmp_path / "NEW", auto, calibration[0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        io.load("NEW")
