"""GGUF files: llama.cpp itself writes what we write, and what its graphs cannot say is refused."""

import copy
import json

import pytest
import torch

from compress import export, gguf_files
from compress.methods import magnitude, round_to_nearest
from compress.model import io
from compress.report import card
from tests.compress.methods.test_architectures import build
from tests.conftest import DATA, compressed, letter_tokenizer, strayed

gguf = pytest.importorskip("gguf")
MODEL = str(DATA / "mixlm")
PROMPT = "Question: Tom has 3 apples, and his sister, who is seven years old, has 12 more than Tom's best friend."
SIZES = {"vocab_size": 4096, "hidden_size": 64, "intermediate_size": 96, "max_position_embeddings": 256}
LLAMA3 = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
SCALED = {"rope_theta": 100.0, "factor": 4.0, "original_max_position_embeddings": 16}
FULL, INSIDE = (
    {"rope_type": "linear", "rope_theta": 5000.0, "factor": 2.0},
    {"rope_type": "default", "rope_theta": 99.0},
)
GEMMA = {
    "head_dim": 32,
    "query_pre_attn_scalar": 32,
    "rope_parameters": {"full_attention": FULL, "sliding_attention": INSIDE},
}
CASES = {
    "llama": ("llama", {"attention_bias": True}),
    "llama3": ("llama", {"rope_parameters": SCALED | LLAMA3}),
    "linear": ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 100.0, "factor": 4.0}}),
    "mistral": ("mistral", {"sliding_window": None, "head_dim": 32}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {"head_dim": 32, "tie_word_embeddings": True}),
    "smollm3": ("smollm3", {"num_hidden_layers": 4, "no_rope_layers": [1, 1, 1, 0]}),
    "granite": ("granite", {"embedding_multiplier": 2.0, "logits_scaling": 0.5}),
    "gemma3": ("gemma3_text", GEMMA),
    "gemma3, all blocks in windows": ("gemma3_text", GEMMA | {"layer_types": ["sliding_attention"] * 2}),
    "yarn": ("qwen3", {"rope_parameters": SCALED | {"rope_type": "yarn"}}),
}


def gemma(**others):
    """A random Gemma 3."""
    return build("gemma3_text", **SIZES | GEMMA | others)


