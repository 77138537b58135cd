"""Measure pairs that say what a source's model is worth on a target without labels: balanced accuracy beside features.

    python benchmarks/no_label_pairs.py DATASETS --encoder FOLDER --work FOLDER        (22 minutes beside other work)

Targets: of tables.py two of each kind and group, and the real and text families of families.py. Their labels are
hidden, so that classes match by name alone; the ground truth is the balanced accuracy of the source's model
(`transmeter.zero_shot.model`) on them, over guessing the source's classes evenly, on rows of classes that it knows.
Makes results/no_label_pairs.csv.gz, to which fit_no_label_prior.py fits the prior.
"""

import os
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import click
import families
import numpy as np
import pandas as pd
import tables
import torch
from families import Problem

from transmeter.network.source import Encoded, Source
from transmeter.tables.data import Table
from transmeter.tables.prepare import prepare
from transmeter.tables.text import featurise
from transmeter.zero_shot.features import agreement_of, skill_of, zero_shot_features
from transmeter.zero_shot.model import SourceModel, fit_source_model
from transmeter.zero_shot.score import in_classes

PAIRS = Path(__file__).resolve().parent / "results" / "no_label_pairs.csv.gz"
REAL = ("real", "text")
CLASSES = 5  # of a target at most
MOST = 2  # problems of a family and a group


@click.command()
@click.argument("datasets", type=click.Path(path_type=Path, exists=True))
@click.option("--encoder", type=click.Path(path_type=Path), help="Of the texts. Default: TF-IDF.")
@click.option("--work", default="/tmp/transmeter-prior", type=click.Path(path_type=Path), help="For packages, texts.")
def main(datasets: Path, encoder: Path | None, work: Path) -> None:
    """Measure all pairs."""
    begin, found = time.perf_counter(), []
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    made = chosen(datasets, encoder, work)
    for number, (problem, group) in enumerate(made, start=1):
        found += [{"problem": number, "group": group, **row} for row in rows_of(problem)]
        if number == len(made) or number % 25 == 0:  # the order is chance, so that a part of them is a fair sample
            pairs = pd.DataFrame(found).round(4)
            pairs.to_csv(PAIRS, index=False, compression={"method": "gzip", "mtime": 1})
            click.echo(f"{number} of {len(made)} problems ({time.perf_counter() - begin:.0f} s)", err=True)
    click.echo(f"{len(pairs)} pairs of {pairs['problem'].nunique()} targets in {pairs['group'].nunique()} groups")


def chosen(datasets: Path, encoder: Path | None, work: Path) -> list[tuple[Problem, str]]:
    """The problems with their groups: real ones first, then the others in an order of chance."""
    real = families.problems(datasets, lambda given: featurise(given, encoder, work / "texts"))
    made = [(p, group_of(p.target.name)) for p in real if p.family in REAL]
    others = [(p, p.group) for p in tables.problems(datasets, work / "packages")]
    counts: Counter[tuple[str, str]] = Counter()
    for i in np.random.default_rng(0).permutation(len(others)):
        problem, group = others[i]
        counts[problem.family, group] += 1
        if counts[problem.family, group] <= MOST:
            made.append((problem, group))
    return [(p, group) for p, group in made if len(p.target.classes) <= CLASSES]


def group_of(target: str) -> str:
    """What is left out together: the data set, and all heart sites as one."""
    return "heart" if target.startswith("heart_") else target.partition(" (")[0]


def rows_of(problem: Problem) -> Iterator[dict[str, object]]:
    """What is known of every source of a problem that has two classes and a column of its target, and what is true."""
    hidden = replace(problem.target, labels=np.full(len(problem.target), None, dtype=object), quantity=None)
    target, made, _ = prepare(hidden, problem.sources)
    encoded = Encoded(target)
    models = [fit_source_model(source, encoded) for source in map(Source, made)]
    usable = [
        (source, level, model)
        for source, level, model in zip(made, problem.levels, models)
        if model is not None and len(set(source.classes) & set(target.classes)) > 1
    ]
    agreement = agreement_of([in_classes(s, m, target.classes) for s, _, m in usable]) if usable else []
    for (source, level, model), agreed in zip(usable, agreement):
        about = {"family": problem.family, "target": target.name, "source": source.name, "level": level}
        others = {f"agreement_{i}": value for i, value in enumerate(agreed)}
        features = asdict(zero_shot_features(Source(source), encoded, model))
        yield about | true_skills(source, problem.target, model) | features | others


def true_skills(source: Table, target: Table, model: SourceModel) -> dict[str, float]:
    """Balanced accuracy over chance of a source's model, on the target's rows of classes that it knows, and on halves
    of them, which says how far these rows tell it."""
    places = {name: place for place, name in enumerate(source.classes)}
    codes = np.array([places.get(label, -1) for label in target.labels])
    guess, half = model.probabilities.argmax(1), np.random.default_rng(0).permutation(len(codes)) % 2
    parts = {"skill_there": codes >= 0, "half_0": (codes >= 0) & (half == 0), "half_1": (codes >= 0) & (half == 1)}
    return {name: skill_of(guess[part], codes[part], len(source.classes)) for name, part in parts.items()}


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
