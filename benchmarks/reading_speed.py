"""Time to read a CSV file as a table, beside pandas' own `read_csv`: 200,000 rows x 20 columns.

    python benchmarks/reading_speed.py
prints seconds of both, the median of paired runs, and their ratio.
"""

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from transmeter.tables import data

ROWS, COLUMNS, RUNS = 200_000, 20, 7


def frame() -> pd.DataFrame:
    """Numbers, whole numbers, categories and a label."""
    rng = np.random.default_rng(0)
    columns = {f"x{i}": rng.normal(size=ROWS).round(4) for i in range(COLUMNS - 8)}
    columns |= {f"n{i}": rng.integers(0, 1000, ROWS) for i in range(4)}
    columns |= {f"c{i}": rng.choice(["low", "middle", "high"], ROWS) for i in range(4)}
    return pd.DataFrame(columns).assign(label=rng.integers(0, 2, ROWS))


def seconds(read: Callable, path: Path) -> float:
    """Of one call."""
    begin = time.perf_counter()
    read(path)
    return time.perf_counter() - begin


def main() -> None:
    """Print the figures."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.csv"
        frame().to_csv(path, index=False)
        pairs = [(seconds(pd.read_csv, path), seconds(lambda p: data.load(str(p)), path)) for _ in range(RUNS)]
    pandas, ours = (statistics.median(times) for times in zip(*pairs))
    ratio = statistics.median(mine / theirs for theirs, mine in pairs)
    print(f"{ROWS:,} rows x {COLUMNS} columns, median of {RUNS} paired runs")
    print(f"pandas.read_csv {pandas:.2f} s, transmeter {ours:.2f} s with columns read, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
