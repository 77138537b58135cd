"""GGUF files as models: they give what llama.cpp gives, or are refused by name."""

import copy
import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tokenizers import normalizers
from transformers import GemmaTokenizer

from cli import main
from compress import gguf_files
from compress.model import io
from compress.model.gguf import tokenizer as tokenizers
from tests.compress.methods.test_architectures import build
from tests.compress.test_gguf import GEMMA, PROMPT, SIZES, divergence, server
from tests.conftest import DATA
from transmeter.util import checkpoint

gguf = pytest.importorskip("gguf")
PRUNED = ("--method", "kprune", "--set", "ratio=0.3", "--set", "shape=uniform", "--set", "iterative=false")
IDS = torch.arange(64).view(2, 32) * 37 % 4096
SPACE = "▁"
PIECES = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), SPACE, *"abcdefghijklmnopqrstuvwxyz"]
# a token of a high score, although the tokens that it is made of have low ones, and two ways to merge "then"
WORDS = {"th": -5, "he": -4, "the": -2, "en": -3, "then": -6, SPACE + "t": -1, SPACE + "th": -7, SPACE + "the": -8}


@pytest.fixture(scope="module")
def files(decoder, tmp_path_factory):
    """The real small Llama in three types, each with the model that it was rounded to."""
    folder, found = tmp_path_factory.mktemp("gguf"), {}
    for kind in ("f16", "q8_0", "q4_0"):
        model = copy.deepcopy(decoder[0])
        gguf_files.write(model, decoder[1], folder / f"{kind}.gguf", kind)
        found[kind] = folder / f"{kind}.gguf", model
    return found


