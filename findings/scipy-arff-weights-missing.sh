#!/usr/bin/env bash
# Package:  scipy 1.17.1 (scipy.io.arff.loadarff), beside liac-arff 2.5.0
# Expected: a missing class is something else than a class, as a missing number is NaN; the weight of a row, which ARFF
#           writes behind it in braces, is returned or refused.
# Seen:     a missing nominal value is the bytes b"?", which the list of the attribute's values does not have; the weight
#           is dropped without a word. liac-arff gives None for the first and refuses the second.
# Looked up: the ARFF specification (missing values, weights of instances); scipy's documentation names neither.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet liac-arff==2.5.0 scipy==1.17.1
cd "$work"
HF_HOME="$work/cache" HF_HUB_OFFLINE=1 "$work/venv/bin/python" - <<'EOF'
import io

import arff
from scipy.io import arff as scipy_arff

head = "@relation r\n@attribute age numeric\n@attribute y {no,yes}\n@data\n"
missing, weighted = head + "?,?\n1,no\n", head + "1,no,{5}\n2,yes,{1}\n"
data, meta = scipy_arff.loadarff(io.StringIO(missing))
rows, _ = scipy_arff.loadarff(io.StringIO(weighted))
print("scipy, missing: ", data.tolist(), "| values of y:", meta["y"][1])
print("scipy, weighted:", rows.tolist(), "| columns:", rows.dtype.names)
try:
    arff.loads(weighted)
    refused = False
except arff.BadLayout as error:
    refused = True
    print("liac-arff, weighted:", str(error)[:60])
none = arff.loads(missing)["data"][0]
print("liac-arff, missing:", none)
assert data["y"].tolist() == [b"?", b"no"] and rows.tolist() == [(1.0, b"no"), (2.0, b"yes")]
assert refused and none == [None, None]
print("seen: a missing class is a class of its own, weights are lost")
EOF
