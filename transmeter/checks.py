"""What tables are read as, what of them matches what, and what is odd about them: before anything is ranked."""

import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from transmeter.tables.classes import most_common
from transmeter.tables.columns import listed, numeric_columns
from transmeter.tables.data import Table, Unusable
from transmeter.tables.inputs import Given, as_table, as_tables, target_name
from transmeter.tables.matching import Match
from transmeter.tables.prepare import match_lines, prepare
from transmeter.tables.specs import Dialect
from transmeter.tables.text import is_text
from transmeter.util.counts import counted

FEW_ROWS = 5  # of a class with fewer rows nothing is sure
FEW_REPEATS = 3  # fewer tell nothing of how results vary
LARGEST_SHARE = 0.95  # of the labelled rows that one class may hold
MISSING_SHARE = 0.5  # of the cells of a column that may be missing
STAND_INS = (-9999, -999, -99, -9, -1, 99, 999, 9999, 99999)  # numbers that often stand for a missing one
ID_ROWS = 20  # of fewer rows distinct values are chance
PRINTED = 40  # columns; of wider tables those have a line of their own of which something was decided


@dataclass(frozen=True, kw_only=True)
class ColumnCheck:
    """How one column is read.

    Attributes
    ----------
    name
        Of the column.
    kind
        "numbers", "days" (since the first date), "categories", "text" or "left out".
    missing
        Number of its cells that are missing.
    decided
        Whether that is a decision which a user may not expect.
    line
        The same in words, with its range or examples.
    """

    name: str
    kind: str
    missing: int = 0
    decided: bool = False
    line: str


@dataclass(frozen=True, kw_only=True)
class TableCheck:
    """How one table is read, and what of it matches the target.

    Attributes
    ----------
    name
        Of the table.
    rows, labelled
        Numbers of rows.
    columns
        Every column, also one that is left out.
    classes
        Labelled rows of every class; empty of a quantity.
    notes
        What was decided of its rows, labels and classes, a line each.
    matches
        Its columns that stand for columns of the target (fields of `matching.Match`); None of the target itself.
    class_map
        Its classes that stand for classes of the target; None of the target itself.
    match_lines
        The matches in words.
    oddities
        What is missing or odd, a line each.
    error
        Why it cannot be used.
    """

    name: str
    rows: int = 0
    labelled: int = 0
    columns: list[ColumnCheck] = field(default_factory=list)
    classes: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    matches: list[dict[str, object]] | None = None
    class_map: dict[str, str] | None = None
    match_lines: list[str] = field(default_factory=list)
    oddities: list[str] = field(default_factory=list)
    error: str | None = None

    @property
    def lines(self) -> list[str]:
        """All of it, a line each, which begins with the name of the table."""
        if self.error:
            return [f"{self.name}: cannot be used: {self.error}"]
        columns = [column.line for column in self.columns]
        if len(columns) > PRINTED:
            kinds = Counter(column.kind for column in self.columns)
            columns = [column.line for column in self.columns if column.decided][:PRINTED]
            listing = ", ".join(f"{n} {kind}" for kind, n in kinds.items())
            columns.append(f"{counted(kinds.total(), 'column')}: {listing}")
        classes = [f"{c} ({counted(n, 'row')})" for c, n in self.classes.items()]
        label = (f"label: {counted(len(classes), 'class', 'classes')}: {listed(classes)}",) if classes else ()
        odd = [f"odd: {line}" for line in self.oddities]
        rows = f"{counted(self.rows, 'row')}, {self.labelled} of them labelled"
        return [f"{self.name}: {t}" for t in (rows, *columns, *label, *self.notes, *self.match_lines, *odd)]


@dataclass(frozen=True, kw_only=True)
class Check:
    """How a target and its sources are read.

    Attributes
    ----------
    target
        The target.
    sources
        One per source, also those that cannot be used.
    """

    target: TableCheck
    sources: list[TableCheck]

    @property
    def lines(self) -> list[str]:
        """What there is to say of all tables, a line each."""
        return [line for table in (self.target, *self.sources) for line in table.lines]


