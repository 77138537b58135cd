"""A model folder is read completely or refused by name, in memory, streamed and before its weights are read."""

import json
import re
import shutil
import subprocess
import sys

import pytest
import torch
import transformers
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from cli import main
from compress.evaluation import evaluate
from compress.model import io, walk
from tests.compress.model.test_structure import BATCH, SMALL, build
from tests.conftest import DATA, compressed
from transmeter.util import checkpoint

WEIGHTS = checkpoint.WEIGHTS


@pytest.fixture(scope="module")
def sound(letters, tmp_path_factory):
    """Folders of a random Llama, BERT and GPT-2 of two blocks."""
    work = tmp_path_factory.mktemp("sound")
    return {name: io.save(build(name), letters, work / name, {}) for name in ("llama", "bert", "gpt2")}


@pytest.fixture
def copy(sound, tmp_path):
    """Makes a folder of that name that may be changed."""
    return lambda name: shutil.copytree(sound[name], tmp_path / "m")


def config(folder, changes=(), without=(), **more):
    """Change config.json."""
    content = json.loads((folder / "config.json").read_text())
    content = {k: v for k, v in content.items() if k not in without} | dict(changes) | more
    (folder / "config.json").write_text(json.dumps(content))


def tensors(folder, change):
    """Change the weights, which `change` takes and gives as a dict."""
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS, {"format": "pt"})


def lacking(*parts):
    """A change that leaves out tensors by a part of their names."""
    return lambda folder: tensors(folder, lambda t: {k: v for k, v in t.items() if not any(p in k for p in parts)})


def writing(name, text):
    """A change that writes a file."""
    return lambda folder: (folder / name).write_text(text)


def setting(without=(), **changes):
    """A change of config.json."""
    return lambda folder: config(folder, changes, without)


def logits(model):
    """Logits of a fixed batch, (batch, rows, classes)."""
    with torch.no_grad():
        return walk.outputs(model, model(**BATCH), BATCH)


