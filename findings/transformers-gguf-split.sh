#!/usr/bin/env bash
# Package:  transformers 5.24.0 with gguf 0.19.0, beside llama.cpp (xllamacpp 2026.10.11549)
# Expected: a tokenizer read from a GGUF file takes texts apart as tokenizer.ggml.pre says, or says that it cannot.
# Seen:     transformers follows some names (qwen2) and takes the split of GPT-2 for others (smollm, starcoder, command-r)
#           without a word: of one file, whose merges join digits, it makes one token of 1234 where llama.cpp makes four.
#           Vocabularies that were trained with the split have no such merges and hide it.
# Looked up: huggingface/transformers pull request 31175 (converters of tokenizers), issue 31630; ggml-org/llama.cpp pull
#           request 8609 (the split of SmolLM).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0
"$work/venv/bin/pip" install --quiet transformers==5.24.0 gguf==0.19.0 xllamacpp==2026.10.11549 numpy==2.4.6
cd "$work"
HF_HOME="$work/cache" HF_HUB_OFFLINE=1 "$work/venv/bin/python" - 2>"$work/log" <<'EOF' || { tail -5 "$work/log"; exit 1; }
import gguf
import numpy as np
import xllamacpp
from transformers import AutoTokenizer

# the bytes as byte-level tokenizers write them, then four merges of digits
printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
letters, extra = {b: chr(b) for b in printable}, 256
for byte in range(256):
    if byte not in letters:
        letters[byte], extra = chr(extra), extra + 1
tokens = [letters[b] for b in range(256)] + ["12", "34", "1234", "<end>"]
merges = ["1 2", "3 4", "12 34"]


def write(name, split):
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
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split)
    writer.add_token_list(tokens)
    writer.add_token_types([1] * 259 + [3])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(259)
    writer.add_eos_token_id(259)
    writer.add_add_bos_token(False)
    sizes = {"token_embd": len(tokens), "output": len(tokens)}
    sizes |= {f"blk.0.{n}": 32 for n in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")}
    for tensor, rows in sizes.items():
        writer.add_tensor(f"{tensor}.weight", rng.normal(size=(rows, 32)).astype(np.float32))
    for tensor in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{tensor}.weight", np.ones(32, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def by_llama_cpp(name):
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.cpuparams.n_threads = name, 64, 1
    params.warmup, params.verbosity = False, -1
    asked = {"prompt": "1234", "n_predict": 1, "temperature": 0}
    return xllamacpp.Server(params).handle_completions(asked)["usage"]["prompt_tokens"]


seen = {}
for split in ("gpt-2", "qwen2", "smollm", "starcoder", "command-r"):
    write("model.gguf", split)
    found = AutoTokenizer.from_pretrained(".", gguf_file="model.gguf").tokenize("1234")
    seen[split] = found, by_llama_cpp("model.gguf")
    print(f"tokenizer.ggml.pre {split}: transformers {found}, llama.cpp {seen[split][1]} token(s)")
whole = ["1234"]
expected = {"gpt-2": (whole, 1), "qwen2": (list("1234"), 4)}
assert seen == expected | {name: (whole, 4) for name in ("smollm", "starcoder", "command-r")}
print("seen: the split of some names is not followed by transformers")
EOF
