#!/usr/bin/env bash
# Package:  skrub 0.11.0 (TableVectorizer, Cleaner)
# Expected: codes that are text stay text, and a value that the learned type cannot hold is refused or told when it comes.
# Seen:     a text column of codes ("007", "010") is turned into numbers, so that leading zeros are gone; a later code
#           ("A10") becomes NaN. Dates that fit month/day when fitted make a later 25/12/2020 a missing value. Neither
#           warns: a target table loses what the source's table happened not to show.
# Looked up: skrub-data/skrub pull request 819 (values of another type at transform); no issue was found on dates.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet skrub==0.11.0 pandas==3.1.1
cd "$work"
HF_HOME="$work/cache" HF_HUB_OFFLINE=1 "$work/venv/bin/python" - <<'EOF'
import warnings

import pandas as pd
import skrub

warnings.simplefilter("error", UserWarning)
source = pd.DataFrame({"code": ["007", "010", "007"], "visit": ["01/02/2020", "03/04/2020", "05/06/2020"]})
target = pd.DataFrame({"code": ["A10", "010"], "visit": ["25/12/2020", "01/02/2020"]})
codes = skrub.TableVectorizer().fit(source[["code"]])
dates = skrub.Cleaner().fit(source[["visit"]])
old, new = codes.transform(source[["code"]])["code"].tolist(), codes.transform(target[["code"]])["code"].tolist()
when = dates.transform(target[["visit"]])["visit"]
print("codes of the source:", old, "| of the target:", new)
print("visits of the target:", when.tolist())
assert old == [7.0, 10.0, 7.0] and pd.isna(new[0]) and new[1] == 10.0
assert pd.isna(when[0]) and when[1].month == 1
print("seen: new codes and dates become missing values without a word")
EOF
