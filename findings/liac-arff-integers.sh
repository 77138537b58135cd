#!/usr/bin/env bash
# Package:  liac-arff 2.5.0, beside scipy 1.17.1, on one ARFF file
# Expected: both readers of the format give the same numbers; Weka, whose format it is, treats "integer" as "numeric".
# Seen:     liac-arff cuts the decimals of an attribute that is declared integer (1.7 becomes 1), without a word; scipy
#           reads 1.7. The same file read for two sources gives two data sets.
# Looked up: the ARFF specification (integer and real are treated as numeric); no issue was found.
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

text = "@relation r\n@attribute age integer\n@attribute y {no,yes}\n@data\n1.7,no\n-0.9,yes\n3,no\n"
liac = [row[0] for row in arff.loads(text)["data"]]
scipy = scipy_arff.loadarff(io.StringIO(text))[0]["age"].tolist()
print("liac-arff:", liac, "| scipy:", scipy)
assert liac == [1, 0, 3] and scipy == [1.7, -0.9, 3.0]
print("seen: decimals are cut, towards zero")
EOF