def check(
    target: Given,
    sources: Mapping[str, Given] | Sequence[Given | Unusable] | Given = (),
    *,
    label: str | int | None = None,
    key: str | int | None = None,
    encoder: str | Path | None = None,
    match: str = "meaning",
    sep: str | None = None,
    decimal: str | None = None,
    encoding: str | None = None,
) -> Check:
    """Read a target and sources as `rank` does, and say what they are read as; nothing is trained.

    Parameters
    ----------
    target : table
        As in `rank`.
    sources : table, sequence or mapping
        As in `rank`; none is needed.
    label : str, int or None
        Label column; None: "label".
    key : str, int or None
        Column that says what a row is about.
    encoder : str, Path or None
        Folder of a transformers model that reads texts and column names.
    match : str
        How columns are matched: by "meaning" or by "name" only.
    sep : str or None
        Separator of .csv files; None: guessed where sure.
    decimal : str or None
        Decimal mark of numbers, "." or ","; None: decided per column.
    encoding : str or None
        Of the characters of text files; None: UTF-8, or what the file's mark says.

    Returns
    -------
    Check
        A source that cannot be used has its reason as `error`.

    Raises
    ------
    ValueError
        For an unusable target, a missing file, and arguments out of range.
    """
    dialect = Dialect(sep, decimal, encoding)
    with warnings.catch_warnings():  # what they say of tables is in the result
        warnings.simplefilter("ignore", UserWarning)
        table = as_table(target, target_name(target), label, key, dialect=dialect, unlabelled=True)
        read = as_tables(sources, label, key, dialect)
        usable = [s for s in read if isinstance(s, Table)]
        known = replace(table, classes=most_common(usable)) if table.unlabelled and usable else table
        prepared, tables, matches = prepare(known, usable, encoder, match)
    compared = {
        s.name: _compared(s, ready, prepared, columns) for s, ready, columns in zip(usable, tables, matches)
    } | {s.name: TableCheck(name=s.name, error=s.reason) for s in read if isinstance(s, Unusable)}
    return Check(target=describe(table), sources=[compared[s.name] for s in read])


def describe(table: Table) -> TableCheck:
    """How a table is read, and what is odd about it alone.

    Parameters
    ----------
    table : Table
        As it was read.

    Returns
    -------
    TableCheck
        Without matches.
    """
    codes = table.codes
    counts = np.bincount(codes[codes >= 0], minlength=len(table.classes))
    said = {reading.line for reading in table.readings.values()}
    left_out = [n for n in table.readings if n not in table.features]
    columns = [_column(table, str(c)) for c in table.columns]
    columns += [ColumnCheck(name=n, kind="left out", decided=True, line=table.readings[n].line) for n in left_out]
    return TableCheck(
        name=table.name,
        rows=len(table),
        labelled=int(counts.sum()),
        columns=columns,
        classes=dict(zip(table.classes, counts.tolist())) if table.quantity is None else {},
        notes=[note for note in table.notes if note not in said],
        oddities=[*class_oddities(table), *_row_oddities(table), *_column_oddities(table)],
    )


def _compared(source: Table, prepared: Table, target: Table, matches: Sequence[Match]) -> TableCheck:
    """A source beside the target; `prepared` has the target's names."""
    found = describe(source)
    said = {*source.notes}
    return replace(
        found,
        notes=[*found.notes, *(note for note in prepared.notes if note not in said)],
        matches=[asdict(m) for m in matches],
        class_map=dict(prepared.class_map),
        match_lines=[*match_lines(prepared, matches), *pair_lines(prepared, target, matches)],
        oddities=[*found.oddities, *pair_oddities(prepared, target, matches)],
    )


def _column(table: Table, name: str) -> ColumnCheck:
    values = table.features[name]
    present = values.dropna()
    missing = len(values) - len(present)
    reading = table.readings.get(name)
    if values.dtype.kind == "f":
        kind, what = "numbers", f"numbers, {present.min():g} to {present.max():g}"
    elif is_text(values):
        kind, what = "text", "text"
    else:
        few = ", ".join(f"'{v}'" for v in present.unique()[:3])
        kind, what = "categories", f"categories, {present.nunique()} different: {few}"
    if reading and reading.line:
        kind = kind if reading.kind == "text" else reading.kind
        return ColumnCheck(name=name, kind=kind, missing=missing, decided=True, line=reading.line)
    gaps = f"; {missing} missing" if missing else ""
    return ColumnCheck(name=name, kind=kind, missing=missing, line=f"column '{name}': {what}{gaps}")