def server(file):
    """llama.cpp with a file."""
    xllamacpp = pytest.importorskip("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.cpuparams.n_threads = str(file), 512, 1
    params.warmup, params.verbosity = False, -1
    return xllamacpp.Server(params)


def by_llama_cpp(file, count):
    """Text that llama.cpp writes after `PROMPT`, and the log-probabilities of its tokens."""
    asked = {"prompt": PROMPT, "n_predict": count, "temperature": 0, "logprobs": 1, "ignore_eos": True}
    found = server(file).handle_completions(asked)["choices"][0]
    return found["text"], [each["logprob"] for each in found["logprobs"]["content"]]


@torch.no_grad()
def by_us(model, tokenizer, count):
    """The same of a model."""
    given = tokenizer(PROMPT, return_tensors="pt")
    ids = model.generate(**given, min_new_tokens=count, max_new_tokens=count, do_sample=False, pad_token_id=0)
    start = given["input_ids"].shape[1]
    logs = model(input_ids=ids).logits[0, start - 1 : -1].log_softmax(1)
    return tokenizer.decode(ids[0, start:]), logs.gather(1, ids[0, start:, None])[:, 0].tolist()


@torch.no_grad()
def divergence(model, tokenizer, llama):
    """Mean KL divergence (nats) of what llama.cpp predicts after three prompts from what the model does."""
    found = []
    for prompt in (PROMPT, "HAMLET. To be", "It was a dark and"):
        logs = model(**tokenizer(prompt, return_tensors="pt")).logits[0, -1].log_softmax(0)
        asked = {"prompt": prompt, "n_predict": 1, "temperature": 0, "logprobs": len(logs), "ignore_eos": True}
        answer = llama.handle_completions(asked)["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        theirs = torch.full_like(logs, -torch.inf)
        theirs[[each["id"] for each in answer]] = torch.tensor([each["logprob"] for each in answer])
        found.append(float((logs.exp() * (logs - theirs)).sum()))
    return sum(found) / len(found)


def test_f16_writes_the_tokens_that_the_model_writes(decoder, tmp_path):
    gguf_files.write(copy.deepcopy(decoder[0]), decoder[1], tmp_path / "m.gguf", "f16")
    (text, logs), (theirs, others) = by_us(*decoder, 64), by_llama_cpp(tmp_path / "m.gguf", 64)
    assert theirs == text and others == pytest.approx(logs, abs=0.02)


def test_a_model_pruned_to_one_size_writes_the_tokens_that_it_writes(decoder, calibration, tmp_path):
    pruned = compressed("kprune", decoder[0], calibration, ratio=0.3, shape="uniform", iterative=False)
    assert pruned.config.intermediate_size < 512
    io.save(pruned, decoder[1], tmp_path / "m", {})
    export.export(str(tmp_path / "m"), "gguf", tmp_path / "g")
    text, logs = by_us(*io.load(tmp_path / "m"), 64)
    theirs, others = by_llama_cpp(tmp_path / "g/model.gguf", 64)
    assert theirs == text and others == pytest.approx(logs, abs=0.02)


@pytest.mark.parametrize(
    "kind, bits, limit", [("q8_0", 8.5, 1e-4), ("q5_1", 6, 1e-2), ("q4_1", 5, 3e-2), ("q4_0", 4.5, 4e-2)]
)
def test_llama_cpp_predicts_by_the_weights_that_were_rounded(kind, bits, limit, decoder, tmp_path):
    model = copy.deepcopy(decoder[0])
    numbers = gguf_files.write(model, decoder[1], tmp_path / "m.gguf", kind)
    llama = server(tmp_path / "m.gguf")
    # it rounds activations to 8 bits too; of 4 bits the model before is further away, so that other weights would show
    assert divergence(model, decoder[1], llama) < 1e-3
    if bits <= 5:
        assert divergence(*decoder, llama) > 3e-3
    tensors = {t.name: t for t in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    assert len(tensors) == 56 and "output.weight" not in tensors  # it is tied
    weight = decoder[0].model.layers[2].mlp.up_proj.weight
    stored = tensors["blk.2.ffn_up.weight"]
    assert stored.n_bytes * 8 == bits * weight.numel()
    dense = torch.from_numpy(gguf.quants.dequantize(stored.data, stored.tensor_type))
    assert strayed(dense, weight.detach()) < limit
    head = 4096 * 192 if kind != "q8_0" else 0
    text = f"{3_440_640 - head:,} weights are {kind}, 2,496 f32 (norms and other vectors)"
    assert gguf_files.describe(numbers, kind) == text + (", 786,432 q8_0 (the output head)" if head else "")


@pytest.mark.parametrize("case", CASES)
def test_llama_cpp_reads_every_graph_with_its_settings(case, decoder, tmp_path):
    kind, settings = CASES[case]
    model = build(kind, **SIZES | settings)
    gguf_files.check(kind, model, decoder[1])
    gguf_files.write(model, decoder[1], tmp_path / "m.gguf", "bf16" if case == "qwen2" else "f16")
    assert divergence(model, decoder[1], server(tmp_path / "m.gguf")) < 1e-4
    with pytest.warns(UserWarning, match="m.gguf stores weights of types .*, results take b?float16"):
        read = io.load(tmp_path / "m.gguf")[0]
    ids = torch.arange(32)[None] * 37
    with torch.no_grad():
        torch.testing.assert_close(read(ids).logits, model(ids).logits, atol=1e-4, rtol=0)


def test_rows_that_have_no_whole_number_of_scales_are_f16(decoder, tmp_path):
    model = build("llama", **SIZES | {"intermediate_size": 50})
    numbers = gguf_files.write(model, decoder[1], tmp_path / "m.gguf", "q4_0")
    assert gguf_files.describe(numbers, "q4_0").endswith(
        " weights are q4_0, 320 f32 (norms and other vectors), 6,400 f16 (rows that are no multiple of 32), "
        "262,144 q8_0 (the output head)"
    )
    assert divergence(model, decoder[1], server(tmp_path / "m.gguf")) < 1e-3


def test_the_tokenizer_and_the_chat_template_are_in_the_file(decoder, tmp_path):
    model, tokenizer = io.load(MODEL)
    model = compressed(round_to_nearest, model, [], embeddings=True, head=True)
    tokenizer.chat_template = "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }}{% endfor %}"
    io.save(model, tokenizer, tmp_path / "m", {})
    told = []
    size = export.export(str(tmp_path / "m"), "gguf", tmp_path / "g", "q8_0", told.append)
    assert told == ["gguf: 3,440,640 weights are q8_0, 2,496 f32 (norms and other vectors)"]
    assert size == (tmp_path / "g/model.gguf").stat().st_size < 1.1 * 3_443_136 * 8.5 / 8
    fields = gguf.GGUFReader(tmp_path / "g/model.gguf").fields
    assert fields["tokenizer.chat_template"].contents() == tokenizer.chat_template
    assert fields["tokenizer.ggml.pre"].contents() == "gpt-2" and fields["tokenizer.ggml.add_bos_token"].contents()
    assert fields["tokenizer.ggml.tokens"].contents() == tokenizer.convert_ids_to_tokens(range(4096))
    record = json.loads((tmp_path / "g/export.json").read_text())
    assert (record["format"], record["weights"]) == ("gguf", "q8_0")
    text = (tmp_path / "g/README.md").read_text()
    assert "llama-cli -m model.gguf" in text and "--format gguf --weights q8_0" in text
    assert card.render(record, json.loads((tmp_path / "g/config.json").read_text())) == text


def test_what_no_graph_can_say_is_refused(decoder, encoder, calibration, tmp_path):
    model, tokenizer = decoder
    pruned = compressed(magnitude, model, calibration, ratio=0.3)
    for given, message in (
        ((pruned, tokenizer), "plain layers of one size, model.layers.* is none .*: prune with shape=uniform"),
        (
            (encoder, tokenizer),
            r"gguf has no graph for a \(bert\): give a decoder of type llama, mistral, q",
        ),
        (
            (build("llama"), letter_tokenizer()),
            "gguf knows tokenizers as of llama-bpe, qwen2, smollm, gpt-2, SentencePiece: give such a model",
        ),
        ((build("mistral", **SIZES), tokenizer), "the graph of mistral has no sliding window, a one of 8 tokens"),
        (
            (build("qwen3", **SIZES, attention_bias=True), tokenizer),
            "qwen3 has silu without biases, a silu with biases",
        ),
        (
            (build("smollm3", **SIZES, no_rope_layers=[1, 0]), tokenizer),
            r"does not turn heads in every fourth block, and in no other, a has no_rope_layers \[1, 0\]: keep all bl",
        ),
        ((gemma(query_pre_attn_scalar=8), tokenizer), "gemma3 has a query_pre_attn_scalar of 32, a 8: give another f"),
        (
            (gemma(final_logit_softcapping=30.0), tokenizer),
            "the graph of gemma3 has no final_logit_softcapping, a has:",
        ),
        ((gemma(hidden_activation="silu"), tokenizer), "has gelu_pytorch_tanh without biases, a silu: give another fo"),
        (
            (gemma(num_hidden_layers=4, layer_types=["sliding_attention", *["full_attention"] * 3]), tokenizer),
            r"blocks without a window in regular distances, the model has them at \[1, 2, 3\]: keep all blocks",
        ),
        (
            (gemma(rope_parameters={"full_attention": FULL, "sliding_attention": FULL}), tokenizer),
            "no rotary scaling in",
        ),
        ((build("llama", **SIZES, mlp_bias=True), tokenizer), "has silu without biases, a silu with biases"),
    ):
        with pytest.raises(ValueError, match=message):
            gguf_files.check("a", *given)
    with pytest.raises(ValueError, match="weights of q8_0 are of gguf, torchao has one type: leave them out"):
        export.export(MODEL, "torchao", tmp_path / "g", "q8_0")
    with pytest.raises(ValueError, match="has weights beyond the numbers of f16: take bf16"):
        gguf_files._rounded("w", torch.full((2, 32), 1e6).numpy(), "f16")
