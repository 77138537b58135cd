#!/usr/bin/env bash
# Package:  imbalanced-learn 0.14.2 (SMOTE), scikit-learn 1.9.1
# Expected: rows that are made between neighbours of a class have the class's mean; in a column of integers they are
#           rounded, or the column becomes one of floats.
# Seen:     they are cut towards zero: of two classes drawn alike the new rows of one keep its mean as floats, and lie a
#           third of a unit lower in every column as integers (higher where values are negative), a difference of the
#           classes that the data do not have. Nothing is said.
# Looked up: imblearn/over_sampling/_smote/base.py (_generate_samples); scikit-learn-contrib/imbalanced-learn pull request
#           450 (the type of the columns is kept, merged), issue 154 (integers that are categories, closed).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet imbalanced-learn==0.14.2 scikit-learn==1.9.1 pandas==3.1.1 numpy==2.4.6
cd "$work"
OMP_NUM_THREADS=1 "$work/venv/bin/python" -W error - <<'EOF'
import numpy as np
import pandas as pd
from imblearn.over_sampling import SMOTE

values = np.random.default_rng(0).poisson(5, (1200, 6))
label = (np.arange(1200) < 200).astype(int)  # 200 rows of the small class, 800 new ones


def shift(table):
    """Mean of the new rows less that of the rows that they are made from, over all columns."""
    resampled = SMOTE(random_state=0).fit_resample(pd.DataFrame(table), label)[0].to_numpy()
    assert resampled.dtype == table.dtype and np.array_equal(resampled[:1200], table)
    return round(float(resampled[1200:].mean() - table[:200].mean()), 2)


found = {"floats": shift(values.astype(float)), "integers": shift(values), "negative integers": shift(-values)}
print("shift of the new rows' mean:", found)
assert abs(found["floats"]) < 0.1 and found["integers"] < -0.3 and found["negative integers"] > 0.3
print("seen: new values of integers are cut towards zero")
EOF
