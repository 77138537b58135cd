#!/usr/bin/env bash
# Package:  POT 0.9.6.post1 (ot.gaussian.bures_wasserstein_distance)
# Expected: the distance of two Gaussians is defined for every covariance, singular ones too (a class with fewer rows than
#           columns has one); that of a Gaussian to itself is 0.
# Seen:     the matrix root takes the square roots of eigenvalues that are negative by rounding; the NaN ends in a
#           LinAlgError ("Eigenvalues did not converge"), even for a Gaussian and itself. The same distance through an SVD
#           of the centred rows is fine, and so is the empirical function, which adds 1e-6 to the diagonal.
# Looked up: POT's documentation of ot.gaussian; PythonOT/POT issue 708 (matrix root, closed).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 scipy==1.17.1 POT==0.9.6.post1
cd "$work"
HF_HOME="$work/cache" HF_HUB_OFFLINE=1 "$work/venv/bin/python" - <<'EOF'
import warnings

import numpy as np
import ot

rng = np.random.default_rng(0)
x, y = rng.normal(size=(2, 4, 12))  # two classes of 4 rows and 12 columns
mean = [a.mean(0) for a in (x, y)]
covariance = [np.cov(a.T) for a in (x, y)]
raised = 0
for second in (1, 0):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            print("POT:", ot.gaussian.bures_wasserstein_distance(mean[0], mean[second], covariance[0], covariance[second]))
        except np.linalg.LinAlgError as error:
            raised += 1
            print("POT, to", ("itself" if second == 0 else "another") + ":", type(error).__name__, error)
roots = [(a - a.mean(0)) / len(a[1:]) ** 0.5 for a in (x, y)]
cross = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
squared = ((mean[0] - mean[1]) ** 2).sum() + np.trace(covariance[0]) + np.trace(covariance[1]) - 2 * cross
print("through an SVD of the rows:", squared**0.5, "| empirical:", ot.gaussian.empirical_bures_wasserstein_distance(x, y))
assert raised == 2 and squared > 0
print("seen: covariances of few rows raise, where the distance exists")
EOF
