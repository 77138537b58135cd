#!/usr/bin/env bash
# Package:  datasets 5.2.0 (Dataset.cast_column to ClassLabel)
# Expected: a class number beyond the names is refused by cast_column, as from_dict refuses it.
# Seen:     it depends on the width of the integers: int32 is refused, int64 (what Python integers become) is taken as it
#           is, also by cast, and fails only when somebody asks for the name.
# Looked up: huggingface/datasets issue 8494 (open).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet datasets==5.2.0
cd "$work"
HF_HOME="$work/cache" HF_HUB_OFFLINE=1 "$work/venv/bin/python" - <<'EOF'
import datasets
import pyarrow as pa

datasets.disable_progress_bars()
classes = datasets.ClassLabel(names=["a", "b"])
found = {}
for width in ("int32", "int64"):
    table = datasets.Dataset(pa.table({"label": pa.array([5, 0], getattr(pa, width)())}))
    try:
        found[width] = table.cast_column("label", classes)["label"][:]
    except ValueError as error:
        found[width] = str(error)
try:
    datasets.Dataset.from_dict({"label": [5, 0]}, features=datasets.Features({"label": classes}))
    found["from_dict"] = "taken"
except ValueError as error:
    found["from_dict"] = str(error)
try:
    classes.int2str(5)
except ValueError as error:
    found["its name"] = str(error)
for how, what in found.items():
    print(f"{how}: {what}")
assert found["int64"] == [5, 0] and "greater than" in found["int32"] and "greater than" in found["from_dict"]
print("seen: class 5 of 2 passes where the column is int64")
EOF
