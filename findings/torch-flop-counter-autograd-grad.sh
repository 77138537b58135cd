#!/usr/bin/env bash
# Package:  torch 2.13.0 (torch.utils.flop_counter.FlopCounterMode)
# Expected: the operations of a forward and of torch.autograd.grad by its inputs and weights are counted, as those of
#           backward() are; the counter is documented as a context around any code.
# Seen:     where the input of a module is a leaf that needs a gradient (hidden states from which a block is run again,
#           as in recomputation block by block), torch.autograd.grad raises a RuntimeError about leaf nodes and
#           _will_engine_execute_node; the same without the counter works, and so does backward() with it.
# Looked up: torch/utils/flop_counter.py and torch/utils/module_tracker.py, whose hooks on modules ask the engine for
#           every tensor that needs a gradient.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0
"$work/venv/bin/pip" install --quiet numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'EOF'
import torch
from torch.utils.flop_counter import FlopCounterMode

net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Linear(16, 4))
weights = [layer.weight for layer in net]
rows = torch.randn(5, 8, requires_grad=True)  # as the hidden states are from which a block is run again
torch.autograd.grad(net(rows).sum(), [rows, *weights])
with FlopCounterMode(display=False) as counter:
    net(rows).sum().backward()
print("backward, counted:", counter.get_total_flops())
assert counter.get_total_flops() > 0
try:
    with FlopCounterMode(display=False):
        torch.autograd.grad(net(rows).sum(), [rows, *weights])
except RuntimeError as error:
    print("autograd.grad, counted:", error)
    assert "_will_engine_execute_node" in str(error)
else:
    raise SystemExit("autograd.grad is counted now")
EOF
