#!/usr/bin/env bash
# Package:  transformers 5.24.0 with gguf 0.19.0, beside llama.cpp (xllamacpp 2026.10.11549)
# Expected: from_pretrained(..., gguf_file=...) computes what the file says, or says what it leaves out.
# Seen:     of a Llama it reads neither rope_freqs.weight (the frequencies of Llama 3.1 to 3.3) nor rope.scaling.* nor
#           the biases of the attention: results are those of the file without them, and the loading info lists nothing
#           as missing or unexpected. llama.cpp computes other ones for each.
# Looked up: ggml-org/llama.cpp pull request 8676 (rope_freqs.weight), vllm-project/vllm issue 7268 (the same tensor as
#           an unknown weight), huggingface/transformers pull request 35060 (biases of StableLM); none of a Llama here.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0
"$work/venv/bin/pip" install --quiet transformers==5.24.0 gguf==0.19.0 xllamacpp==2026.10.11549 accelerate==1.15.0 numpy==2.4.6
cd "$work"
HF_HOME="$work/cache" HF_HUB_OFFLINE=1 "$work/venv/bin/python" - 2>"$work/log" <<'EOF' || { tail -5 "$work/log"; exit 1; }
import gguf
import numpy as np
import torch
import xllamacpp
from transformers import LlamaForCausalLM

# the bytes as byte-level tokenizers write them
printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
letters, extra = {b: chr(b) for b in printable}, 256
for byte in range(256):
    if byte not in letters:
        letters[byte], extra = chr(extra), extra + 1
tokens = [letters[b] for b in range(256)] + ["<end>"]
PROMPT = "bcdefghijklmnopqrstuvwxyz"


def write(name, frequencies=None, scaling=None, biases=False):
    """A random Llama of one block, always with the same weights."""
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(name, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(16)
    writer.add_rope_freq_base(10.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * 256 + [3])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(256)
    writer.add_add_bos_token(False)
    sizes = {"token_embd": len(tokens), "output": len(tokens)}
    sizes |= {f"blk.0.{n}": 32 for n in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")}
    for tensor, rows in sizes.items():
        # letters alone are likely, since llama.cpp tells no probabilities after a part of one
        scale = np.where(np.arange(rows) < 127, 0.4, 0.01)[:, None] if rows == len(tokens) else 0.4
        writer.add_tensor(f"{tensor}.weight", (scale * rng.normal(size=(rows, 32))).astype(np.float32))
    for tensor in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{tensor}.weight", np.ones(32, np.float32))
    for tensor in ("attn_q", "attn_k", "attn_v", "attn_output") if biases else ():
        writer.add_tensor(f"blk.0.{tensor}.bias", rng.normal(size=32).astype(np.float32))
    if frequencies:
        writer.add_tensor("rope_freqs.weight", np.full(8, frequencies, np.float32))
    if scaling:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(scaling)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def by_transformers(name):
    model, info = LlamaForCausalLM.from_pretrained(".", gguf_file=name, output_loading_info=True)
    assert not any(info.values()), info
    with torch.no_grad():
        return model(torch.tensor([[ord(c) for c in PROMPT]])).logits[0, -1].log_softmax(0)


def by_llama_cpp(name):
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.cpuparams.n_threads = name, 64, 1
    params.warmup, params.verbosity = False, -1
    asked = {"prompt": PROMPT, "n_predict": 1, "temperature": 0, "logprobs": len(tokens), "ignore_eos": True}
    found = xllamacpp.Server(params).handle_completions(asked)["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    return torch.tensor([each["logprob"] for each in sorted(found, key=lambda each: each["id"])])


cases = {"plain": {}, "rope_freqs": {"frequencies": 4.0}, "rope.scaling": {"scaling": 4.0}, "biases": {"biases": True}}
theirs, ours = {}, {}
for case, options in cases.items():
    write("model.gguf", **options)
    theirs[case], ours[case] = by_transformers("model.gguf"), by_llama_cpp("model.gguf")
    if case == "plain":
        assert (theirs[case] - ours[case]).abs().max() < 0.05  # llama.cpp keeps keys and values in f16
    far = [float((found[case] - found["plain"]).abs().max()) for found in (theirs, ours)]
    print(f"{case}: largest difference to plain, transformers {far[0]:.3g}, llama.cpp {far[1]:.3g}")
    assert far[0] == 0 and (case == "plain" or far[1] > 0.05), far
print("seen: transformers computes all four files as the plain one")
EOF