def class_oddities(table: Table) -> list[str]:
    """Very unequal classes, and classes with few rows.

    Parameters
    ----------
    table : Table
        Any.

    Returns
    -------
    list of str
        A line each; none of a quantity, and without labels.
    """
    if table.quantity is not None:
        return []
    counts = np.bincount(table.codes[table.codes >= 0], minlength=len(table.classes))
    if not counts.sum():
        return []
    lines = []
    if counts.max() >= LARGEST_SHARE * counts.sum():
        largest = table.classes[int(counts.argmax())]
        share = f"{counts.max() / counts.sum():.0%}".replace("%", " %")
        lines.append(f"{share} of the labelled rows are of class '{largest}': few rows speak for the others")
    small = [f"'{c}' ({n})" for c, n in zip(table.classes, counts) if n < FEW_ROWS]
    if small:
        lines.append(f"classes with fewer than {FEW_ROWS} rows: {listed(small)}: what is said of them is unsure")
    return lines


def caveats(target: Table, repeats: int | None) -> list[str]:
    """What lowers the trust in a ranking.

    Parameters
    ----------
    target : Table
        That sources are ranked for.
    repeats : int or None
        Maximum number of repeats; None: the scorer has none.

    Returns
    -------
    list of str
        A line each.
    """
    lines = [f"{target.name}: {line}" for line in class_oddities(target)]
    if repeats is not None and repeats < FEW_REPEATS:
        lines.append(f"{repeats} repeats do not tell how gains vary: use 10 or more")
    return lines


def _row_oddities(table: Table) -> list[str]:
    rows = table.features.assign(**{"\0label": table.labels})
    repeated = int(rows.duplicated().sum())
    return [f"{repeated} of {len(table)} rows repeat another row, label and all"] if repeated else []


def _column_oddities(table: Table) -> list[str]:
    constant, empty = [], []
    for name, values in table.features.items():
        if values.nunique(dropna=False) < 2:
            constant.append(str(name))
        elif values.isna().mean() > MISSING_SHARE:
            empty.append(str(name))
    lines = {
        "constant columns, which tell nothing": constant,
        "more than half of the cells are missing in columns": empty,
    }
    return [f"{line}: {listed(names)}" for line, names in lines.items() if names] + misleading(table)


def misleading(table: Table) -> list[str]:
    """Columns that a learner takes for what they are not: ids, and numbers that stand for missing ones.

    Parameters
    ----------
    table : Table
        Any.

    Returns
    -------
    list of str
        A line for the ids, and one a number.
    """
    numbers = numeric_columns(table.features)
    values = table.features[numbers].to_numpy(dtype=np.float64)
    whole = np.isnan(values) | (values == np.round(values))  # of all columns at once: a table may have thousands
    broken = {c for c, every in zip(numbers, whole.all(axis=0)) if not every}
    ids = [c for c in table.columns if c not in broken and _is_id(table, c)]
    line = "columns with another value in every row, perhaps ids, which are better left out"
    suspects = [c for c, held in zip(numbers, np.isin(values, STAND_INS).T) if held.any()]
    return [f"{line}: {listed(ids)}"] * bool(ids) + _stand_ins(table, suspects)


def _stand_ins(table: Table, columns: Sequence[str]) -> list[str]:
    """Numbers such as -999 that repeat far from all others of their column."""
    lines = []
    for name in columns:
        values = table.features[name].dropna().to_numpy()
        for number in np.intersect1d(values, STAND_INS):
            rest = values[values != number]
            far = len(rest) > 1 and np.abs(rest - number).min() > np.ptp(rest)
            if far and len(values) - len(rest) > 1:
                held = f"column '{name}' holds {number:g} in {len(values) - len(rest)} rows, far from its other values"
                lines.append(f"{held}: leave these cells empty if they are missing")
    return lines


def _is_id(table: Table, name: str) -> bool:
    """Whether a column, of whole numbers if of numbers, numbers or names its rows."""
    values = table.features[name].dropna()
    if len(values) < ID_ROWS or values.nunique() < len(values):
        return False
    if values.dtype.kind != "f":
        return not is_text(values)
    if name in table.readings and table.readings[name].kind == "days":
        return False
    return values.is_monotonic_increasing or "id" in re.split(r"[\W_]+", name.casefold())


