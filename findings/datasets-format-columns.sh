#!/usr/bin/env bash
# Package:  datasets 5.2.0 (Dataset.with_format(columns=...))
# Expected: a data set that shows some columns gives those to every reader, or all of them to every reader.
# Seen:     rows, and the rows of the data set after save_to_disk and load_from_disk, have the chosen columns; to_pandas,
#           to_parquet and column_names have them all, so that a column that was hidden (a key, the label) goes on.
# Looked up: huggingface/datasets issue 4476 (closed; remove_columns is the advice).
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
table = datasets.Dataset.from_dict({"text": ["a", "b"], "patient": [7, 8], "label": [0, 1]}).with_format(columns=["text"])
table.save_to_disk("saved")
table.to_parquet("t.parquet")
row, saved = list(table[0]), list(datasets.load_from_disk("saved")[0])
frame, parquet = list(table.to_pandas()), list(pd.read_parquet("t.parquet"))
print("a row:", row, "| saved and loaded:", saved)
print("to_pandas:", frame, "| to_parquet:", parquet, "| column_names:", table.column_names)
assert row == saved == ["text"] and frame == parquet == table.column_names == ["text", "patient", "label"]
print("seen: the choice of columns holds for rows alone")
EOF
