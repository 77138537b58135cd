"""Measure pairs that say what to expect of a source: true gains beside everything that few labels tell of them.

    python benchmarks/prior_pairs.py DATASETS --encoder FOLDER --work FOLDER        (40 minutes on 2 cores)

Targets: the tables of tables.csv and their parts, one of each kind and group, and the families of rank_quality.py but
knobs and nulls, which are made in the same way as the views here. The truth is the gain of the combination of learners
in closed form (without forests, which take ten times as long), in 16 paired repeats on splits that no ranking sees. Few
labels: k rows per class carry a label, the others are unlabelled; what a ranking of these measures in 3 repeats of 5
folds is kept, and the features of every pair. Every cell is written when it is done, and a second run goes on where the
first stopped. All of them make results/prior_pairs.csv.gz, to which fit_prior.py fits the prior.
"""

import json
import os
import re
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

import click
import families
import numpy as np
import pandas as pd
import tables
import torch
from families import Problem
from rank_quality import hidden
from rank_report import data_of

from transmeter.gain import ground_truth
from transmeter.gain.estimate import measure_gain
from transmeter.gain.score import Score
from transmeter.learners import combination
from transmeter.network.source import Source
from transmeter.scorers.transmeter import score
from transmeter.tables.prepare import prepare
from transmeter.tables.text import featurise
from transmeter.util import writing

RESULTS = Path(__file__).resolve().parent / "results"
REAL = ("real", "paired", "text")
REPEATS, TRUE_REPEATS = 3, 16
CLASSES = 5  # of a target at most


@click.command()
@click.argument("datasets", type=click.Path(path_type=Path, exists=True))
@click.option("--encoder", type=click.Path(path_type=Path), help="Of the texts. Default: TF-IDF.")
@click.option("--work", default="/tmp/transmeter-prior", type=click.Path(path_type=Path), help="For cells.")
@click.option("--workers", default=2)
def main(datasets: Path, encoder: Path | None, work: Path, workers: int) -> None:
    """Measure what is not done yet."""
    begin = time.perf_counter()
    (work / "cells").mkdir(parents=True, exist_ok=True)
    found = {(p.family, p.group): p for p in tables.problems(datasets, work / "packages")}  # one of each
    made = [(p, group) for (_, group), p in found.items() if len(p.target.classes) <= CLASSES]
    real = families.problems(datasets, lambda given: featurise(given, encoder, work / "texts"))
    made += [(p, group_of(p.target.name)) for p in real if p.family in REAL and len(p.target.classes) <= CLASSES]
    jobs = [(p, group, shots, work / "cells" / _file_name(p, shots)) for p, group in made for shots in p.shots]
    jobs = [job for job in jobs if not job[3].exists()]
    jobs.sort(key=lambda job: (job[0].family not in REAL, hash_of(job[3].name)))  # a part of them is a fair sample
    with ProcessPoolExecutor(workers, initializer=in_closed_form) as pool:
        running = [pool.submit(cell, *job, work / "sources") for job in jobs]
        for i, done in enumerate(as_completed(running), start=1):
            click.echo(f"{i} of {len(running)}: {done.result()} ({time.perf_counter() - begin:.0f} s)", err=True)
    pairs = pairs_of(work / "cells")
    pairs.round(4).to_csv(RESULTS / "prior_pairs.csv.gz", index=False, compression={"method": "gzip", "mtime": 1})
    click.echo(f"{len(pairs)} pairs of {pairs['target'].nunique()} targets in {pairs['group'].nunique()} groups")


def in_closed_form() -> None:
    """Leave the forests out of the combination, in this process."""
    torch.set_num_threads(1)
    found = combination.learners
    combination.learners = lambda *folder: {n: m for n, m in found(*folder).items() if not n.endswith("forest")}


def group_of(target: str) -> str:
    """What is left out together: the data set, all heart sites as one, and all texts of a kind."""
    return "heart" if target.startswith("heart_") else data_of(target)


def hash_of(name: str) -> int:
    """A number that depends on the name alone."""
    return int(families.seed_of(name).integers(1 << 32))


def _file_name(problem: Problem, shots: int) -> str:
    return re.sub(r"\W+", "_", f"{problem.family} {problem.target.name} {shots}") + ".json"


def cell(problem: Problem, group: str, shots: int, path: Path, cache: Path) -> str:
    """Truth and features of one target at one number of shots, written to `path`."""
    warnings.simplefilter("ignore")
    target, made, _ = prepare(problem.target, problem.sources)
    sources = [Source(t, cache) for t in made]
    true = ground_truth.measure(
        sources, target, shots=shots, repeats=TRUE_REPEATS, seed=99, controls=False, network=False
    )
    scored = score(sources, hidden(target, shots, 0), repeats=REPEATS, independent=True)
    rows = [
        {"source": arm.name, "true": arm.by_repeat, "pooled": pooled.gain_pp, **_measured(found)}
        for arm, pooled, found in zip(true.sources, true.others["pooled"], scored)
    ]
    about = {"family": problem.family, "group": group, "target": problem.target.name, "shots": shots}
    about |= {"classes": len(problem.target.classes), "levels": problem.levels, "together": true.together.gain_pp}
    writing.write_json(path, about | {"rows": rows})
    return f"{problem.family}, {problem.target.name}, {shots} shots"


def _measured(found: Score) -> dict[str, object]:
    """What the ranking measured, and the features of the pair."""
    outcome = found.outcome
    mean, error, freedom = measure_gain(outcome)
    measured = {"measured": mean, "error": error, "freedom": freedom}
    return measured | asdict(outcome.transfer) | asdict(outcome.features)


def pairs_of(cells: Path) -> pd.DataFrame:
    """One row per pair: true gain by repeat, in the mean and its error, what was measured, and the features."""
    rows = []
    for path in sorted(cells.glob("*.json")):
        cell = json.loads(path.read_text())
        about = {k: cell[k] for k in ("family", "group", "target", "shots", "classes", "together")}
        for level, row in zip(cell["levels"], cell["rows"]):
            true = np.array(row.pop("true"))
            gains = {"gain": true.mean(), "gain_error": true.std(ddof=1) / len(true) ** 0.5}
            rows.append(about | {"level": level} | gains | row | {f"repeat_{i}": v for i, v in enumerate(true)})
    return pd.DataFrame(rows).fillna({"level": ""})


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
