"""What every term of Transmeter's loss is worth: each switched off alone, and all alignment terms together.

    python benchmarks/rank_terms.py

On the tables of data/, planning mode. For every setting: the gain of the source picked on one half of the repeats,
measured on the other half; the mean gain of all sources; and how far the gains of single sources move from those of
the full loss. Agreement is the mean Kendall tau with plain fine-tuning (no term but cross-entropy, other seed, four
times the repeats), which the setting without terms resembles most by construction.
"""

import json
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from scipy import stats

from transmeter.data import load
from transmeter.estimate import Outcome, measured
from transmeter.scorers.transmeter import score
from transmeter.source import Source

TABLES = Path(__file__).resolve().parent.parent / "data" / "tabular"
SITES = ("heart_cleveland", "heart_hungarian", "heart_va", "heart_statlog")
OTHERS = ("heart_switzerland", "heart_failure", "pima_diabetes")
TERMS = ("reconstruction", "discriminator", "mean_distance")
SETTINGS = {
    "all terms": {},
    **{f"no {term}": {term: 0.0} for term in ("source_loss", *TERMS)},
    "no alignment term": dict.fromkeys(TERMS, 0.0),
    "target loss only": dict.fromkeys(("source_loss", *TERMS), 0.0),
}
SAME_PATIENTS = {"heart_cleveland", "heart_statlog"}


@click.command()
@click.option("--shots", default=5)
@click.option("--repeats", default=40)
@click.option("--out", default="benchmarks/results/rank_terms.json", type=click.Path(path_type=Path))
def main(shots: int, repeats: int, out: Path) -> None:
    """Rank the heart sites and strangers for each other under every setting."""
    tables = {n: load(str(TABLES / f"{n}.csv")) for n in (*SITES, *OTHERS)}
    sources = {n: Source(t) for n, t in tables.items()}
    found: dict[str, dict[str, list]] = {name: {"pick": [], "gains": [], "tau": []} for name in SETTINGS}
    for name in SITES:
        mine = [s for n, s in sources.items() if n != name and not {n, name} <= SAME_PATIENTS]
        plain = SETTINGS["target loss only"]
        truth = gains(score(mine, tables[name], seed=99, shots=shots, repeats=4 * repeats, **plain))
        for setting, options in SETTINGS.items():
            scores = score(mine, tables[name], seed=0, shots=shots, repeats=repeats, **options)
            first, second = (gains(scores, slice(h, None, 2)) for h in range(2))
            found[setting]["pick"] += [second[first.argmax()], first[second.argmax()]]
            found[setting]["gains"] += list(gains(scores))
            found[setting]["tau"].append(stats.kendalltau(gains(scores), truth).statistic)
    full = np.array(found["all terms"]["gains"])
    rows = [
        {
            "setting": setting,
            "gain of the pick, pp": float(np.mean(f["pick"])),
            "its standard error": float(np.std(f["pick"], ddof=1) / len(f["pick"]) ** 0.5),
            "mean gain, pp": float(np.mean(f["gains"])),
            "mean absolute change of a gain, pp": float(np.abs(np.array(f["gains"]) - full).mean()),
            "tau with plain fine-tuning": float(np.mean(f["tau"])),
        }
        for setting, f in found.items()
    ]
    about = {"shots": shots, "repeats": repeats, "targets": list(SITES), "pairs": len(full)}
    out.write_text(json.dumps(about | {"rows": rows}, indent=1))
    for row in rows:
        click.echo(json.dumps(row))


def gains(scores: list, part: slice = slice(None)) -> np.ndarray:
    """Measured gains in percentage points, of some of the repeats."""

    def of(outcome: Outcome) -> float:
        return measured(replace(outcome, difference=outcome.difference[part]))[0]

    return np.array([of(s.outcome) for s in scores])


if __name__ == "__main__":
    main()
