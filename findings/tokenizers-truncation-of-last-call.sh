#!/usr/bin/env bash
# Package:  transformers 5.24.0 with tokenizers 0.23.3
# Expected: truncation is an argument of one call; saving a tokenizer saves the tokenizer.
# Seen:     the last call's truncation is written to tokenizer.json. transformers ignores it when it reads the file, the
#           tokenizers library (and what stands on it) obeys: the same file gives 40 tokens to one and 3 to the other.
# Looked up: vllm-project/llm-compressor pull request 2917 (merged); huggingface/transformers issue 18406.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet transformers==5.24.0 tokenizers==0.23.3
cd "$work"
HF_HOME="$work/cache" HF_HUB_OFFLINE=1 "$work/venv/bin/python" - <<'EOF'
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

backend = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
backend.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")
text, found = "a " * 40, {}
for name, options in {"plain": {}, "truncated": {"truncation": True, "max_length": 3}}.items():
    tokenizer(text, **options)
    tokenizer.save_pretrained(name)
    direct = Tokenizer.from_file(f"{name}/tokenizer.json").encode(text)
    found[name] = len(AutoTokenizer.from_pretrained(name)(text)["input_ids"]), len(direct.ids)
    print(f"saved after a {name} call: transformers {found[name][0]} tokens, tokenizers {found[name][1]}")
assert found == {"plain": (40, 40), "truncated": (40, 3)}
print("seen: the file keeps the last call's truncation")
EOF
