"""What outside software really does: every row of docs/compatibility.md, the library's side of it and transmeter's."""

import copy
import inspect
import json
import logging
import re
import shutil

import click
import numpy as np
import ot
import pandas as pd
import pytest
import torch
import transformers
from click.testing import CliRunner
from datasets import ClassLabel, Dataset, concatenate_datasets, load_from_disk
from safetensors.torch import load_file, save_file
from scipy.io import arff
from tokenizers import Tokenizer
from transformers import (
    AutoTokenizer,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from cli import main
from compress import gguf_files
from compress.calibration import toolkits
from compress.model import io, structure
from tests.compress.model.test_structure import SLIDING, SMALL, build
from tests.conftest import DATA, ROOT, letter_tokenizer
from transmeter.scorers import otdd
from transmeter.tables import files
from transmeter.util import checkpoint

WEIGHTS = checkpoint.WEIGHTS
IDS = torch.arange(9)[None] + 3
PAGE = (ROOT / "docs/compatibility.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| \*\*(.+?)\.\*\* .+ \| (.+?) \| .+ \| .+ \|$", PAGE, re.MULTILINE)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Folders of a random Llama and BERT of two blocks, as transformers writes them, with a tokenizer."""
    work, letters = tmp_path_factory.mktemp("sound"), letter_tokenizer()  # not one that another test made truncate
    for name in ("llama", "bert"):
        build(name).save_pretrained(work / name)
        letters.save_pretrained(work / name)
    return work


@pytest.fixture
def llama(sound, tmp_path):
    """The folder of the Llama, which may be changed."""
    return shutil.copytree(sound / "llama", tmp_path / "llama")


@pytest.fixture
def bert(sound, tmp_path):
    """The folder of the BERT, which may be changed."""
    return shutil.copytree(sound / "bert", tmp_path / "bert")


def edit(path, **changes):
    """Change keys of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def tensors(folder, change):
    """Change the weights, which `change` takes and gives as a dict."""
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS, {"format": "pt"})


@torch.no_grad()
def logits(model):
    """Logits of a fixed row."""
    return model(IDS).logits


def refused(folder, message):
    """Whether transmeter refuses a folder in one line, before it reads the weights and after."""
    for read in (io.skeleton, io.load):
        with pytest.raises(ValueError, match=message) as error:
            read(folder)
        assert "\n" not in str(error.value)


def same(folder, other):
    """Whether transmeter reads the same weights from both folders, in memory and streamed."""
    expected = logits(io.load(other)[0])
    return all(torch.equal(logits(io.load(folder, stream=stream)[0]), expected) for stream in (False, True))


@pytest.fixture
def loglines(caplog):
    """Text that transformers has logged."""
    logger, before = logging.getLogger("transformers"), transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_warning()  # a command of another test may have silenced it
    logger.addHandler(caplog.handler)
    yield lambda: caplog.text
    logger.removeHandler(caplog.handler)
    transformers.logging.set_verbosity(before)


def test_every_row_is_tested_and_names_a_version():
    tested = [name.removeprefix("test_") for name in globals() if name.startswith("test_")]
    rows = [re.sub(r"\W+", "_", name).lower() for name, _ in ROWS]
    assert rows == [name for name in tested if name != "every_row_is_tested_and_names_a_version"]
    assert len(ROWS) == sum(line.startswith("| **") for line in PAGE.splitlines())
    for name, version in ROWS:
        assert re.search(r"^[\w-]+ \d+\.\d+", version, re.IGNORECASE), name


def test_a_missing_weight(llama, loglines):
    tensors(llama, lambda t: {k: v for k, v in t.items() if "1.mlp.up_proj" not in k})
    first, second = (logits(LlamaForCausalLM.from_pretrained(llama)) for _ in range(2))
    assert not torch.equal(first, second) and "MISSING" in loglines()
    refused(llama, "lacks 1 of 21 weights .*model.layers.1.mlp.up_proj.weight")


