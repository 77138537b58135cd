#!/usr/bin/env bash
# Package:  datasets 5.2.0 (load_dataset of JSON lines, types by pyarrow)
# Expected: a quoted value is text, whatever it looks like.
# Seen:     a column of strings becomes timestamps where every value looks like a date, so that texts or labels change
#           their type, and two files with the same schema (one with a single other value) are read as different types.
# Looked up: pyarrow's documentation, "Reading JSON files" (type inference says so); that of datasets does not.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet datasets==5.2.0
cd "$work"
HF_HOME="$work/cache" HF_HUB_OFFLINE=1 "$work/venv/bin/python" - <<'EOF'
import pathlib

import datasets

datasets.disable_progress_bars()
types = {}
for name, values in {"dates": ["2020-01-01", "2020-01-02"], "one other": ["2020-01-01", "unknown"]}.items():
    path = pathlib.Path(f"{name}.jsonl".replace(" ", "_"))
    path.write_text("".join('{"text": "%s"}\n' % value for value in values))
    table = datasets.load_dataset("json", data_files=str(path), split="train")
    types[name] = table.features["text"].dtype
    print(f"{name}: {types[name]}, first value {table[0]['text']!r}")
assert types == {"dates": "timestamp[s]", "one other": "string"}
print("seen: quoted text becomes a timestamp")
EOF
