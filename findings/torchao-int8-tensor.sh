#!/usr/bin/env bash
# Package:  torchao 0.18.0 (Int8WeightOnlyConfig), torch 2.13.0
# Expected: a weight of 32 x 32 that is stored in 8 bits says that it takes about 1,024 bytes, and can be compared and
#           tested for NaN like any parameter.
# Seen:     dtype is float32 and nbytes 4,096; its storage says the same; ==, torch.equal, isfinite and sum raise
#           NotImplementedError, safetensors refuses it. Tools that check or measure a model by its parameters see four
#           times its size, or stop.
# Looked up: pytorch/ao issue 2338 (tensors in safetensors files, open); torchao's documentation of tensor subclasses.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0
"$work/venv/bin/pip" install --quiet torchao==0.18.0 safetensors==0.8.0 numpy==2.4.6
cd "$work"
HF_HOME="$work/cache" HF_HUB_OFFLINE=1 "$work/venv/bin/python" - <<'EOF'
import logging

logging.disable(logging.WARNING)
import torch
from safetensors.torch import save_file
from torchao.quantization import Int8WeightOnlyConfig, quantize_

model = torch.nn.Sequential(torch.nn.Linear(32, 32, bias=False))
quantize_(model, Int8WeightOnlyConfig())
weight = model[0].weight
print(type(weight).__name__, weight.dtype, "| nbytes:", weight.nbytes, "| bytes of its codes:", weight.qdata.nbytes)
checks = {"==": lambda: weight == weight, "isfinite": weight.isfinite, "sum": weight.sum, "equal": lambda: torch.equal(weight, weight)}
refused = []
for name, check in checks.items():
    try:
        check()
    except NotImplementedError:
        refused.append(name)
try:
    save_file(model.state_dict(), "m.safetensors")
except (RuntimeError, ValueError) as error:
    refused.append("save_file")
    print("save_file:", str(error)[:70])
print("refused:", refused)
assert weight.nbytes == 4096 and weight.qdata.nbytes == 1024 and refused == [*checks, "save_file"]
print("seen: an int8 weight counts as float32 and cannot be looked at")
EOF