def pair_lines(source: Table, target: Table, matches: Sequence[Match]) -> list[str]:
    """What a source and a target have in common, beside matched columns.

    Parameters
    ----------
    source, target : Table
        As `prepare` returns them.
    matches : sequence of Match
        The columns of both.

    Returns
    -------
    list of str
        Columns without a match, classes, and rows paired by key, a line each.
    """
    lines = []
    there = {m.target for m in matches}
    rest = [c for c in target.columns if c not in there]
    if rest and matches:
        lines.append(f"columns of {target.name} without a match: {listed(rest)}")
    if source.class_map:
        lines.append(f"classes: {listed([f'{theirs} = {ours}' for theirs, ours in source.class_map.items()])}")
    if source.keys is not None and target.keys is not None:
        paired = int(np.isin(target.keys, source.keys).sum())
        lines.append(f"{paired} of {len(target)} rows of {target.name} are paired by key")
    return lines


def pair_oddities(source: Table, target: Table, matches: Sequence[Match]) -> list[str]:
    """What is odd about a source beside a target.

    Parameters
    ----------
    source, target : Table
        As `prepare` returns them.
    matches : sequence of Match
        The columns of both.

    Returns
    -------
    list of str
        A line each.
    """
    lines = unusable_lines(source, target, matches)
    labelled = target.quantity is None and not target.unlabelled
    if labelled and not source.class_map and len(source.classes) >= len(target.classes):
        lines.append(f"no class is called as one of {target.name}: classes are assigned by their means, or not at all")
    if copied := copied_rows(source, target):
        lines.append(f"{copied} of {len(target)} rows of {target.name} stand in it too: its gain will be overstated")
    return lines


def unusable_lines(source: Table, target: Table, matches: Sequence[Match]) -> list[str]:
    """Why a source tells nothing of a target: nothing of the columns or of the classes in common.

    Parameters
    ----------
    source, target : Table
        As `prepare` gives them.
    matches : sequence of Match
        The columns of both.

    Returns
    -------
    list of str
        A line each.
    """
    lines = []
    if not matches and (source.keys is None or target.keys is None):
        remedy = "give its columns the same names and units, or pair rows by a key"
        lines.append(f"no column matches one of {target.name}: {remedy}")
    if target.unlabelled:
        return lines
    common = sorted(set(source.classes) & set(target.classes))
    reason = None
    if target.quantity is None and len(common) == 1:
        reason = f"of its classes only '{common[0]}' is one of {target.name}"
    elif target.quantity is None and not common and len(source.classes) < len(target.classes):
        reason = f"no class is called as one of {target.name}, which has more"
    if reason:
        lines.append(f"{reason}: the combination of learners cannot use it; say which stands for which by classes")
    return lines


def copied_rows(source: Table, target: Table) -> int:
    """How many rows of a target stand in a source as well.

    Parameters
    ----------
    source, target : Table
        With the same names of columns.

    Returns
    -------
    int
        0 for so few that it may be chance, and where few columns are shared.
    """
    there = set(source.columns)
    columns = [c for c in target.columns if c in there]
    if len(columns) < max(3, len(target.columns) / 2):  # few columns repeat by chance
        return 0
    hashes = [pd.util.hash_pandas_object(t.features[columns].astype(str), index=False) for t in (target, source)]
    copied = int(hashes[0].isin(hashes[1]).sum())
    return copied if copied > max(2, 0.02 * len(target)) else 0


def leakage(target: Table, sources: Sequence[Table]) -> list[str]:
    """Lines on rows of a target that stand in a source.

    Parameters
    ----------
    target, sources : Table, sequence of Table
        As `prepare` gives them.

    Returns
    -------
    list of str
        One per source with copies (`copied_rows`).
    """
    copies = [(s.name, copied_rows(s, target)) for s in sources]
    size = len(target)
    return [
        f"{n} of {size} rows of {target.name} stand in {name} too: its gain is overstated" for name, n in copies if n
    ]


def counted_twice(sources: Sequence[Table]) -> list[str]:
    """Lines on rows that stand in two sources.

    Parameters
    ----------
    sources : sequence of Table
        That are used at once, as `prepare` gives them.

    Returns
    -------
    list of str
        One per pair with copies (`copied_rows`).
    """
    copies = [(a, b, copied_rows(a, b)) for i, a in enumerate(sources) for b in sources[i + 1 :]]
    return [f"{n} of {len(b)} rows of {b.name} stand in {a.name} too: they count twice" for a, b, n in copies if n]
