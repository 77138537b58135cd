"""What are the terms of the network's loss worth inside the combination of learners?

    OMP_NUM_THREADS=1 python benchmarks/network_terms.py DATASETS        (about 25 minutes on one core)

The regime that the terms are made for: 5 and 20 labelled rows per class, and all rows of the target without labels. The
combination with one source is compared with the same and a network as one more member, in paired splits. The network's
weight is that of every member: the likelihood of the labelled rows, each predicted by a network that has not seen its
fold. Variants: plain (cross-entropies of target and source), without the source's cross-entropy, with reconstruction,
mean distance, discriminators, and all three.

Settings (weights of the terms, schedule, whether unlabelled rows take part, prior weight of the member) are chosen for
every variant on views of four tables, by the mean change of the combination. Reported are others: heart sites and
credit tables for each other, and views of six further tables. A view has half of the columns; its sources are other
rows of the table: the same columns in other units and about another center, the columns that the target lacks, and half
of the target's columns beside those. Every cell is written when it is done, and a second run goes on where the first
stopped.
"""

import hashlib
import json
import re
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import click
import numpy as np
import torch
from families import read_table, renamed, seed_of
from network_terms_report import report

from transmeter.gain.metrics import accuracies
from transmeter.learners.combination import TARGET_PRIOR, Part, average, learn, log_weights
from transmeter.learners.estimator import FOLDS, folds
from transmeter.learners.member import evidence
from transmeter.learners.task import Task, rows_of, task_of
from transmeter.network.source import Encoded, Source
from transmeter.network.training import Schedule, Terms
from transmeter.network.transfer import train
from transmeter.tables.data import Table, sample
from transmeter.tables.prepare import prepare
from transmeter.tables.splits import Split, make_splits
from transmeter.util import writing
from transmeter.util.code_version import code_version

CHOOSING = ("pima_diabetes", "sonar", "bank_marketing", "vowel")
REPORTED = ("breast_wdbc", "spambase", "ionosphere", "magic_telescope", "pendigits", "letter")
HEARTS = ("heart_cleveland", "heart_hungarian", "heart_va", "heart_switzerland")  # the last is a source alone
CREDIT = ("credit_german", "credit_australian", "credit_taiwan")
SHOTS = (5, 20)
REPEATS = {"choosing": 4, "reported": 5}
ROWS, CLASSES = 1000, 5  # of a table at most
STEPS = (80, 240)
PRIORS = (1.0, 4.0)  # weights of the network without evidence, beside 1 of every other member with a source
TERMS = {
    "plain": [Terms()],
    "no source loss": [Terms(source_loss=0)],
    "reconstruction": [Terms(reconstruction=0.1), Terms(reconstruction=1)],
    "mean distance": [Terms(mean_distance=0.01), Terms(mean_distance=0.1)],
    "discriminators": [Terms(discriminator=0.1), Terms(discriminator=1)],
    "all": [
        Terms(reconstruction=0.1, mean_distance=0.01, discriminator=0.1),
        Terms(reconstruction=1, mean_distance=0.1, discriminator=1),
    ],
}


@dataclass(frozen=True)
class Setting:
    """How a network is trained; unlabelled: whether the target's rows without labels take part."""

    variant: str
    terms: Terms
    steps: int
    unlabelled: bool

    @property
    def name(self) -> str:
        """As figures are kept."""
        weights = [f"{k} {v:g}" for k, v in vars(self.terms).items() if v != getattr(Terms(), k)]
        rows = "" if self.unlabelled else ", labelled rows alone"
        return f"{self.variant}: {', '.join(weights) or 'cross-entropies'}, {self.steps} steps{rows}"


def settings() -> list[Setting]:
    """What is chosen from: the weaker weights and the short schedule are tried without unlabelled rows too."""
    made = [Setting(v, t, steps, True) for v, terms in TERMS.items() for t in terms for steps in STEPS]
    looked = [v for v in TERMS if len(TERMS[v]) > 1]  # the others look at labelled rows alone as it is
    return made + [Setting(v, TERMS[v][0], STEPS[0], False) for v in looked]


@dataclass(frozen=True)
class Problem:
    """A target with its sources, each by the kind of its difference."""

    target: Table
    sources: dict[str, Table]


