"""Does a ranking with twenty labels say what the full table confirms? The heart sites of data/, ten draws of labels.

python benchmarks/twenty_labels.py             (a minute on 2 cores; writes results/twenty_labels.txt)

The truth is planning with all labels of the Veterans' hospital: what 10 labelled rows per class gain, 40 repeats.
"""

import os
import warnings
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from transmeter import Ranking, rank
from transmeter.tables.data import Table, load

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("heart_hungarian", "heart_cleveland", "heart_statlog", "heart_switzerland", "pima_diabetes", "heart_failure")
PER_CLASS, DRAWS = 10, 10


@click.command()
def main() -> None:
    """Compare verdicts and write them."""
    warnings.simplefilter("ignore")
    target, *sources = (load(str(ROOT / "data" / "tabular" / f"{name}.csv")) for name in ("heart_va", *SOURCES))
    truth = {row.source: row for row in rank(target, sources, shots=PER_CLASS, repeats=40).rows}
    lines = ["true gains, points: " + ", ".join(f"{r.source} {r.gain_pp:+.1f}" for r in truth.values())]
    wrong = 0
    for draw in range(DRAWS):
        found = rank(few(target, draw), sources)
        wrong += any(contradicts(row.verdict, truth[row.source].gain_pp) for row in found.rows)
        lines.append(f"draw {draw}: {shown(found)}")
    lines.append(f"draws with a verdict that the full table contradicts: {wrong} of {DRAWS}")
    text = "\n".join(lines) + "\n"
    (ROOT / "benchmarks" / "results" / "twenty_labels.txt").write_text(text)
    click.echo(text, nl=False)


def few(target: Table, draw: int) -> Table:
    """The target with PER_CLASS labels per class left."""
    rng = np.random.default_rng(draw)
    rows = [rng.permutation(np.flatnonzero(target.codes == c))[:PER_CLASS] for c in range(len(target.classes))]
    kept = np.isin(np.arange(len(target)), np.concatenate(rows))
    return replace(target, labels=np.where(kept, target.labels, None))


def contradicts(verdict: str | None, true: float) -> bool:
    """Whether a verdict has the wrong sign."""
    return (verdict in ("helps", "likely helps") and true <= 0) or (verdict == "hurts" and true >= 0)


def shown(found: Ranking) -> str:
    """The sources with a verdict, and the first one."""
    said = [f"{r.source} {r.gain_pp:+.1f} {r.verdict}" for r in found.rows if r.verdict != "no evidence"]
    return f"first {found.rows[0].source}; " + (", ".join(said) or "no evidence of any")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