def test_a_stale_index(llama, sound):
    (llama / checkpoint.INDEX).write_text(json.dumps({"weight_map": {"x": "gone.safetensors"}}))
    assert torch.equal(
        logits(LlamaForCausalLM.from_pretrained(llama)), logits(LlamaForCausalLM.from_pretrained(sound / "llama"))
    )
    assert same(llama, sound / "llama")


def test_other_weights_beside(llama, sound):
    size = checkpoint.bytes_of(llama)
    other = {name: weight + 1 for name, weight in load_file(llama / WEIGHTS).items()}
    save_file(other, llama / "model_old.safetensors", {"format": "pt"})
    torch.save(other, llama / "pytorch_model.bin")
    assert torch.equal(
        logits(LlamaForCausalLM.from_pretrained(llama)), logits(LlamaForCausalLM.from_pretrained(sound / "llama"))
    )
    assert same(llama, sound / "llama") and checkpoint.bytes_of(llama) == size


def test_weights_of_another_name(llama, sound):
    zeros = {name: torch.zeros_like(weight) for name, weight in load_file(llama / WEIGHTS).items()}
    save_file(zeros, llama / "other.safetensors", {"format": "pt"})
    edit(llama / "config.json", transformers_weights="other.safetensors")
    assert not logits(LlamaForCausalLM.from_pretrained(llama)).any()
    assert not same(llama, sound / "llama") and not logits(io.load(llama)[0]).any()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # of peft
def test_an_adapter_beside(llama, sound, tmp_path):
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(
        LlamaForCausalLM.from_pretrained(llama), LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])
    )
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            weight.data += 0.5
    adapted.save_pretrained(llama)
    found = LlamaForCausalLM.from_pretrained(llama)
    assert torch.equal(logits(found), logits(adapted))
    assert not torch.equal(logits(found), logits(LlamaForCausalLM.from_pretrained(sound / "llama")))
    with pytest.raises(ValueError, match="version of PEFT .* is not compatible"):
        found.save_pretrained(tmp_path / "again")
    refused(llama, "holds an adapter .*merge it first")


def test_a_number_of_labels(bert, loglines):
    edit(bert / "config.json", num_labels=3, id2label={"0": "no", "1": "yes"})
    assert transformers.AutoConfig.from_pretrained(bert).id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    assert "incompatible" in loglines()
    refused(bert, "num_labels 3 and the 2 names of id2label differ")


def test_the_class_of_a_tokenizer(tmp_path, loglines):
    words, expected = "Hello world", AutoTokenizer.from_pretrained(DATA / "mixlm")("Hello world")["input_ids"]
    folder = shutil.copytree(DATA / "mixlm", tmp_path / "m")
    for name in ("LlamaTokenizer", "OfTomorrow"):
        edit(folder / "tokenizer_config.json", tokenizer_class=name)
        assert AutoTokenizer.from_pretrained(folder)(words)["input_ids"] == expected
    assert "but `tokenizer.json` is ByteLevel" in loglines()
    edit(folder / "tokenizer_config.json", tokenizer_class="T5Tokenizer")
    with pytest.raises(TypeError):
        AutoTokenizer.from_pretrained(folder)
    refused(folder, "its tokenizer is broken")


def test_truncation_in_tokenizer_json(llama, sound, tmp_path):
    text = "a " * 40
    tokenizer = AutoTokenizer.from_pretrained(llama)
    tokenizer(text, truncation=True, max_length=5)
    tokenizer.save_pretrained(tmp_path / "theirs")
    assert len(AutoTokenizer.from_pretrained(tmp_path / "theirs")(text)["input_ids"]) == 42
    assert len(Tokenizer.from_file(str(tmp_path / "theirs/tokenizer.json")).encode(text)) == 5
    model, ours = io.load(llama)
    ours(text, truncation=True, max_length=5)
    io.save(model, ours, tmp_path / "ours", {})
    assert len(Tokenizer.from_file(str(tmp_path / "ours/tokenizer.json")).encode(text)) == 42