REFUSED = {
    "a tensor is missing": ("llama", lacking("1.mlp.up_proj"), "lacks 1 of 21 weights .*model.layers.1.mlp.up_proj.we"),
    "a norm is missing": ("bert", lacking("1.output.LayerNorm.bias"), "lacks 1 of 41 weights .*layer.1.output.LayerN"),
    "the head is missing": ("bert", lacking("classifier"), "lacks 2 of 41 .*classifier.bias, classifier.weight"),
    "too many layers": (
        "llama",
        setting(num_hidden_layers=8),
        "lacks 54 of 75 .*layers.2.input_layernorm.weight, .*, ",
    ),
    "endless layers": (
        "llama",
        setting(num_hidden_layers=10**9),
        "num_hidden_layers 1000000000 .* files hold 21 weights",
    ),
    "endless labels": ("bert", setting(num_labels=10**9), "num_labels 1000000000 in config.json is more than 100000"),
    "endless positions": (
        "bert",
        setting(max_position_embeddings=10**12),
        r"\(40, 16\), its config asks for \(10000000",
    ),
    "too few layers": ("llama", setting(num_hidden_layers=1), r"does not have \(9: model.layers.1.input_layernorm"),
    "too few, BERT": ("bert", setting(num_hidden_layers=1), r"does not have \(16: bert.encoder.layer.1.attention"),
    "too few, GPT-2": ("gpt2", setting(n_layer=1), r"does not have \(11: transformer.h.1.attn.c_attn"),
    "another shape": (
        "llama",
        setting(vocab_size=51),
        r"'lm_head.weight' is \(50, 16\), its config asks for \(51, 16\)",
    ),
    "integers": (
        "llama",
        lambda f: tensors(f, lambda t: {k: v.to(torch.int8) for k, v in t.items()}),
        "is stored as I8, its config asks for F64, F32, F16, BF16",
    ),
    "cut off": (
        "llama",
        lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-100]),
        "model.safetensors is broken .*: give a sound copy",
    ),
    "no weights": ("llama", lambda f: (f / WEIGHTS).unlink(), "has no weights that transformers reads: it has neither"),
    "pickled": (
        "llama",
        lambda f: (f / WEIGHTS).rename(f / "pytorch_model.bin"),
        "pytorch_model.bin is pickled .*LlamaForCausalLM as M; M.from_pretrained",
    ),
    "a shard is missing": (
        "llama",
        lambda f: (
            writing(checkpoint.INDEX, '{"metadata": {}, "weight_map": {"x": "one.safetensors"}}')(f),
            (f / WEIGHTS).unlink(),
        ),
        "the file one.safetensors is missing: give a complete copy",
    ),
    "a shard elsewhere": (
        "llama",
        lambda f: (
            writing(checkpoint.INDEX, '{"metadata": {}, "weight_map": {"x": "../x.safetensors"}}')(f),
            (f / WEIGHTS).unlink(),
        ),
        "'../x.safetensors' is not a safetensors file in the folder",
    ),
    "an index without names": (
        "llama",
        lambda f: (writing(checkpoint.INDEX, "{}")(f), (f / WEIGHTS).unlink()),
        "model.safetensors.index.json has no weight_map",
    ),
    "an index without metadata": (
        "llama",
        lambda f: (writing(checkpoint.INDEX, '{"weight_map": {"x": "one.safetensors"}}')(f), (f / WEIGHTS).unlink()),
        'has no metadata, without which transformers fails: add "metadata": {}',
    ),
    "named weights": ("llama", setting(transformers_weights="other.safetensors"), "the file other.safetensors is miss"),
    "an adapter": (
        "llama",
        writing("adapter_config.json", '{"task_type": "SEQ_CLS"}'),
        "holds an adapter .*merge it first, .*AutoPeftModelForSequenceClassification as M.*merge_and_unload",
    ),
    "layers as text": ("llama", setting(num_hidden_layers="2"), "num_hidden_layers '2' in config.json is not a whole"),
    "layers below zero": ("llama", setting(num_hidden_layers=-1), "num_hidden_layers -1 .* not a whole number of 1 or"),
    "layers of GPT-2": ("gpt2", setting(n_layer=True), "n_layer True in config.json is not a whole number"),
    "heads": ("bert", setting(num_attention_heads=3), "num_attention_heads 3 does not divide hidden_size 16"),
    "key-value heads": (
        "llama",
        setting(num_key_value_heads=3),
        "num_key_value_heads 3 does not divide num_attention_",
    ),
    "an unknown function": ("llama", setting(hidden_act="foo"), "cannot be loaded: .*'foo'.*with the original's"),
    "another kind of value": ("llama", setting(rms_norm_eps="x"), "cannot be loaded: .*'rms_norm_eps' expected float"),
    "a window of no tokens": (
        "llama",
        setting(sliding_window=0),
        "sliding_window 0 in config.json is not a whole number",
    ),
    "a window as text": (
        "gpt2",
        setting(sliding_window="x"),
        "sliding_window 'x' in config.json is not a whole number",
    ),
    "results without names": ("bert", setting(return_dict=False), "with return_dict false .* set it to true"),
    "a switch as text": (
        "llama",
        setting(output_hidden_states="x"),
        "output_hidden_states 'x' .* neither true nor fal",
    ),
    "labels": (
        "bert",
        setting(num_labels=3, id2label={"0": "a", "1": "b"}),
        "num_labels 3 and the 2 names of id2label differ",
    ),
    "another type": ("llama", setting(model_type="gpt2"), "'gpt2' does not belong to LlamaForCausalLM"),
    "names that are none": ("llama", setting(architectures="Llama"), "architectures 'Llama' .* is not a list of names"),
    "no JSON": ("llama", writing("config.json", "{"), "config.json cannot be read as JSON"),
    "deep JSON": ("llama", writing("config.json", "[" * 100_000), "config.json cannot be read as JSON"),
    "no object": ("llama", writing("config.json", "[]"), "config.json holds no JSON object"),
    "a broken tokenizer": ("llama", writing("tokenizer.json", "{"), "its tokenizer is broken .*: put the files"),
    "broken generation": ("llama", writing("generation_config.json", "{"), "generation_config.json cannot be read"),
    "GPTQ": (
        "llama",
        setting(quantization_config={"quant_method": "gptq"}),
        r"is quantized already \(gptq\).*give the m",
    ),
    "bitsandbytes": (
        "llama",
        setting(quantization_config={"load_in_4bit": True}),
        r"quantized already \(bitsandbytes\)",
    ),
    "old GPTQ": ("llama", writing("quantize_config.json", "{}"), r"is quantized already \(gptq\).*transmeter evaluate"),
}


