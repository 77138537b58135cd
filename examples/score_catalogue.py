"""A catalogue of tables is scored overnight, every pair once. In the morning pandas reads what came of it.

python examples/score_catalogue.py
"""

import sqlite3
from pathlib import Path

import pandas as pd

from cli import main as transmeter

TABLES = Path(__file__).resolve().parent.parent / "data/tabular"
STORE = "catalogue.db"

# 1. The night: all pairs. The same command goes on where it was stopped, and scores nothing twice.
transmeter(
    [
        "batch",
        "--targets",
        f"{TABLES}/heart_*.csv",
        "--sources",
        f"{TABLES}/*.csv",
        "--scorer",
        "logme",
        "--store",
        STORE,
    ],
    standalone_mode=False,
)

# 2. The morning: the store is an SQLite file with a view `results`, one row a pair.
with sqlite3.connect(STORE) as store:
    results = pd.read_sql("SELECT * FROM results", store)

# 3. What failed says why.
failed = results[results["status"] == "failed"]
print(f"\n{len(results)} pairs, {len(failed)} failed")
print(failed[["target", "source", "error"]].to_string(index=False) if len(failed) else "")

# 4. A score of another target is on another scale: compare sources within a row.
done = results[results["status"] == "done"]
print(done.pivot(index="target", columns="source", values="score").rank(axis=1, ascending=False).to_string())

# 5. The most promising source of every target, to be ranked in full by `transmeter rank`.
best = done.loc[done.groupby("target")["score"].idxmax(), ["target", "source", "score"]]
print("\n" + best.to_string(index=False))
