"""A hospital has ten labelled patients. Whose patients help it most, and what do they bring?

python examples/rank_tables.py
"""

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import balanced_accuracy_score

import transmeter

TABLES = Path(__file__).resolve().parent.parent / "data/tabular"
SHOTS = 5  # labelled rows a class

# 1. Rank: five sources for the Veterans' hospital, at five labelled rows a class.
mine = pd.read_csv(TABLES / "heart_va.csv")
sources = {
    name: TABLES / f"heart_{name}.csv" for name in ("hungarian", "cleveland", "switzerland", "statlog", "failure")
}
found = transmeter.rank(mine, sources, shots=SHOTS, repeats=12)
print(found.to_frame()[["rank", "source", "gain_pp", "ci_low", "ci_high", "verdict"]].round(1).to_string(index=False))

# 2. The pick is None where no source helps: then the target alone is the best that there is.
print(f"\nthe pick: {found.best}")
pick = sources.get(found.best)

# 3. Use it: train with the pick and without on the same few rows, and ask both for all other patients.
rng = np.random.default_rng(0)
scores = []
for _ in range(5):
    few = mine.groupby("label").sample(SHOTS, random_state=rng.integers(2**31)).index
    known, rest = mine.loc[few], mine.drop(few)
    row = {}
    for name, source in {"with the pick": pick, "alone": None}.items():
        classifier = transmeter.TransferClassifier(sources=source)
        classifier.fit(known.drop(columns="label"), known["label"])
        row[name] = balanced_accuracy_score(rest["label"], classifier.predict(rest.drop(columns="label")))
    scores.append(row)
print("\nbalanced accuracy on the other patients, mean of five draws of the labelled ones")
print(pd.DataFrame(scores).mean().map("{:.1%}".format).to_string())
