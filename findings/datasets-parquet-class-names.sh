#!/usr/bin/env bash
# Package:  datasets 5.2.0 (load_dataset of several parquet files)
# Expected: two files whose label columns name their classes in another order are either refused or brought to one order,
#           as concatenate_datasets refuses them.
# Seen:     the names of the first file are given to the numbers of all: every label of the second file is swapped, without
#           a word. pandas reads the numbers alone.
# Looked up: datasets' documentation of ClassLabel and of loading parquet; no issue was found.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet datasets==5.2.0 pandas==3.1.1
cd "$work"
HF_HOME="$work/cache" HF_HUB_OFFLINE=1 "$work/venv/bin/python" - <<'EOF'
import datasets
import pandas as pd

datasets.disable_progress_bars()
for name, classes in (("one", ["no", "yes"]), ("two", ["yes", "no"])):
    table = datasets.Dataset.from_dict({"label": ["no", "yes"]})
    table.cast_column("label", datasets.ClassLabel(names=classes)).to_parquet(f"{name}.parquet")
both = datasets.load_dataset("parquet", data_files=["one.parquet", "two.parquet"], split="train")
read = both.features["label"].int2str(both["label"][:])
print("stored: ", ["no", "yes", "no", "yes"])
print("read:   ", read, "| pandas:", pd.read_parquet("two.parquet")["label"].tolist())
parts = [datasets.load_dataset("parquet", data_files=f"{n}.parquet", split="train") for n in ("one", "two")]
try:
    datasets.concatenate_datasets(parts)
    refused = False
except ValueError as error:
    refused = True
    print("concatenate_datasets:", str(error)[:60])
assert read == ["no", "yes", "yes", "no"] and refused
print("seen: the labels of the second file are swapped in silence")
EOF