@pytest.fixture(scope="module")
def pieces(decoder, tmp_path_factory):
    """A random small Llama with a SentencePiece vocabulary."""
    folder = tmp_path_factory.mktemp("pieces")
    tokens = [*PIECES, *WORDS]
    model = build("llama", **SIZES | {"vocab_size": len(tokens)})
    model.lm_head.weight.data[3:259] *= 0.01  # llama.cpp tells no probabilities after a part of a letter
    gguf_files.write(model, decoder[1], folder / "other.gguf", "f16")
    settings = {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": tokens}
    settings["tokenizer.ggml.scores"] = [0.0] * len(PIECES) + [float(score) for score in WORDS.values()]
    settings["tokenizer.ggml.token_type"] = [2, 3, 3, *[6] * 256, *[1] * (len(tokens) - 259)]
    settings |= {"tokenizer.ggml.unknown_token_id": 0, "tokenizer.ggml.bos_token_id": 1}
    settings |= {"tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.merges": None, "tokenizer.ggml.pre": None}
    return edited(folder / "other.gguf", folder / "m.gguf", settings | {"tokenizer.ggml.add_bos_token": None})


def edited(file, out, settings=(), drop=(), tensors=()):
    """A copy of a file with some settings and tensors changed, added or, for None, left out."""
    reader, changed = gguf.GGUFReader(file), dict(settings)
    writer = gguf.GGUFWriter(out, changed.pop("general.architecture", "llama"))
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture" and key not in changed:
            inner = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(key, field.contents(), field.types[0], sub_type=inner)
    for key, value in changed.items():
        if value is not None:
            kind = gguf.GGUFValueType.UINT32 if type(value) is int else gguf.GGUFValueType.get_type(value)
            writer.add_key_value(key, value, kind)
    for tensor in reader.tensors:
        if tensor.name not in drop:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    for name, data in dict(tensors).items():
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


@torch.no_grad()
@pytest.mark.parametrize("kind", ["f16", "q8_0", "q4_0"])
def test_a_file_gives_the_logits_of_the_weights_in_it(kind, files, decoder):
    file, model = files[kind]
    read, tokenizer = io.load(file)
    expected = model(IDS).logits
    assert torch.equal(read(IDS).logits, expected) and torch.equal(io.load(file, stream=True)[0](IDS).logits, expected)
    if kind == "f16":  # as which it is stored
        assert torch.equal(decoder[0](IDS).logits, expected)
    assert read.config.dtype == torch.float16 and read.generation_config.eos_token_id == 1
    assert (checkpoint.bytes_of(file), len(checkpoint.hash_of(file))) == (file.stat().st_size, 64)
    for text in (PROMPT, "a  b\n\n\tc 1234 naïve 日本</s>x", ""):
        ids = decoder[1](text)["input_ids"]
        assert tokenizer(text)["input_ids"] == ids and tokenizer.decode(ids) == decoder[1].decode(ids)


def test_which_types_the_weights_had_is_said(files):
    kinds = "2,654,208 q4_0, 786,432 q8_0, 2,496 f32, which are dequantized, results take float16"
    with pytest.warns(UserWarning, match=f"q4_0.gguf stores weights of types {kinds}"):
        io.skeleton(files["q4_0"][0])


def test_types_that_only_llama_cpp_writes_are_read_as_it_reads_them(decoder, monkeypatch, tmp_path):
    """Random blocks of 4 and 6 bits in superblocks of 256 weights, each with scales of its own."""
    random = np.random.default_rng(0)

    def blocks(path, weights, kind):
        if weights.ndim == 1:
            return weights, gguf.GGMLQuantizationType.F32
        size, scales, raw = (144, (0, 2), "Q4_K") if "proj" in path else (210, (208,), "Q6_K")
        found = random.integers(0, 256, (*weights.shape[:-1], weights.shape[-1] // 256, size), np.uint8)
        for start in scales:
            found[..., start : start + 2] = np.frombuffer(np.float16(4e-5).tobytes(), np.uint8)
        return found.reshape(*weights.shape[:-1], -1), getattr(gguf.GGMLQuantizationType, raw)

    monkeypatch.setattr(gguf_files, "_rounded", blocks)
    model = build("qwen3", **SIZES | {"hidden_size": 256, "intermediate_size": 256, "head_dim": 64})
    gguf_files.write(model, decoder[1], tmp_path / "m.gguf", "q4_0")
    read = io.load(tmp_path / "m.gguf")[0]
    # it rounds activations to 8 bits; random weights spread the predictions
    assert divergence(read, decoder[1], server(tmp_path / "m.gguf")) < 0.01
    with torch.no_grad():
        assert read(IDS).logits.std() > 0.3


@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepiece_takes_texts_apart_as_llama_cpp_does(prefix, pieces, tmp_path):
    """By the scores, which are not in the order of the tokens."""
    file = edited(pieces, tmp_path / "m.gguf", {"tokenizer.ggml.add_space_prefix": prefix})
    read, tokenizer = io.load(file)
    assert tokenizer.tokenize("then") == ([SPACE + "th", "en"] if prefix else ["then"])
    assert tokenizer("ü")["input_ids"] == [1, *([259] if prefix else []), 3 + 0xC3, 3 + 0xBC]
    assert tokenizer.decode(tokenizer("the then  a ü")["input_ids"], skip_special_tokens=True) == "the then  a ü"
    llama = server(file)
    for text in ("then the  then", "a the ü</s> then", "thethen 7"):
        asked = llama.handle_completions({"prompt": text, "n_predict": 1, "temperature": 0})
        assert asked["usage"]["prompt_tokens"] == len(tokenizer(text)["input_ids"])
    assert divergence(read, tokenizer, llama) < 1e-4


@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepiece_is_written_as_llama_cpp_takes_texts_apart(prefix, tmp_path):
    """Merges of words that have several ways to them."""
    vocabulary = {token: i for i, token in enumerate([*PIECES, *sorted(WORDS)])}
    ways = ((a, w[len(a) :]) for w in sorted(WORDS, key=WORDS.get, reverse=True) for a in (w[:i] for i in range(1, 5)))
    merges = [pair for pair in ways if all(part in vocabulary for part in pair)]
    tokenizer = GemmaTokenizer(
        vocabulary, merges, bos_token="<s>", eos_token="</s>", pad_token="</s>", mask_token="</s>"
    )
    if prefix:
        steps = [normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)]
        tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(steps)
    model = build(
        "gemma3_text", **SIZES | GEMMA | {"vocab_size": len(vocabulary), "bos_token_id": 1, "eos_token_id": 2}
    )
    model.model.embed_tokens.weight.data[3:259] *= 0.01
    gguf_files.check("a", model, tokenizer)
    gguf_files.write(model, tokenizer, tmp_path / "m.gguf", "f16")
    read, again = io.load(tmp_path / "m.gguf")
    llama = server(tmp_path / "m.gguf")
    for text in ("then the  then", "a the ü</s> then", "thethen 7"):
        ids = tokenizer(text)["input_ids"]
        asked = llama.handle_completions({"prompt": text, "n_predict": 1, "temperature": 0})
        assert again(text)["input_ids"] == ids and asked["usage"]["prompt_tokens"] == len(ids)
    assert divergence(model, tokenizer, llama) < 1e-4
    with torch.no_grad():
        torch.testing.assert_close(read(IDS % 290).logits, model(IDS % 290).logits, atol=1e-4, rtol=0)


def test_sentencepiece_tokenizers_that_llama_cpp_would_take_apart_otherwise_are_refused():
    vocabulary = {token: i for i, token in enumerate([*PIECES, "th", "the", "he"])}
    whole = [("t", "h"), ("h", "e"), ("th", "e"), ("t", "he")]

    def made(merges, **others):
        names = dict.fromkeys(("eos_token", "pad_token", "mask_token"), "</s>")
        return GemmaTokenizer(others.get("vocabulary", vocabulary), merges, bos_token="<s>", **names)

    assert tokenizers.form_of(made(whole)) == "SentencePiece"
    lower = made(whole)
    lower.backend_tokenizer.normalizer = normalizers.Lowercase()
    bytes_only = {token: i for i, token in enumerate(token for token in vocabulary if token != "<0x41>")}
    for other, message in (
        (made(whole[:3]), "merge by a score of every token"),  # the last way to "the" is missing
        (made([whole[2], *whole[:2], whole[3]]), "merge by a score of every token"),  # and here it comes later
        (lower, "replace spaces, and do no more"),
        (made(whole, vocabulary=bytes_only), "know every byte"),
    ):
        with pytest.raises(ValueError, match=f"gguf has SentencePiece tokenizers that {message}: give such a model"):
            tokenizers.form_of(other)


def test_commands_take_a_file(files, tmp_path):
    file, text = str(files["q8_0"][0]), str(DATA / "text/math_sample.txt")

    def run(*arguments):
        done = CliRunner().invoke(main, [str(a) for a in arguments])
        assert done.exit_code == 0, done.output
        return done.output

    compared = ("--baseline", DATA / "mixlm", "--data", text, "--tokens", 300)
    result = json.loads(run("--quiet", "evaluate", file, *compared, "--json"))
    assert result["bytes"] == files["q8_0"][0].stat().st_size
    run("compress", file, *PRUNED, "--calibration", text, "--tokens", 500, "--out", tmp_path / "small")
    assert io.load(tmp_path / "small")[0].config.model_type.endswith("llama")
    run("export", file, "--format", "gguf", "--weights", "q5_1", "--out", tmp_path / "again")


REFUSED = [
    ({"settings": {"general.architecture": "falcon"}}, "of llama.cpp's graph 'falcon': give a model of llama, qwen2, "),
    ({"settings": {"split.count": 3}}, "one of 3 parts of a model: join them with llama-gguf-split --merge"),
    (
        {"tensors": {f"blk.{i}.ffn_gate_inp.weight": np.ones(64, np.float32) for i in range(6)}},
        r"6 tensors that the graph llama here has not \(blk.0.ffn_gate_inp.weight, .*, ...\): give the model in safet",
    ),
    ({"settings": {"llama.attention.scale": 0.5}}, r"settings that the graph llama here has not \(attention.scale\)"),
    ({"settings": {"llama.block_count": None}}, "lacks block_count: give a complete copy"),
    ({"settings": {"llama.block_count": 99}}, "says that it has 99 blocks, but holds 21 weights"),
    ({"settings": {"llama.block_count": 1}}, "holds weights of blocks that its config does not have"),
    ({"settings": {"llama.feed_forward_length": [96] * 2}}, "its blocks differ in intermediate_size"),
    ({"settings": {"llama.rope.dimension_count": 8}}, "rope.dimension_count is 8, and here it is that of a head, 16"),
    ({"settings": {"llama.rope.scaling.type": "longrope"}}, r"a rotary scaling that is not known here \(longrope\)"),
    ({"tensors": {"rope_freqs.weight": np.arange(1, 9, dtype=np.float32)}}, "rope_freqs.weight is not as of Llama 3"),
    ({"drop": ["blk.1.ffn_up.weight"]}, "lacks 1 of .* weights .*model.layers.1.mlp.up_proj.weight"),
    (
        {"settings": {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "tekken"}},
        "it takes texts apart as 'tekken' does, known are llama-bpe, qwen2, smollm, gpt-2, ",
    ),
    ({"settings": {"tokenizer.ggml.model": "bert"}}, "has a tokenizer of kind bert, known are gpt2 and llama"),
]


@pytest.mark.parametrize("changes, message", REFUSED)
def test_what_is_not_known_is_refused_by_name(changes, message, pieces, tmp_path):
    with pytest.raises(ValueError, match=f"m.gguf.*{message}"):
        io.skeleton(edited(pieces, tmp_path / "m.gguf", **changes))


def test_a_broken_file_and_a_missing_package_are_refused(pieces, monkeypatch, tmp_path):
    (tmp_path / "m.gguf").write_bytes(pieces.read_bytes()[:50_000])
    with pytest.raises(ValueError, match=r"m.gguf is broken \(.*\): give a sound copy"):
        io.skeleton(tmp_path / "m.gguf")
    with pytest.raises(ValueError, match="is a GGUF file, which holds a decoder: give a model folder"):
        checkpoint.check(pieces)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"it has neither .*: give .*m.gguf"):
        checkpoint.check(tmp_path)
    monkeypatch.setattr("compress.model.gguf.reading.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs gguf: pip install 'transmeter\[gguf\]'"):
        io.load(pieces)
