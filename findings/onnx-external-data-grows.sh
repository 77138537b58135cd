#!/usr/bin/env bash
# Package:  onnx 1.23.2 (onnx.save with save_as_external_data)
# Expected: saving a model again under the same two names gives the same two files, or is refused, as it is since pull
#           request 6497.
# Seen:     the refusal looks for the file of weights in the working folder, not beside the model: in any other folder the
#           file is appended to, three copies after three times, and the model runs from the last; and a file of that name
#           in the working folder forbids saving elsewhere. Who measures a model by its files counts the dead copies.
# Looked up: onnx/onnx issue 6655 (closed) and pull request 6497 (merged).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet onnx==1.23.2 numpy==2.4.6
cd "$work"
HF_HOME="$work/cache" HF_HUB_OFFLINE=1 "$work/venv/bin/python" - <<'EOF'
import os
import pathlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def save(folder):
    pathlib.Path(folder).mkdir(exist_ok=True)
    weights = numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 64]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [weights])
    model = helper.make_model(graph)
    onnx.save(model, f"{folder}/m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    return os.path.getsize(f"{folder}/m.data")


sizes = [save("out") for _ in range(3)]
tensor = onnx.load("out/m.onnx", load_external_data=False).graph.initializer[0]
entry = {e.key: e.value for e in tensor.external_data}
print("bytes of out/m.data after each save:", sizes, "| the model reads", entry["length"], "from", entry["offset"])
pathlib.Path("m.data").write_text("of something else")
try:
    save("new")
    refused = False
except FileExistsError as error:
    refused = True
    print("into an empty folder, with another m.data in the working folder:", error)
assert sizes == [16384, 32768, 49152] and entry["offset"] == "32768" and refused
print("seen: the file grows by a copy each time, unless it is in the working folder")
EOF