def test_decompression_at_the_first_forward(tmp_path, letters):
    folder = tmp_path / "m"
    quantized(folder)
    letters.save_pretrained(folder)
    size = checkpoint.bytes_of(folder)
    theirs = LlamaForCausalLM.from_pretrained(folder).eval()
    layer, count = theirs.model.layers[0].mlp.up_proj, theirs.num_parameters()
    assert not hasattr(layer, "weight") and hasattr(layer, "weight_packed")
    expected = logits(theirs)
    assert hasattr(layer, "weight") and theirs.num_parameters() > 2 * count
    theirs.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / WEIGHTS).stat().st_size > 2 * size
    with pytest.raises(ValueError, match=r"is quantized already \(compressed-tensors\)"):
        io.load(folder)
    torch.testing.assert_close(logits(io.load(folder, quantized=True)[0]), expected)
    blank, _ = io.skeleton(folder, quantized=True)
    assert sum(p.numel() for p in blank.parameters()) == 64 * 64 * (2 + 2 * 7) + 5 * 64  # not those that are packed


def quantized(folder):
    """A Llama of two blocks in 4 bits, as compressed-tensors writes it."""
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import (
        QuantizationArgs,
        QuantizationConfig,
        QuantizationScheme,
        apply_quantization_config,
    )

    wide = SMALL | {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 64}
    model = LlamaForCausalLM(transformers.LlamaConfig(**wide))
    weights = QuantizationArgs(num_bits=4, type="int", symmetric=True, strategy="channel")
    settings = QuantizationConfig(
        config_groups={"group_0": QuantizationScheme(targets=["Linear"], weights=weights)},
        ignore=["lm_head"],
        quantization_status="compressed",
        format="pack-quantized",
    )
    apply_quantization_config(model, settings)
    for module in model.modules():
        if hasattr(module, "weight_scale"):
            module.weight_scale.data = module.weight.abs().amax(1, keepdim=True) / 7
    compressor = ModelCompressor(quantization_config=settings)
    compressor.compress_model(model)
    model.save_pretrained(folder)
    compressor.update_config(folder)


def test_masks_by_place():
    model = Qwen2ForCausalLM(Qwen2Config(**SLIDING)).eval()
    assert model.config.layer_types == ["full_attention", "sliding_attention"]
    for weight in model.parameters():
        weight.data += 0.2 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    without = copy.deepcopy(model)
    without.model.layers[0].forward = lambda hidden_states, *_, **__: hidden_states
    expected, short = logits(without), copy.deepcopy(model)
    del short.model.layers[0]
    short.config.num_hidden_layers, short.model.layers[0].self_attn.layer_idx = 1, 0
    assert not torch.allclose(logits(short), expected, atol=1e-3)  # the second block has the mask of the first place
    structure.keep_blocks(model, [1])
    assert model.config.layer_types == ["sliding_attention"]
    torch.testing.assert_close(logits(model), expected)


def test_one_infinite_cost():
    rng = np.random.default_rng(0)
    cost, weights = rng.uniform(1, 2, (6, 6)), ot.unif(6)
    assert ot.emd2(weights, weights, cost) > 1
    cost[3, 2] = np.inf
    with pytest.warns(UserWarning, match="Problem infeasible"):
        assert ot.emd2(weights, weights, cost) == 0.0
    x, y = rng.normal(size=(10, 3)), np.repeat([0, 1], 5)
    for value in (1e200, -1e160):
        far = x.copy()
        far[4, 1] = value
        with pytest.raises(ValueError, match="is too large to be squared: give at most 1e[+]140"):
            otdd.distance(far, y, x, y)


def test_gaussians_of_few_rows():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 12)), np.repeat([0, 1], 4)
    with pytest.raises(np.linalg.LinAlgError), np.errstate(invalid="ignore"):
        ot.gaussian.bures_wasserstein_distance(x[:4].mean(0), x[4:].mean(0), np.cov(x[:4].T), np.cov(x[4:].T))
    assert otdd.distance(x, y, x, y) == pytest.approx(0, abs=1e-6)
    assert otdd.distance(x, y, x + 3, y) == pytest.approx((2 * 12 * 9) ** 0.5)


