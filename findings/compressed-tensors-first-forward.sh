#!/usr/bin/env bash
# Package:  compressed-tensors 0.20.1 in transformers 5.24.0
# Expected: a quantized model keeps its form: its layers have the same tensors before and after it is used, it counts as
#           many parameters, and saves as many bytes.
# Seen:     until the first forward the layers have no "weight" (weight_packed, weight_scale, weight_shape) and the model
#           counts a third of its parameters; the first forward makes them dense for good, and save_pretrained then writes
#           dense weights, three times as many bytes, with shapes that the next load calls unexpected.
# Looked up: huggingface/transformers pull request 47652 (merged); vllm-project/compressed-tensors issue 267.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0
"$work/venv/bin/pip" install --quiet transformers==5.24.0 compressed-tensors==0.20.1
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

from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, QuantizationScheme, apply_quantization_config

weights = QuantizationArgs(num_bits=4, type="int", symmetric=True, strategy="channel")
config = QuantizationConfig(
    config_groups={"group_0": QuantizationScheme(targets=["Linear"], weights=weights)},
    ignore=["lm_head"],
    quantization_status="compressed",
    format="pack-quantized",
)
apply_quantization_config(model, config)
for module in model.modules():
    if hasattr(module, "weight_scale"):
        module.weight_scale.data = module.weight.abs().amax(1, keepdim=True) / 7
compressor = ModelCompressor(quantization_config=config)
compressor.compress_model(model)
model.save_pretrained("m")
compressor.update_config("m")

found = AutoModelForCausalLM.from_pretrained("m").eval()
layer = found.model.layers[0].self_attn.q_proj
state = []
for name in ("before", "after"):
    found.save_pretrained(name)
    size = os.path.getsize(f"{name}/model.safetensors")
    state.append((sorted(dict(layer.named_parameters())), sum(p.numel() for p in found.parameters()), size))
    print(name, "the first forward:", *state[-1])
    with torch.no_grad():
        found(ids)
_, info = AutoModelForCausalLM.from_pretrained("after", output_loading_info=True)
print("unexpected in the second folder:", len(info["unexpected_keys"]))
(names, count, size), (names_after, count_after, size_after) = state
assert "weight" not in names and "weight" in names_after
assert count_after > 2 * count and size_after > 2 * size and len(info["unexpected_keys"]) == 14
print("seen: using the model makes it dense")
EOF
