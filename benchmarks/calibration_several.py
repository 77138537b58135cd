"""From which factor on should a mixture be taken where there are several targets? From what is measured already.

    python benchmarks/calibration_several.py

Ground truth and terms are those of calibration_quality.py on the decoder (results/calibration_truth_decoder.csv and
calibration_terms.csv). A case is a method and two to seven of its domains as targets; weighed are all single sets and
their uniform mixture. Given is the mean of the targets' nats a token that the pick costs more than the better of the
best single set and the mixture would (regret), by the factor, and how often the mixture is really better.
"""

from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from calibration_quality import MEASURE, predicted, truths
from prune_quality import DOMAINS

OUT = Path(__file__).resolve().parent / "results" / "calibration_several.md"
FACTORS = (0.9, 1.0, 1.1, 1.2, np.inf)


def main() -> None:
    """Compare the factors and write the table."""
    rows = truths("decoder")
    rows = rows[rows.usual & rows.drawer.isin([*DOMAINS, "uniform"])]
    terms = pd.read_csv(OUT.parent / "calibration_terms.csv")
    score = predicted(terms[terms.part == "decoder"], MEASURE)["decoder"].groupby(["target", "drawer"]).mean()
    lines = [
        "| targets | the mixture is better | " + " | ".join(f"regret, factor {f:g}" for f in FACTORS) + " |",
        "|" + "---|" * (2 + len(FACTORS)),
    ]
    quality = rows.groupby(["method", "target", "drawer"]).quality.mean()
    for number in range(1, len(DOMAINS) + 1):
        better, regrets = [], {factor: [] for factor in FACTORS}
        for method in rows.method.unique():
            for targets in combinations(DOMAINS, number):
                mean = quality[method].unstack("target")[list(targets)].mean(axis=1)
                close = np.exp(score.unstack("target")[list(targets)].mean(axis=1))
                single = close.drop([n for n in close.index if n not in DOMAINS]).idxmax()
                better.append(mean["uniform"] > mean[list(DOMAINS)].max())
                for factor in FACTORS:
                    pick = "uniform" if close["uniform"] > factor * close[single] else single
                    regrets[factor].append(mean.max() - mean[pick])
        cells = " | ".join(f"{np.mean(values):.4f}" for values in regrets.values())
        lines.append(f"| {number} | {np.mean(better):.0%} | {cells} |")
    OUT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