@pytest.mark.parametrize("name, change, message", REFUSED.values(), ids=REFUSED)
def test_what_is_refused(name, change, message, copy):
    folder = copy(name)
    change(folder)
    for read in (io.load, io.skeleton, lambda f: io.load(f, stream=True)):
        with pytest.raises(ValueError, match=message) as error:
            read(folder)
        assert "\n" not in str(error.value) and str(error.value).startswith(str(folder))


TAKEN = {
    "an older copy beside": ("llama", lambda f: save_file({"x": torch.ones(1)}, f / "model_old.safetensors"), None),
    "a stale index": ("llama", writing(checkpoint.INDEX, '{"weight_map": {"x": "gone.safetensors"}}'), None),
    "pickles beside": ("llama", writing("training_args.bin", "pickled"), None),
    "named weights": (
        "llama",
        lambda f: (config(f, transformers_weights="other.safetensors"), (f / WEIGHTS).rename(f / "other.safetensors")),
        None,
    ),
    "no prefix": ("llama", lambda f: tensors(f, lambda t: {k.removeprefix("model."): v for k, v in t.items()}), None),
    "old names of norms": (
        "bert",
        lambda f: tensors(f, lambda t: {k.replace("LayerNorm.weight", "LayerNorm.gamma"): v for k, v in t.items()}),
        None,
    ),
    "buffers of old versions": (
        "gpt2",
        lambda f: tensors(
            f, lambda t: t | {f"transformer.h.0.attn.{n}": torch.ones(1) for n in ("bias", "masked_bias")}
        ),
        None,
    ),
    "frequencies of old versions": (
        "llama",
        lambda f: tensors(f, lambda t: t | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2)}),
        None,
    ),
    "a head of the pre-training": (
        "bert",
        lambda f: tensors(f, lambda t: t | {"cls.predictions.bias": torch.ones(2)}),
        r"holds weights that BertForSequenceClassification has no place for, .* \(1: cls.predictions.bias\)",
    ),
    "no dtype": ("llama", setting(without=("dtype",)), None),
    **{f"dtype {d}": ("llama", setting(dtype=d), None) for d in (None, "auto", "float16", "nonsense", 5)},
    "torch_dtype null": ("llama", setting(without=("dtype",), torch_dtype=None), None),
    "flash attention": (
        "llama",
        setting(attn_implementation="flash_attention_2"),
        "attn_implementation 'flash_attention_2' of config.json is not used: sdpa is",
    ),
}


@pytest.mark.parametrize("name, change, warning", TAKEN.values(), ids=TAKEN)
def test_what_is_taken(name, change, warning, copy, sound, letters, recwarn, tmp_path):
    folder = copy(name)
    change(folder)
    expected = logits(io.load(sound[name])[0])
    for read in (io.load, lambda f: io.load(f, stream=True), io.skeleton):
        model, _ = read(folder)
        assert model.config.dtype == torch.float32
        assert read is io.skeleton or torch.equal(logits(model), expected)
    assert [str(w.message).startswith(str(folder)) for w in recwarn] == [True] * (warning is not None)  # told once
    assert warning is None or re.search(warning, str(recwarn[0].message))
    model = io.load(folder)[0]
    assert torch.equal(logits(io.load(io.save(model, letters, tmp_path / "again", {}))[0]), expected)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_the_type_is_that_of_the_files(kind, copy, letters, tmp_path):
    folder = copy("llama")
    tensors(folder, lambda t: {k: v.to(kind) for k, v in t.items()})
    config(folder, without=("dtype",))
    for stream in (False, True):
        model, _ = io.load(folder, stream=stream)
        assert model.config.dtype == kind and model.dtype == torch.float32
        out = io.save(model, letters, tmp_path / f"{stream}", {})
        assert checkpoint.bytes_of(out) < 1.25 * checkpoint.bytes_of(folder)  # headers of several files
        assert {v.dtype for f in out.glob("*.safetensors") for v in load_file(f).values()} == {kind}


