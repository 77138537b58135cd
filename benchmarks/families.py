"""The problems on which rankings are judged: targets with their shelves of sources, in five families.

knobs: half of a table's rows from the other half, 0 to 100 % of the columns shared, 0 to 50 % of the labels noisy.
real: heart sites, credit, breast cancer and character sets for each other; same, renamed and missing columns.
paired: the same rows seen through other columns, by teachers of several accuracies. text: sentiment and topic sets
through one encoder and through another. nulls: strangers, shuffled labels, Gaussian mixtures.
"""

import json
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from transmeter.tables.data import Table, load, read, sample, table

ROWS = 1000  # of a table that are used
FAMILIES = ("knobs", "real", "paired", "text", "nulls")
HEARTS = ("heart_cleveland", "heart_hungarian", "heart_switzerland", "heart_va", "heart_statlog")
SAME = [{"heart_cleveland", "heart_statlog"}, {"credit_australian", "credit_approval_jp"}, {"sst2", "mr"}]
LONG_NAMES = {
    "age": "age_in_years",
    "cp": "chest_pain_type",
    "trestbps": "resting_blood_pressure",
    "chol": "serum_cholesterol",
    "fbs": "fasting_blood_sugar",
    "thalach": "maximum_heart_rate",
    "exang": "exercise_induced_angina",
    "oldpeak": "st_depression",
    "slope": "st_slope",
    "ca": "major_vessels",
}


@dataclass(frozen=True)
class Problem:
    """A target with its sources; shots: labelled rows a class; levels: a knob level of each source, or ''."""

    family: str
    target: Table
    sources: list[Table]
    shots: tuple[int, int]
    levels: list[str]


def problems(datasets: Path, encode: Callable[[list[Table]], list[Table]], quick: bool = False) -> list[Problem]:
    """All problems on the sets below `datasets` (tabular/, text/); encode: texts to features.

    quick: one target a family.
    """
    made = [*_knobs(datasets), *_real(datasets), *_paired(datasets), *_text(datasets, encode), *_nulls(datasets)]
    if not quick:
        return made
    return [next(p for p in made if p.family == family) for family in FAMILIES]


def seed_of(*what: object) -> np.random.Generator:
    """A generator that depends on names only, so that no problem depends on the others."""
    return np.random.default_rng(zlib.crc32(repr(what).encode()))


def read_table(datasets: Path, name: str, rows: int = ROWS) -> Table:
    """A table of the data sets, at most `rows` rows."""
    found = load(str(datasets / "tabular" / f"{name}.csv"))
    return sample(found, rows, 0)


