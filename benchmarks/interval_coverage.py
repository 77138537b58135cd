"""Are the intervals of a user with 20 labelled rows honest? Coverage on tables whose other labels are hidden.

    python benchmarks/interval_coverage.py

Of a heart site only 10 rows a class keep their label (drawn anew each time), the others become unlabelled rows; the
estimate by cross-fitting (8 rows a class train in a fold) is held against the gain at 8 shots measured with all labels.
"""

import json
from pathlib import Path

import click
import numpy as np

from transmeter.data import load, table
from transmeter.estimate import estimate
from transmeter.scorers.transmeter import score
from transmeter.source import Source

TABLES = Path(__file__).resolve().parent.parent / "data" / "tabular"
CASES = {
    "heart_hungarian": ("heart_cleveland", "heart_va", "pima_diabetes"),
    "heart_cleveland": ("heart_hungarian", "heart_va", "pima_diabetes"),
}


@click.command()
@click.option("--draws", default=20)
@click.option("--repeats", default=10)
@click.option("--out", default="benchmarks/results/interval_coverage.json", type=click.Path(path_type=Path))
def main(draws: int, repeats: int, out: Path) -> None:
    """Count how often the interval holds the truth, and how wide it is, with and without the unlabelled rows."""
    rng = np.random.default_rng(0)
    inside, widths, verdicts = {}, {}, {}
    for name, others in CASES.items():
        full = load(str(TABLES / f"{name}.csv"))
        sources = [Source(load(str(TABLES / f"{n}.csv"))) for n in others]
        truth = [s.value for s in score(sources, full, seed=1, shots=8, repeats=100)]
        for draw in range(draws):
            rows = np.concatenate([rng.permutation(np.flatnonzero(full.codes == c))[:10] for c in range(2)])
            hidden = np.full(len(full), None, dtype=object)
            hidden[rows] = full.labels[rows]
            for mode, target in (
                ("labelled rows alone", full.take(rows)),
                ("with unlabelled rows", table(name, full.features, hidden)),
            ):
                for found, true in zip(score(sources, target, seed=draw, repeats=repeats), truth):
                    gain = estimate(found.outcome)
                    inside.setdefault(mode, []).append(gain.low <= true <= gain.high)
                    widths.setdefault(mode, []).append(gain.high - gain.low)
                    verdicts.setdefault(mode, []).append(gain.low > 0 > true or gain.high < 0 < true)
    result = {
        mode: {
            "coverage": float(np.mean(inside[mode])),
            "mean width, pp": float(np.mean(widths[mode])),
            "verdicts of the wrong sign": float(np.mean(verdicts[mode])),
            "n": len(inside[mode]),
        }
        for mode in inside
    }
    out.write_text(json.dumps({"draws": draws, "repeats": repeats, "modes": result}, indent=1))
    click.echo(json.dumps(result))


if __name__ == "__main__":
    main()