def test_several_types_are_told(copy):
    folder = copy("llama")
    tensors(folder, lambda t: {k: v if "norm" in k else v.bfloat16() for k, v in t.items()})
    with pytest.warns(UserWarning, match=r"several types \(bfloat16 5,440, float32 80\): results take bfloat16"):
        assert io.load(folder)[0].config.dtype == torch.bfloat16


def test_weights_that_the_config_ties_but_that_differ_are_told_and_kept(copy, letters, tmp_path):
    folder = copy("llama")
    config(folder, tie_word_embeddings=True)
    for stream in (False, True):
        with pytest.warns(UserWarning, match="ties lm_head.weight to model.embed_tokens.weight, but they differ"):
            model, _ = io.load(folder, stream=stream)
        again = io.load(io.save(model, letters, tmp_path / f"{stream}", {}))[0]
        assert torch.equal(logits(again), logits(model))


def test_tied_weights_may_be_stored_once_under_either_name(letters, tmp_path):
    cls, kind = transformers.LlamaForCausalLM, transformers.LlamaConfig
    folder = io.save(cls(kind(**SMALL, tie_word_embeddings=True)).eval(), letters, tmp_path / "m", {})
    expected = logits(io.load(folder)[0])
    tensors(folder, lambda t: {k.replace("model.embed_tokens", "lm_head"): v for k, v in t.items()})
    for stream in (False, True):
        assert torch.equal(logits(io.load(folder, stream=stream)[0]), expected)
    lacking("lm_head")(folder)
    with pytest.raises(ValueError, match="lacks 2 of 21 weights .*lm_head.weight, model.embed_tokens.weight"):
        io.load(folder)


def test_bytes_and_hash_are_of_what_is_read(copy):
    folder = copy("llama")
    size, digest = checkpoint.bytes_of(folder), checkpoint.hash_of(folder)
    assert size == (folder / WEIGHTS).stat().st_size
    for name in ("pytorch_model.bin", "training_args.bin", "model_old.safetensors", "notes.json"):
        (folder / name).write_bytes(b"x" * size)
    assert checkpoint.bytes_of(folder) == size and checkpoint.hash_of(folder) == digest
    (folder / "merges.txt").write_text("a b")  # tokenizes as much as tokenizer.json does
    assert checkpoint.hash_of(folder) != digest
    (folder / "merges.txt").unlink()
    tensors(folder, lambda t: t | {"model.norm.weight": t["model.norm.weight"] + 1})
    assert checkpoint.hash_of(folder) != digest