def _halves(whole: Table, *what: object) -> tuple[Table, Table]:
    order = seed_of(whole.name, "halves", *what).permutation(len(whole))
    return whole.take(order[: len(whole) // 2]), whole.take(order[len(whole) // 2 :])


def renamed(source: Table, name: str, names: dict[str, str]) -> Table:
    """The table called `name`, with columns called otherwise."""
    return replace(source, name=name, features=source.features.rename(columns=names))


def noisy(source: Table, name: str, share: float) -> Table:
    """The table called `name`; a share of its labels is drawn anew from all of them."""
    rng = seed_of(source.name, name, "noise")
    labels = np.where(rng.random(len(source)) < share, rng.permutation(source.labels), source.labels)
    return replace(source, name=name, labels=labels)


def mixture(like: Table, name: str, columns: list[str]) -> Table:
    """A Gaussian mixture with the classes of `like`, about a center a class; columns as named."""
    rng = seed_of(like.name, name, "mixture")
    codes = rng.integers(0, len(like.classes), 500)
    centers = rng.normal(size=(len(like.classes), len(columns)))
    x = centers[codes] + rng.normal(size=(500, len(columns)))
    return table(name, pd.DataFrame(x, columns=columns), np.array(like.classes, dtype=object)[codes])


def _knobs(datasets: Path) -> list[Problem]:
    made = []
    for name in ("breast_wdbc", "pendigits", "spambase", "ionosphere", "magic_telescope"):
        mine, theirs = _halves(read_table(datasets, name, 2 * ROWS))
        order = [str(c) for c in seed_of(name, "columns").permutation(mine.columns)]
        half = len(order) // 2
        own, other = order[:half], order[half:]
        sources, levels = [], []
        for share in (0, 25, 50, 75, 100):
            kept = round(half * share / 100)
            strange = {c: f"x{i}" for i, c in enumerate(other[: half - kept])}
            part = replace(theirs, features=theirs.features[own[:kept] + list(strange)])
            for noise in (0, 25, 50):
                label = f"shared {share} noise {noise}"
                sources.append(noisy(renamed(part, label, strange), label, noise / 100))
                levels.append(f"shared {share}")
        target = replace(mine, name=f"{name} (half the columns)", features=mine.features[own])
        made.append(Problem("knobs", target, sources, (5, 20), levels))
    return made


def _real(datasets: Path) -> list[Problem]:
    strangers = ("heart_failure", "pima_diabetes", "breast_wisc_orig", "credit_australian")
    made = []
    for name in ("heart_hungarian", "heart_cleveland", "heart_va", "heart_statlog"):
        others = [n for n in HEARTS if n != name and {n, name} not in SAME]
        sources = [read_table(datasets, n) for n in (*others, *strangers)]
        for n in others[:2]:
            full = read_table(datasets, n)
            sources.append(renamed(full, f"{n} renamed", LONG_NAMES))
            kept = sorted(seed_of(n, "missing").permutation(full.columns)[:6])
            sources.append(replace(full, name=f"{n} six columns", features=full.features[kept]))
        made.append(Problem("real", read_table(datasets, name), sources, (5, 20), [""] * len(sources)))
    groups = {
        "credit_german": ("credit_australian", "credit_approval_jp", "credit_taiwan", "adult_income", "bank_marketing"),
        "breast_wdbc": ("breast_wisc_orig", "breast_ljubljana", "haberman", "heart_cleveland", "pima_diabetes"),
        "optdigits": ("pendigits", "letter", "vowel", "dermatology", "car_evaluation"),
    }
    for name, others in groups.items():
        mine, theirs = _halves(read_table(datasets, name, 2 * ROWS))
        sources = [read_table(datasets, n) for n in others]
        kept = sorted(seed_of(name, "missing").permutation(mine.columns)[: len(mine.columns) // 2])
        changed = {c: f"field {i}" for i, c in enumerate(kept)}
        few = np.arange(len(theirs)) % 5 == 0
        sources += [
            replace(theirs, name="same"),
            renamed(theirs, "opaque", {c: f"field {i}" for i, c in enumerate(theirs.columns)}),
            replace(theirs, name="half the columns", features=theirs.features[kept]),
            renamed(theirs, "half of the names opaque", changed),
            replace(theirs.take(np.flatnonzero(few)), name="a fifth of the rows"),
        ]
        made.append(Problem("real", mine, sources, (5, 20), [""] * len(sources)))
    return made


def _paired(datasets: Path) -> list[Problem]:
    """Target: one view; half of its rows without labels, which the sources have seen in the other view."""
    made = []
    for name in ("optdigits", "spambase", "breast_wdbc"):
        whole = read_table(datasets, name, 2 * ROWS)
        order = [str(c) for c in seed_of(name, "views").permutation(whole.columns)]
        near, far = order[: len(order) // 2], order[len(order) // 2 :]
        ids = np.array([f"row {i}" for i in range(len(whole))], dtype=object)
        hidden = seed_of(name, "hidden").permutation(len(whole)) < len(whole) // 2
        labels = np.where(hidden, None, whole.labels)
        target = Table(f"{name} (one view)", whole.features[near], labels, whole.classes, ids)
        seen = whole.take(np.flatnonzero(hidden))
        sources = []
        for share in (1.0, 0.5, 0.2):
            columns = far[: max(2, round(share * len(far)))]
            names = {c: f"v{i}" for i, c in enumerate(columns)}
            view = replace(seen, features=seen.features[columns].rename(columns=names), keys=ids[hidden])
            for noise in (0, 50, 90):
                label = f"{share:.0%} of the other view, noise {noise}"
                sources.append(noisy(replace(view, name=label), label, noise / 100))
            if share == 1:
                sources.append(replace(view, name="the other view, pairs unknown", keys=None))
        made.append(Problem("paired", target, sources, (5, 20), [""] * len(sources)))
    return made


def _texts(datasets: Path, name: str, rows: int) -> Table:
    frame = read(datasets / "text" / name / "train.csv.gz").sample(n=rows, random_state=0)
    names = json.loads((datasets / "text" / "labels.json").read_text()).get(name)
    return table(name, frame[["text"]], frame["label"].map(lambda v: _label(names, v)))


def _label(names: list | dict | None, value: object) -> str:
    if isinstance(names, list) and re.fullmatch(r"\d+", str(value)):
        return names[int(value)]
    return names.get(str(value), str(value)) if isinstance(names, dict) else str(value)


def _text(datasets: Path, encode: Callable[[list[Table]], list[Table]]) -> list[Problem]:
    targets = ("mr", "tweet_sentiment", "ag_news", "sms_spam")
    others = (
        "tweet_offensive",
        "subj",
        "sst2",
        "sst5",
        "pros_cons",
        "trec6",
        "tweet_hate",
        "hate_davidson",
        "newsgroups20",
        "cola",
    )
    names = (*targets, *others)
    encoded = dict(zip(names, encode([_texts(datasets, n, ROWS) for n in names])))
    made = []
    for name in targets:
        shelf = [encoded[n] for n in names if n != name and {n, name} not in SAME and {n, name} != {"mr", "sst5"}]
        for source in shelf[:2]:  # the same texts through another encoder: no feature in common
            strange = {c: f"other {i}" for i, c in enumerate(source.columns[:64])}
            part = replace(source, features=source.features[list(strange)])
            shelf = [*shelf, renamed(part, f"{source.name}, another encoder", strange)]
        made.append(Problem("text", encoded[name], shelf, (8, 64), [""] * len(shelf)))
    return made


def _nulls(datasets: Path) -> list[Problem]:
    made = []
    for name in ("heart_hungarian", "breast_wdbc", "pendigits", "credit_german"):
        mine, theirs = _halves(read_table(datasets, name, 2 * ROWS), "nulls")
        strangers = ("banknote", "mushroom", "car_evaluation", "ionosphere", "sonar")
        opaque = {c: f"x{i}" for i, c in enumerate(theirs.columns)}
        sources = [read_table(datasets, n) for n in strangers] + [
            noisy(theirs, "shuffled labels", 1.0),
            noisy(renamed(theirs, "", opaque), "shuffled labels, other columns", 1.0),
            mixture(mine, "mixture", [f"m{i}" for i in range(10)]),
            mixture(mine, "wide mixture", [f"m{i}" for i in range(40)]),
            mixture(mine, "mixture under the target's names", [c for c in mine.columns]),
        ]
        made.append(Problem("nulls", replace(mine, name=f"{name} (nulls)"), sources, (5, 20), [""] * len(sources)))
    return made
