#!/usr/bin/env bash
# Package:  dask 2026.8.0 (dask.dataframe.read_csv of several files), pandas 3.1.1
# Expected: files with the same columns in another order are brought to one order by their names, as pyarrow and datasets
#           do, or refused, as polars does; a table has the same values whatever is done with it.
# Seen:     compute() and the means of columns are right. to_dask_array and values put the second file's ages among the
#           weights; to_csv(single_file=True) writes its rows below the first file's header, so that the values stay
#           swapped. Nothing is said.
# Looked up: dask/dask issue 2053 (open) and pull request 7916 (the names of a file are no longer overwritten, merged).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "dask[dataframe]==2026.8.0" pandas==3.1.1 numpy==2.4.6
cd "$work"
HF_HOME="$work/cache" HF_HUB_OFFLINE=1 "$work/venv/bin/python" -W error - <<'EOF'
import pathlib

import dask.dataframe as dd
import pandas as pd

pathlib.Path("one.csv").write_text("age,weight\n30,80\n31,81\n")
pathlib.Path("two.csv").write_text("weight,age\n70,20\n71,21\n")
table = dd.read_csv(["one.csv", "two.csv"])
right = {"age": [30, 31, 20, 21], "weight": [80, 81, 70, 71]}
computed, means = table.compute().to_dict("list"), table.mean().compute().to_dict()
array = table.to_dask_array(lengths=True)
columns, array_means = array.compute().T.tolist(), array.mean(axis=0).compute().tolist()
table.to_csv("both.csv", single_file=True, index=False)
written = pd.read_csv("both.csv").to_dict("list")
print("computed:", computed, "| means:", means)
print("as an array, age and weight:", columns, "| means:", array_means)
print("written and read again:", written)
swapped = [[30, 31, 70, 71], [80, 81, 20, 21]]
assert computed == right and means == {"age": 25.5, "weight": 75.5}
assert columns == table.values.compute().T.tolist() == swapped and array_means == [50.5, 50.5]
assert list(written.values()) == swapped
print("seen: the array and the written file hold ages among the weights")
EOF