def test_a_quantizer_that_is_not_installed_is_named(copy):
    folder = copy("llama")
    config(folder, quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(ValueError, match="cannot be loaded: .*[Gg][Pp][Tt][Qq]") as error:
        io.load(folder, quantized=True)
    assert "\n" not in str(error.value) and "config.json" not in str(error.value)
    assert io.skeleton(folder, quantized=True)[0].num_parameters() == 5_520


def test_an_edited_section_of_changed_layers_is_refused(encoder, calibration, tokenizer, tmp_path):
    folder = io.save(compressed("svd", encoder, calibration, ratio=0.5), tokenizer, tmp_path / "m", {})
    section = json.loads((folder / "config.json").read_text())["compressed"]
    path, (kind, spec) = next(iter(section["layers"].items()))
    for changed, message in (
        ([], "section 'compressed' of config.json was edited"),
        (section | {"layers": {path: kind}}, "section 'compressed' of config.json was edited"),
        (section | {"tied": {"x": 1}}, "section 'compressed' of config.json was edited"),
        (section | {"layers": section["layers"] | {path: ["Other", spec]}}, "cannot be loaded: .*'Other'"),
        (section | {"layers": section["layers"] | {"no.where": [kind, spec]}}, "cannot be loaded: .*no"),
        (section | {"layers": section["layers"] | {path: [kind, spec | {"rank": 3}]}}, "its config asks for"),
        (section | {"layers": section["layers"] | {path: [kind, {}]}}, "cannot be loaded: .*missing"),
        (section | {"layers": {}}, "lacks .* weights that its config asks for"),
    ):
        config(folder, compressed=changed)
        for read in (io.load, io.skeleton):
            with pytest.raises(ValueError, match=message) as error:
                read(folder)
            assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "words",
    [
        ("compress", "--method", "round_to_nearest", "--out", "out"),
        ("evaluate", "--data", DATA / "text/math_sample.txt"),
        ("export", "--format", "torchao", "--out", "out"),
        ("calibrate", "--candidate", DATA / "text/math.txt", "--out", "out"),
    ],
)
def test_every_command_refuses_what_lacks_a_weight(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(DATA / "mixlm", tmp_path / "m")
    lacking("layers.3.mlp.up_proj")(folder)
    found = CliRunner().invoke(main, [words[0], "m", *map(str, words[1:])])
    assert found.exit_code == 2 and found.stdout == ""
    last = found.stderr.strip().splitlines()[-1]
    assert last.startswith(
        "Error: m lacks 1 of 57 weights that its config asks for (model.layers.3.mlp.up_proj.weight)"
    )
    assert not (tmp_path / "out").exists()


def test_the_command_that_merges_an_adapter_works(letters, tmp_path):
    from peft import LoraConfig, get_peft_model

    base = build("llama")
    base.save_pretrained(tmp_path / "base")
    adapted = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data += 0.5
    expected = logits(adapted)
    adapted.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    adapted.save_pretrained(tmp_path / "adapter")
    with pytest.raises(ValueError, match="holds an adapter") as error:
        io.load(tmp_path / "adapter")
    command = str(error.value).partition('python -c "')[2].partition('"')[0]
    subprocess.run([sys.executable, "-c", command], check=True, cwd=tmp_path, capture_output=True)
    letters.save_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(io.load(tmp_path / "merged")[0]), expected)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The small real Llama as compressed-tensors and as torchao write it."""
    work = tmp_path_factory.mktemp("exported")
    runner, model = CliRunner(), str(DATA / "mixlm")
    steps = ["--method", "round_to_nearest", "--set", "symmetric=true", "--set", "bits=8"]
    for words in (
        ["compress", model, *steps, "--out", str(work / "small")],
        ["export", str(work / "small"), "--format", "compressed-tensors", "--out", str(work / "compressed-tensors")],
        ["export", model, "--format", "torchao", "--out", str(work / "torchao")],
    ):
        found = runner.invoke(main, words)
        assert found.exit_code == 0, found.output
    return work


@pytest.mark.parametrize("shape", ["compressed-tensors", "torchao"])
def test_a_quantized_folder_is_measured_but_not_changed(shape, exported, tmp_path):
    folder = exported / shape
    made = exported / "small" if shape == "compressed-tensors" else DATA / "mixlm"
    words = ["compress", str(folder), "--method", "round_to_nearest", "--out", str(tmp_path / "out")]
    found = CliRunner().invoke(main, words)
    assert found.exit_code == 2 and f"is quantized already ({shape})" in found.stderr
    assert f"give {made}, of which it is the export; transmeter evaluate measures it" in found.stderr
    (result,) = evaluate.evaluate(folder, DATA / "text/math_heldout.txt", baseline=made, tokens=2_000)
    assert result["parameters"] == 3_443_136 and result["packed"] == [shape]
    assert result["flops"] == result["baseline"]["flops"] == 754_974_720
    assert result["bytes"] == (folder / WEIGHTS).stat().st_size < 6_892_248
    assert result["loss_change_nats"]["value"] == pytest.approx(0.0, abs=2e-3)
    assert result["helps"] == "disk; time where its kernels run"