def test_old_names_of_norms(bert, sound):
    new = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    tensors(bert, lambda t: {re.sub(r"LayerNorm\.\w+$", lambda m: new[m[0]], k): v for k, v in t.items()})
    assert any(name.endswith("gamma") for name in load_file(bert / WEIGHTS))
    theirs, info = BertForSequenceClassification.from_pretrained(bert, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert same(bert, sound / "bert")


def test_the_keyword_of_a_cache(llama):
    from compress.model.layers import find_cache

    seen = {}
    model = LlamaForCausalLM.from_pretrained(llama)
    attention = model.model.layers[0].self_attn
    attention.register_forward_pre_hook(lambda module, args, kwargs: seen.update(kwargs), with_kwargs=True)
    found = model(IDS, use_cache=True)
    assert "cache" in inspect.signature(type(attention).forward).parameters and "past_key_values" not in seen
    assert find_cache(seen.values()) is found.cache
    assert find_cache({"past_key_values": found.cache}.values()) is found.cache


def test_the_type_in_config_json(llama):
    tensors(llama, lambda t: {k: v.half() for k, v in t.items()})
    edit(llama / "config.json", dtype="auto")
    with pytest.raises(AttributeError, match="has no attribute 'auto'"):
        LlamaForCausalLM.from_pretrained(llama)
    edit(llama / "config.json", dtype="float32")
    assert LlamaForCausalLM.from_pretrained(llama).dtype == torch.float32
    for written in ("auto", None, "float32"):
        edit(llama / "config.json", dtype=written)
        assert io.load(llama)[0].config.dtype == torch.float16


def test_an_unknown_quantizer(llama, loglines):
    edit(llama / "config.json", quantization_config={"quant_method": "of_tomorrow"})
    LlamaForCausalLM.from_pretrained(llama)
    assert "Unknown quantization type, got of_tomorrow" in loglines()
    refused(llama, r"is quantized already \(of_tomorrow\)")


@pytest.mark.filterwarnings("ignore:.* stores weights of types")
def test_frequencies_in_a_gguf_file(decoder, tmp_path):
    scaling = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "factor": 4.0, "original_max_position_embeddings": 16}
    settings = SMALL | {"vocab_size": 4096, "hidden_size": 64, "num_attention_heads": 4, "max_position_embeddings": 99}
    rope = {"rope_type": "llama3", "rope_theta": 100.0} | scaling
    model = LlamaForCausalLM(LlamaConfig(**settings, rope_parameters=rope, attention_bias=True)).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    gguf_files.write(model, decoder[1], tmp_path / "m.gguf", "f16")
    theirs, info = LlamaForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf", output_loading_info=True)
    assert not any(info.values()) and theirs.config.rope_parameters["rope_type"] == "default"
    assert theirs.model.layers[0].self_attn.q_proj.bias is None
    assert (logits(theirs) - logits(model)).abs().max() > 0.1
    torch.testing.assert_close(logits(io.load(tmp_path / "m.gguf")[0]), logits(model), atol=1e-4, rtol=0)


def test_the_exit_of_click():
    assert issubclass(click.exceptions.Exit, RuntimeError)
    found = CliRunner().invoke(main, ["rank", "--help"])
    assert found.exit_code == 0 and "Error" not in found.output


def test_tied_weights_that_differ(llama, loglines):
    edit(llama / "config.json", tie_word_embeddings=True)
    theirs = LlamaForCausalLM.from_pretrained(llama)
    assert theirs.lm_head.weight is not theirs.model.embed_tokens.weight and theirs.config.tie_word_embeddings
    assert "we will NOT tie them" in loglines()
    with pytest.warns(UserWarning, match="ties lm_head.weight to model.embed_tokens.weight, but they differ"):
        ours, _ = io.load(llama)
    assert torch.equal(logits(ours), logits(theirs))