@click.command()
@click.argument("datasets", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--work", default="/tmp/transmeter-network-terms", type=click.Path(path_type=Path), help="For cells.")
@click.option("--out", default=Path(__file__).parent / "results", type=click.Path(path_type=Path))
def main(datasets: Path, work: Path, out: Path) -> None:
    """Measure what is not done yet, choose settings, and report."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    begin = time.perf_counter()
    cells = work / _version()
    cells.mkdir(parents=True, exist_ok=True)
    chosen_on = _measured([view(_few_classes(datasets, n)) for n in CHOOSING], settings(), cells / "choosing")
    chosen = choose(chosen_on)
    for setting, prior in chosen:
        click.echo(f"chosen: {setting.name}, prior weight {prior:g}", err=True)
    problems = [*real(datasets), *(view(_few_classes(datasets, n)) for n in REPORTED)]
    reported = _measured(problems, [s for s, _ in chosen], cells / "reported")
    report(chosen_on, reported, [(s.variant, s.name, prior) for s, prior in chosen], out, time.perf_counter() - begin)


def _version() -> str:
    """Of the code that makes cells: cells of other code do not count as done."""
    code = code_version("learners", "network", "tables", "gain/metrics.py") + Path(__file__).read_text()
    return hashlib.sha256(code.encode()).hexdigest()[:8]


def _few_classes(datasets: Path, name: str) -> Table:
    """A table of at most CLASSES classes, the most frequent, and ROWS rows."""
    whole = read_table(datasets, name, 10 * ROWS)
    names, counts = np.unique(whole.labels.astype(str), return_counts=True)
    most = names[np.argsort(-counts, kind="stable")][:CLASSES]
    kept = whole.take(np.flatnonzero(np.isin(whole.labels.astype(str), most)))
    return sample(replace(kept, classes=tuple(c for c in kept.classes if c in most)), ROWS, 0)


def view(whole: Table) -> Problem:
    """A target of half of the rows and columns, with sources of the other rows."""
    rng = seed_of(whole.name, "terms")
    order = rng.permutation(len(whole))
    mine, theirs = whole.take(order[: len(order) // 2]), whole.take(order[len(order) // 2 :])
    columns = [str(c) for c in rng.permutation(whole.columns)]
    own, other = columns[: (len(columns) + 1) // 2], columns[(len(columns) + 1) // 2 :]
    strange = {c: f"x{i}" for i, c in enumerate(other)}

    def source(kind: str, kept: Sequence[str]) -> Table:
        return renamed(replace(theirs, features=theirs.features[list(kept)]), kind, strange)

    sources = {
        "shifted features": _shifted(source("shifted features", own), rng),
        "disjoint columns": source("disjoint columns", other),
        "partly shared columns": source("partly shared columns", [*own[: len(own) // 2], *other]),
    }
    return Problem(replace(mine, name=f"{whole.name} (view)", features=mine.features[own]), sources)


def _shifted(rows: Table, rng: np.random.Generator) -> Table:
    """Every number in other units, about another center."""
    features = rows.features.copy()
    for column in features.select_dtypes("number"):
        features[column] = features[column] * rng.uniform(0.5, 2) + rng.normal() * features[column].std()
    return replace(rows, features=features)


def real(datasets: Path) -> Iterator[Problem]:
    """Heart sites for each other, and credit tables for each other."""
    for kind, group in (("other site", HEARTS), ("other credit table", CREDIT)):
        tables = {n: read_table(datasets, n, ROWS) for n in group}
        for name in group:
            if name != "heart_switzerland":  # eight rows of a class are too few for a target
                others = {f"{kind}: {n}": replace(t, name=n) for n, t in tables.items() if n != name}
                yield Problem(tables[name], others)


def _measured(problems: Sequence[Problem], tried: Sequence[Setting], folder: Path) -> list[dict]:
    """The cells of all problems and shots; those that are not there are measured."""
    folder.mkdir(exist_ok=True)
    found = []
    for problem in problems:
        for shots in SHOTS:
            path = folder / (re.sub(r"\W+", "_", f"{problem.target.name} {shots}") + ".json")
            if not path.exists():
                begin = time.process_time()
                writing.write_json(path, cell(problem, shots, tried, REPEATS[folder.name]))
                click.echo(f"{path.stem}: {time.process_time() - begin:.0f} s of CPU", err=True)
            found.append(json.loads(path.read_text()))
    return found


def cell(problem: Problem, shots: int, tried: Sequence[Setting], repeats: int) -> dict:
    """What every source and setting gives on one target."""
    splits = make_splits(problem.target, shots, repeats, 0)
    rows, training = np.arange(len(problem.target)), [s.train for s in splits]
    # columns and classes are matched by what a user knows: k labels per class
    known = replace(problem.target, labels=np.where(np.isin(rows, training[0]), problem.target.labels, None))
    _, tables, matches = prepare(known, list(problem.sources.values()))
    sources = [Source(t) for t in tables]
    labelled, few = Encoded(problem.target), Encoded(with_unlabelled(problem.target))
    task = task_of(few, training, 0)
    mine, given = learn(few, sources, training, rows, 0)
    alone, theirs = list(mine.values()), [list(parts.values()) for parts in given]
    codes = problem.target.codes

    def accuracy(part: Part) -> np.ndarray:
        """(splits,) balanced accuracy in percent."""
        return accuracies(torch.from_numpy(part.probabilities)[None], codes, splits, "balanced_accuracy")[0]

    with_source = [accuracy(average([*alone, *parts])) for parts in theirs]
    about = {"target": problem.target.name, "shots": shots, "alone": accuracy(average(alone)).tolist()}
    arms = [
        {"kind": kind, "columns": len(match), "with_source": reached.tolist(), "networks": {}}
        for kind, match, reached in zip(problem.sources, matches, with_source)
    ]
    for setting in tried:
        parts = networks(sources, few if setting.unlabelled else labelled, task, splits, rows, setting)
        for arm, others, part, before in zip(arms, theirs, parts, with_source):
            arm["networks"][setting.name] = _joined([*alone, *others], part, parts[-1], before, accuracy)
    return about | {"sources": arms}


def _joined(others: list[Part], part: Part, scratch: Part, before: np.ndarray, accuracy) -> dict:
    """Changes of the combination in percentage points, by repeat, as the network with or without the source joins."""
    changes = {}
    for prior in PRIORS:
        joining = Part(part.log_weight + np.log(prior), part.probabilities)
        changes[f"{prior:g}"] = (accuracy(average([*others, joining])) - before).tolist()
    total = average(others).log_weight
    own = Part(scratch.log_weight + np.log(TARGET_PRIOR), scratch.probabilities)
    return {
        "change": changes,
        "change_without_source": (accuracy(average([*others, own])) - before).tolist(),
        "share": (1 / (1 + np.exp(total - part.log_weight))).tolist(),  # of the weight of all members
        "network": accuracy(part).tolist(),
    }


def with_unlabelled(target: Table) -> Table:
    """The target, and all of its rows once more without labels."""
    twice = target.take(np.tile(np.arange(len(target)), 2))
    return replace(twice, labels=np.where(np.arange(len(twice)) < len(target), twice.labels, None))


def networks(
    sources: Sequence[Source], target: Encoded, task: Task, splits: Sequence[Split], rows: np.ndarray, setting: Setting
) -> list[Part]:
    """A member of one network per source, and one without a source: its weight and what it predicts of rows."""
    schedule = Schedule(steps=setting.steps)
    inside = [fold for split in splits for fold in _folds(split, target.table.codes)]
    whole = train(sources, target, splits, setting.terms, schedule, 0).probabilities(target.x[rows]).numpy()
    seen = rows_of([s.train for s in splits])[0]
    left_out = train(sources, target, inside, setting.terms, schedule, 0).probabilities(target.x[seen]).numpy()
    left_out = left_out.reshape(len(whole), len(splits), FOLDS, *left_out.shape[2:])
    # (splits, m) in which fold a row of task.rows is, which are in order
    fold_of = np.stack([folds(target.table.codes[s.train])[np.argsort(s.train)] for s in splits])
    places = np.arange(len(splits))[:, None], fold_of, task.rows
    return [Part(_weight(task, mine[places]), predicted) for mine, predicted in zip(left_out, whole)]


def _weight(task: Task, probabilities: np.ndarray) -> np.ndarray:
    """(splits,) logarithm of the weight of a member by what it gives the labelled rows, (splits, m, classes)."""
    return log_weights([SimpleNamespace(evidence=evidence(task, probabilities))], 1.0, task)[0]


def _folds(split: Split, codes: np.ndarray) -> list[Split]:
    """The training rows of a split without each of their folds."""
    inside = folds(codes[split.train])
    return [Split(split.train[inside != k], split.train[inside == k], split.repeat) for k in range(FOLDS)]


def choose(cells: Sequence[dict]) -> list[tuple[Setting, float]]:
    """Of every variant the setting and prior weight with the largest mean change over the targets."""

    def change(setting: Setting, prior: float) -> float:
        found = [arm["networks"][setting.name]["change"][f"{prior:g}"] for c in cells for arm in c["sources"]]
        return float(np.mean(found))

    best = []
    for variant in TERMS:
        pairs = [(s, prior) for s in settings() if s.variant == variant for prior in PRIORS]
        best.append(max(pairs, key=lambda pair: change(*pair)))
    return best


if __name__ == "__main__":
    main()
