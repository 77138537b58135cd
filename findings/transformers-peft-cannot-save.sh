#!/usr/bin/env bash
# Package:  transformers 5.24.0 with peft 0.21.2, the newest one of its day
# Expected: a model with an adapter beside it, which from_pretrained applies unasked, can be saved again with the same two
#           libraries.
# Seen:     loading takes peft 0.21.2; save_pretrained asks for peft 0.22.0, which was not on PyPI, and leaves a folder
#           that holds generation_config.json alone.
# Looked up: huggingface/transformers issue 45405 (the same with another version, closed), pull request 43781 (adapter
#           beside a model).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0
"$work/venv/bin/pip" install --quiet transformers==5.24.0 peft==0.21.2
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

from peft import LoraConfig, get_peft_model

model.save_pretrained("m")
adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]))
for name, weight in adapted.named_parameters():
    if "lora_B" in name:
        weight.data += 0.5
adapted.save_pretrained("m")
tensors = load_file("m/model.safetensors")
found = AutoModelForCausalLM.from_pretrained("m")
with torch.no_grad():
    same = torch.equal(found(ids).logits, adapted(ids).logits)
print("weights of the file:", len(tensors), "| of what is loaded:", len(list(found.parameters())), "| adapter applied:", same)
try:
    found.save_pretrained("again")
    said = ""
except ValueError as error:
    said = str(error)
print("save_pretrained:", said, "| left behind:", os.listdir("again"))
assert same and "0.22.0" in said and "model.safetensors" not in os.listdir("again")
print("seen: what was loaded cannot be saved")
EOF