def test_tensors_of_torchao(llama):
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    model = torch.nn.Sequential(torch.nn.Linear(32, 32, bias=False))
    quantize_(model, Int8WeightOnlyConfig(version=2))
    weight = model[0].weight
    assert weight.dtype == torch.float32 and weight.nbytes == 4096 and weight.qdata.nbytes == 1024
    for check in (lambda: weight == weight, weight.isfinite, weight.sum):
        with pytest.raises(NotImplementedError):
            check()
    edit(llama / "config.json", quantization_config={"quant_method": "torchao"})
    refused(llama, r"is quantized already \(torchao\)")


def test_classes_in_parquet(tmp_path):
    table = Dataset.from_dict({"x": [0.5, 1.5], "label": ["no", "yes"]})
    for name, classes in (("one", ["no", "yes"]), ("two", ["yes", "no"])):
        table.cast_column("label", ClassLabel(names=classes)).to_parquet(tmp_path / f"{name}.parquet")
    parts = [str(tmp_path / f"{name}.parquet") for name in ("one", "two")]
    assert pd.read_parquet(parts[1])["label"].tolist() == [1, 0]
    both = Dataset.from_parquet(parts, cache_dir=str(tmp_path / "cache"))
    assert both.features["label"].int2str(both["label"][:]) == ["no", "yes", "yes", "no"]
    with pytest.raises(ValueError, match="can't be aligned"):
        concatenate_datasets([Dataset.from_parquet(p, cache_dir=str(tmp_path / "cache")) for p in parts])
    assert [files.read(tmp_path / f"{name}.parquet")["label"].tolist() for name in ("one", "two")] == [
        ["no", "yes"]
    ] * 2


def test_classes_without_a_name(tmp_path):
    table = Dataset.from_dict({"x": [0.5, 1.5], "label": [5, 0]})
    table = table.cast_column("label", ClassLabel(names=["no", "yes"]))
    assert table["label"][:] == [5, 0]
    table.to_parquet(tmp_path / "t.parquet")
    table.save_to_disk(tmp_path / "t")
    for path in (tmp_path / "t.parquet", tmp_path / "t"):
        with pytest.raises(ValueError, match="column 'label' holds class 5, but names only 2 classes"):
            files.read(path)


def test_columns_of_a_format(tmp_path):
    table = Dataset.from_dict({"x": [0.5, 1.5], "label": ["no", "yes"]})
    table = table.cast_column("label", ClassLabel(names=["no", "yes"])).with_format(columns=["x"])
    assert list(table[0]) == ["x"] and list(table.to_pandas()) == ["x", "label"]
    table.save_to_disk(tmp_path / "t")
    assert list(load_from_disk(tmp_path / "t")[0]) == ["x"]
    assert files.read(tmp_path / "t").to_dict("list") == {"x": [0.5, 1.5], "label": ["no", "yes"]}


def test_missing_classes_in_arff(tmp_path):
    path = tmp_path / "t.arff"
    path.write_text("@relation r\n@attribute x numeric\n@attribute y {no,yes}\n@data\n1,?\n2,yes,{5}\n")
    data, meta = arff.loadarff(path)
    assert data["y"].tolist() == [b"?", b"yes"] and meta["y"] == ("nominal", ("no", "yes"))
    found = files.read(path)
    assert found["y"].isna().tolist() == [True, False] and list(found) == ["x", "y"]


def test_short_calibration_texts(tokenizer, tmp_path):
    sequences = [[0, *range(5, 5 + n)] for n in (20, 30, 40)]
    toolkits.write("auto-round", tmp_path, tmp_path, sequences, tokenizer, "m")
    lines = (tmp_path / "auto-round.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == (21 + 31 + 41 + 3) // 41  # joined, each with an end token, and cut to the longest


def test_the_longest_calibration_texts(tokenizer, tmp_path):
    sequences = [[0, *range(5, 5 + n)] for n in (20, 40, 30)]
    code = toolkits.write("llm-compressor", tmp_path, tmp_path, sequences, tokenizer, "m")
    lines = (tmp_path / "llm-compressor.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 3 and "num_calibration_samples=3, max_seq_length=41" in code
