#!/usr/bin/env bash
# Package:  gguf 0.19.0 (GGUFWriter, GGUFReader)
# Expected: what is added to a file is in the file, or is refused when it is added; a tensor has one shape.
# Seen:     an empty array is left out without a word; a list of integers beyond 32 bits is taken and fails only when the
#           header is written, by a struct.error that names no key; GGUFReader's tensor.shape is the reverse of
#           tensor.data.shape.
# Looked up: ggml-org/llama.cpp pull requests 8774 (empty arrays are left out) and 22189 (closed, unmerged).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet gguf==0.19.0 numpy==2.4.6
cd "$work"
HF_HOME="$work/cache" HF_HUB_OFFLINE=1 "$work/venv/bin/python" - <<'EOF'
import struct

import gguf
import numpy as np


def write(name, values):
    writer = gguf.GGUFWriter(name, "llama")
    writer.add_array("layers.removed", values)
    writer.add_tensor("w", np.zeros((2, 3), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return gguf.GGUFReader(name)


empty, some = write("empty.gguf", []), write("some.gguf", [1, 2])
print("keys with []:    ", [k for k in empty.fields if not k.startswith("GGUF")])
print("keys with [1, 2]:", [k for k in some.fields if not k.startswith("GGUF")])
try:
    write("big.gguf", [3_000_000_000])
    late = ""
except struct.error as error:
    late = str(error)
    print("3,000,000,000: struct.error:", late)
shapes = some.tensors[0].shape.tolist(), some.tensors[0].data.shape
print("shapes of one tensor:", *shapes)
assert "layers.removed" in some.fields and "layers.removed" not in empty.fields
assert late and "layers" not in late and shapes == ([3, 2], (2, 3))
print("seen: [] is lost, large integers fail late and without their name")
EOF
