#!/usr/bin/env bash
# Package:  datasets 5.2.0 (load_dataset of a folder)
# Expected: all tables of a folder are read, or those left out are named.
# Seen:     as soon as one file name holds a split's name as a word of its own (train, test, ...), every file that holds
#           none is left out without a word; files that are named for their content alone are all read.
# Looked up: the Hub's documentation, "File names and splits" (a split's name may stand anywhere in a file's name).
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


def rows(*names):
    folder = pathlib.Path("-".join(names).replace(".csv", ""))
    folder.mkdir()
    for name in names:
        (folder / name).write_text("a\n1\n2\n")
    return {split: len(part) for split, part in datasets.load_dataset(str(folder)).items()}


plain = rows("cleveland.csv", "hungarian.csv", "stress.csv")
mixed = rows("cleveland.csv", "hungarian.csv", "stress_test.csv")
print("cleveland, hungarian, stress:     ", plain)
print("cleveland, hungarian, stress_test:", mixed)
assert plain == {"train": 6} and mixed == {"test": 2}
print("seen: one name with 'test' in it makes two tables disappear")
EOF
