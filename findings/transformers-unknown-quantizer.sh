#!/usr/bin/env bash
# Package:  transformers 5.24.0 (from_pretrained, quantization_config in config.json)
# Expected: weights that a quantizer has written which this version does not know are refused; without the quantizer they
#           mean nothing.
# Seen:     the section is skipped with a log line and the model is built dense: packed weights count as unexpected, the
#           dense ones as missing, and those are random. A section without "quant_method" is refused.
# Looked up: huggingface/transformers pull request 35963 (a warning instead of an error, merged).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0
"$work/venv/bin/pip" install --quiet transformers==5.24.0 safetensors==0.8.0
cd "$work"
HF_HOME="$work/cache" HF_HUB_OFFLINE=1 "$work/venv/bin/python" - <<'EOF'
import json
import os

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

logging.disable_progress_bar()
torch.manual_seed(0)
size = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
model = LlamaForCausalLM(LlamaConfig(**size)).eval()
ids = torch.arange(9)[None]

model.save_pretrained("m")
tensors = load_file("m/model.safetensors")
packed = {k.replace(".weight", ".codes") if "proj" in k else k: v.to(torch.int8) if "proj" in k else v for k, v in tensors.items()}
save_file(packed, "m/model.safetensors", {"format": "pt"})
config = json.load(open("m/config.json"))


def load(section):
    json.dump(config | {"quantization_config": section}, open("m/config.json", "w"))
    return LlamaForCausalLM.from_pretrained("m", output_loading_info=True)


found, info = load({"quant_method": "of_tomorrow", "bits": 8})
print("loaded:", type(found.model.layers[0].self_attn.q_proj).__name__, "| random weights:", len(info["missing_keys"]))
print("left out of the file:", len(info["unexpected_keys"]))
try:
    load({"bits": 8})
    refused = False
except ValueError as error:
    refused = True
    print("no quant_method:", str(error)[:80])
assert len(info["missing_keys"]) == len(info["unexpected_keys"]) == 14 and refused
print("seen: an unknown quantizer's model is loaded at random")
EOF
