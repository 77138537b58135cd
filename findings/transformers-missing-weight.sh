#!/usr/bin/env bash
# Package:  transformers 5.24.0 (from_pretrained)
# Expected: a checkpoint that lacks a weight of a block is refused; the class, the config and the files belong together.
# Seen:     the weight is filled with random numbers, other ones at each load; a table is logged, nothing is raised, and
#           saving writes the random numbers as if they were the model's.
# Looked up: huggingface/transformers issue 32067 (open) and pull request 48962 (an option "strict", closed).
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
del tensors["model.layers.1.mlp.up_proj.weight"]
save_file(tensors, "m/model.safetensors", {"format": "pt"})
with torch.no_grad():
    first, second = (LlamaForCausalLM.from_pretrained("m")(ids).logits for _ in range(2))
LlamaForCausalLM.from_pretrained("m").save_pretrained("again")
stored = load_file("again/model.safetensors")
print("largest difference of the logits of two loads:", float((first - second).abs().max()))
print("weights in the folder: 20; in what is saved again:", len(stored))
assert not torch.equal(first, second) and len(stored) == 21
print("seen: two loads of one folder are two models")
EOF
