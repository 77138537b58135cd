#!/usr/bin/env bash
# Package:  torchao 0.18.0 (Int4WeightOnlyConfig), torch 2.13.0
# Expected: quantize_ quantizes the layers that its filter takes, or refuses, as IntxWeightOnlyConfig and
#           Int8WeightOnlyConfig do for the same groups: 576 columns are not divisible by 128.
# Seen:     layers whose columns are not a multiple of group_size (128 by default) stay dense; quantize_ returns as if
#           they were not, the line about it is logged at INFO, which is not shown. A layer of 576 columns, the width of
#           SmolLM2-135M, is as before, so that its "4-bit" quality is that of the original.
# Looked up: torchao/quantization/quant_api.py (_int4_weight_only_quantize_tensor); pytorch/torchchat issue
#           1362 (skipped since the padding was removed).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0
"$work/venv/bin/pip" install --quiet torchao==0.18.0 numpy==2.4.6
cd "$work"
HF_HOME="$work/cache" HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 "$work/venv/bin/python" - 2> messages <<'EOF' || { tail -5 messages; exit 1; }
import torch
from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig, IntxWeightOnlyConfig, quantize_
from torchao.quantization.granularity import PerGroup

configs = {
    "Int4WeightOnlyConfig": Int4WeightOnlyConfig(),
    "IntxWeightOnlyConfig": IntxWeightOnlyConfig(torch.int4, PerGroup(128)),
    "Int8WeightOnlyConfig": Int8WeightOnlyConfig(granularity=PerGroup(128)),
}
torch.manual_seed(0)
found, inputs = {}, torch.randn(4, 576, dtype=torch.bfloat16)
for name, config in configs.items():
    model = torch.nn.Sequential(torch.nn.Linear(576, 1536)).to(torch.bfloat16)
    with torch.no_grad():
        before = model(inputs)
        try:
            quantize_(model, config)
            found[name] = torch.equal(model(inputs), before) and {type(p) for p in model.parameters()}
        except AssertionError as error:
            found[name] = str(error)
    print(f"{name}: {found[name]}")
assert found["Int4WeightOnlyConfig"] == {torch.nn.Parameter}
assert all("divisible" in found[name] for name in list(configs)[1:])
print("seen: quantize_ returns, every weight is dense and every output equal")
EOF
if grep -i skip messages; then
    echo "it is said now"
    exit 1
fi
