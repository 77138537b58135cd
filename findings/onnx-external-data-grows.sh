#!/usr/bin/env bash
# Package:  onnx 1.23.2 (onnx.save with save_as_external_data)
# Expected: saving a model twice to the same two names gives the same two files.
# Seen:     the file of weights is appended to: after three times it is three times as large, with two dead copies in
#           front, and the model still runs. Whoever measures a compressed model by its files counts all of them.
# Looked up: onnx/onnx issue 6655 (closed) and pull request 6497.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet onnx==1.23.2 numpy==2.4.6
cd "$work"
HF_HOME="$work/cache" HF_HUB_OFFLINE=1 "$work/venv/bin/python" - <<'EOF'
import os

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

sizes = []
for _ in range(3):
    weights = numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 64]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [weights])
    onnx.save(helper.make_model(graph), "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    sizes.append(os.path.getsize("m.data"))
entry = {e.key: e.value for e in onnx.load("m.onnx", load_external_data=False).graph.initializer[0].external_data}
print("bytes of m.data after each save:", sizes, "| the model reads", entry["length"], "at", entry["offset"])
assert sizes == [16384, 32768, 49152] and entry["offset"] == "32768"
print("seen: the file grows by one copy each time")
EOF
