"""Delimited text (csv, tsv) as data frames: the separator, the encoding, and codes that keep their zeros."""

import csv
import gzip
import io
import re
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from transmeter.tables.specs import USUAL, Dialect

HEAD = 1_000_000  # bytes that are looked at for codes such as 01234 before the cells are read
PART = 1 << 17  # bytes that are looked at at once, few enough for a processor's cache
DIGITS = 40  # of a code
EXACT = 2.0**53  # larger numbers are not told apart
LINES = 20  # that are looked at for the separator
SEPARATORS = ",;\t|"
RARE = 0.05  # of the cells of a column hold line breaks, where those are an accident
_SEP_LINE = re.compile(r'"?sep=([^\w\s"]|\t)"?,*\r?\n', re.IGNORECASE)  # what Excel writes and heeds
_PACKED = {
    b"\x1f\x8b": "is compressed by gzip: name it .csv.gz",
    b"PK\3\4": "is a zip archive: unpack it, or save as csv",
}
NOTES = "notes of reading"  # the key in a frame's `attrs` of what was decided, a line each


@dataclass(frozen=True)
class Scan:
    """What the bytes of a file hold.

    Attributes
    ----------
    codes
        Numbers that are written with leading zeros, sorted.
    quotes
        Whether there is a quote.
    """

    codes: list[float]
    quotes: bool


@dataclass(frozen=True)
class Layout:
    """How a file is written.

    Attributes
    ----------
    sep
        Separator of columns.
    names, width
        Cells of the header, and of a row where the first ones name it.
    options
        Of `pandas.read_csv`.
    notes
        What was decided, a line each.
    """

    sep: str
    names: int
    width: int
    options: dict
    notes: list[str]


def read_delimited(path: Path, dialect: Dialect = USUAL, as_texts: bool = False) -> pd.DataFrame:
    """A file with a header, the cells as pandas reads them but for codes such as 01234, which stay text.

    Parameters
    ----------
    path
        csv or tsv, gzip-compressed or not.
    dialect
        How it is written.
    as_texts
        Whether cells stay the texts that they are, none of them a number or missing.

    Returns
    -------
    pandas.DataFrame
        `attrs[NOTES]` tells a separator that was guessed, names of rows that are left out, rows with too few cells,
        and a quote that may be left open.

    Raises
    ------
    ValueError
        For NUL bytes, a quote that is not closed, two columns of one name, rows with more cells than the header has
        names, and a file without rows.
    """
    with _open(path) as file:
        head = file.read(HEAD)
    layout = _layout(path, head, dialect, as_texts)
    with ThreadPoolExecutor(1) as pool:
        scanning = pool.submit(_scan, path, layout.sep)
        frame = _read_cells(path, str if as_texts else _codes(path, head, layout.options), layout.options)
    scan, notes = scanning.result(), layout.notes
    if not as_texts:
        frame = _with_codes(path, frame, scan.codes, layout.options)
    notes += _row_names(path, frame, layout.names, as_texts) if layout.width > layout.names else []
    notes += _merged_rows(frame, layout.sep) if scan.quotes else []
    notes += _short_rows(path, frame, layout)
    repeated = _headers(frame)
    if repeated.any():
        frame = frame[~repeated]
        notes.append(f"left out are rows that repeat the names of columns: {repeated.sum()}")
    frame = frame.reset_index(drop=True)
    if notes:  # pandas copies them with every frame and column that it makes
        frame.attrs[NOTES] = notes
    return frame


def _layout(path: Path, head: bytes, dialect: Dialect, as_texts: bool) -> Layout:
    """How a file is written, by its first bytes and lines. Raises ValueError as `read_delimited`."""
    if reason := next((reason for mark, reason in _PACKED.items() if head.startswith(mark)), None):
        raise ValueError(f"{path} {reason}")
    encoding = dialect.encoding or ("utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    with io.TextIOWrapper(_open(path), encoding=encoding, newline="") as text:
        lines = list(islice(_bounded(path, text), LINES + 1))
    said = _SEP_LINE.match(lines[0]) if lines else None
    lines = lines[1:] if said else lines
    sep, notes = _chosen(path, lines, dialect.sep, said[1] if said else None)
    csv.field_size_limit(2**31 - 1)  # texts are longer than its default
    names, *rows = [row for row in csv.reader(lines, delimiter=sep) if row] or [[]]
    check_names(path, pd.Index([name.strip() for name in names if name.strip()]))
    if not names or not rows:
        raise ValueError(f"{path} has no rows: give a table with rows below the names of its columns")
    options = {"sep": sep, "encoding": encoding, "keep_default_na": False, "na_values": None if as_texts else [""]}
    options["skiprows"] = 1 if said else 0
    if dialect.decimal == ",":  # so that 1.234 stays a text, for pandas would read it as 1.234
        options["decimal"] = ","
    width = len(names)
    if any(any(row[width:]) for row in rows):
        width = max(width, len(rows[0]))
    elif len(rows[0]) > width:
        options["index_col"] = False  # every row ends with a separator
    return Layout(sep, len(names), width, options, notes)


def _chosen(path: Path, lines: list[str], given: str | None, said: str | None) -> tuple[str, list[str]]:
    """The separator that is given, that the first line says, or that splits the lines; and what is said of it."""
    usual = "\t" if ".tsv" in path.name.lower() else ","
    sep = given or said or _separator(lines, usual)
    if given or sep == usual:
        return sep, []
    return sep, [f"columns are separated by {sep!r}" + (", as its first line says" if said else "")]


def _headers(frame: pd.DataFrame) -> np.ndarray:
    """(n,) whether a row is the header once more, as in files that were put together."""
    same = np.full(len(frame), frame.shape[1] > 1)  # among texts alone a word is no header
    for name, cells in frame.items():
        if pd.api.types.is_numeric_dtype(cells) or not same.any():
            return np.zeros(len(frame), dtype=bool)
        same &= (cells == name).to_numpy(dtype=bool, na_value=False)
    return same


def _row_names(path: Path, frame: pd.DataFrame, columns: int, as_texts: bool) -> list[str]:
    """What is said of rows with one cell more than the header, as R writes them: pandas makes the first an index.

    Raises ValueError where the first cells do not name rows: texts, all different, or numbers that count.
    """
    index = frame.index
    texts = index.nlevels == 1 and index.inferred_type == "string" and not index.has_duplicates
    if not texts and list(index) not in ([*range(len(index))], [*range(1, len(index) + 1)]):
        cells = f"{columns} cells in its first line and {columns + index.nlevels} in a row"
        remedy = "name every column" + ("" if as_texts else ", or give the separator (--sep)")
        raise ValueError(f"{path} has {cells}: {remedy}")
    return ["rows have one cell more than the header: the first is left out as the name of the row"]


def _merged_rows(frame: pd.DataFrame, sep: str) -> list[str]:
    """What is said of a cell that holds whole rows: a quote that is closed in another row than its own."""
    for column in frame.select_dtypes([object, "string"]):
        cells = frame[column].astype(str)
        breaks = cells.str.count("\n")
        merged = (breaks > 0) & (cells.str.count(re.escape(sep)) == breaks * (frame.shape[1] - 1))
        if merged.any() and (breaks > 0).sum() <= max(1, RARE * len(frame)):
            row = int(merged.to_numpy().argmax())
            held = f"holds {breaks.iloc[row]} line breaks, and as many separators as {breaks.iloc[row]} rows"
            return [f"the cell of column '{column}' in row {row + 1} {held}: its quote may be left open"]
    return []


def _short_rows(path: Path, frame: pd.DataFrame, layout: Layout) -> list[str]:
    """What is said of rows with too few cells, which pandas fills up: looked for only where a last cell is missing, and
    the number of separators is not that of full rows."""
    skipped = layout.options["skiprows"]  # a line that holds the separator once
    full = skipped + layout.names - 1 + len(frame) * (layout.width - 1)
    if not frame.iloc[:, -1].isna().any() or _separators(path, layout.sep) == full:
        return []
    with io.TextIOWrapper(_open(path), encoding=layout.options["encoding"], newline="") as text:
        rows = csv.reader(islice(text, skipped, None), delimiter=layout.sep)
        next(rows)  # the header is shorter where rows have names
        lines = [rows.line_num for row in rows if 0 < len(row) < layout.width and "".join(row).strip()]
    if not lines:
        return []
    some = f"{len(lines)} rows have" if len(lines) > 1 else "a row has"
    line = lines[0] + skipped
    return [f"{some} fewer cells than the header, the first in line {line}: the rest of it is missing"]


def _separators(path: Path, sep: str) -> int:
    mark = sep.encode()[-1]
    with _open(path) as file:
        parts = iter(lambda: file.read(PART), b"")
        return sum(np.count_nonzero(np.frombuffer(part, dtype=np.uint8) == mark) for part in parts)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C be Ctrl-C where pandas reads a CSV file: pandas makes it a ParserError that says nothing of it.

    Yields
    ------
    None
        The block reads.
    """
    try:
        yield
    except pd.errors.ParserError as error:
        if "Calling read(nbytes) on source failed" in str(error):
            raise KeyboardInterrupt from None
        raise


def check_names(where: str | Path, names: pd.Index) -> None:
    """Refuse two columns of one name.

    Parameters
    ----------
    where
        What the error begins with.
    names
        Of all columns.

    Raises
    ------
    ValueError
        Where one stands twice.
    """
    if names.has_duplicates:
        raise ValueError(f"{where} has two columns called '{names[names.duplicated()][0]}': rename one")


def _open(path: Path) -> io.BufferedIOBase:
    return gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")


def _bounded(path: Path, text: io.TextIOWrapper) -> Iterator[str]:
    """The lines. Raises ValueError for a NUL, which ends a cell for pandas."""
    for line in text:
        if "\0" in line:
            raise ValueError(f"{path} holds NUL bytes: it is not text, or not in UTF-8 (give its --encoding)")
        yield line


def _separator(lines: list[str], usual: str) -> str:
    """The usual one where it splits the header; else the only one that splits all lines into as many cells."""
    if not lines or len(next(csv.reader(lines[:1], delimiter=usual), [])) > 1:
        return usual
    alike = []
    for mark in SEPARATORS:
        widths = {len(row) for row in csv.reader(lines, delimiter=mark) if row}
        if len(widths) == 1 and widths.pop() > 1:
            alike.append(mark)
    return alike[0] if len(alike) == 1 else usual


def _codes(path: Path, head: bytes, options: dict) -> dict[object, type]:
    """Columns that hold codes, by the first bytes of the file; looked for in the bytes first, as that is quick."""
    if not _code_numbers(_framed(head), options["sep"]):
        return {}
    first = pd.read_csv(path, nrows=head.count(b"\n"), dtype=str, **options)
    return {c: str for c in first.columns if _holds_codes(first[c])}


def _with_codes(path: Path, frame: pd.DataFrame, codes: list[float], options: dict) -> pd.DataFrame:
    """The frame with the texts of columns whose codes stand behind the first bytes of the file: columns of numbers
    that hold one which is written with leading zeros somewhere."""
    suspects = (
        [c for c in frame.select_dtypes("number") if np.isin(np.minimum(frame[c], EXACT), codes).any()] if codes else []
    )
    if not suspects:
        return frame
    texts = _read_cells(path, dict.fromkeys(suspects, str), options)
    return frame.assign(**{str(c): texts[c] for c in suspects if _holds_codes(texts[c])})


def _holds_codes(texts: pd.Series) -> bool:
    return texts.str.fullmatch(r"\s*0\d+\s*", na=False).any()


def _scan(path: Path, sep: str) -> Scan:
    """The bytes of a file, in parts that end with a line."""
    codes: set[float] = set()
    quotes = False
    with _open(path) as file:
        while part := file.read(PART):
            lines = _framed(part, file.readline())
            quotes = quotes or b'"' in lines
            codes.update(_code_numbers(lines, sep))
    return Scan(sorted(codes), quotes)


def _framed(*parts: bytes) -> bytes:
    """Lines between line breaks; wide characters without their zeros."""
    lines = b"".join((b"\n", *parts, b"\n"))
    return lines.replace(b"\0", b"") if b"\0" in lines else lines


def _code_numbers(lines: bytes, sep: str) -> list[float]:
    """Numbers that are written with leading zeros between two ends of cells; line breaks begin and end the lines."""
    letters = np.frombuffer(lines, dtype=np.uint8)
    digits = letters - np.uint8(ord("0")) < 10  # what is below "0" wraps around
    zeros = letters[1:-1] == ord("0")
    zeros &= digits[2:]
    np.greater(zeros, digits[:-2], out=zeros)  # a zero behind a digit or a point begins nothing
    np.greater(zeros, letters[:-2] == ord("."), out=zeros)
    if not zeros.any():
        return []
    edges = np.frombuffer(f'{sep}" \r\n'.encode(), dtype=np.uint8)
    ends = np.flatnonzero(zeros) + 1
    ends = ends[np.isin(letters[ends - 1], edges)]
    numbers = np.zeros(len(ends))
    for _ in range(DIGITS if len(ends) else 0):
        inside = digits[ends]
        numbers[inside] = 10 * numbers[inside] + letters[ends[inside]] - ord("0")
        ends = ends + inside
    return np.unique(np.minimum(numbers[np.isin(letters[ends], edges)], EXACT)).tolist()


def _read_cells(path: Path, kinds: type | dict[object, type], options: dict) -> pd.DataFrame:
    """In pieces, which is quick; at once where pieces of a column are of several types.

    Raises ValueError for a quote that is not closed, and for cells beyond the separator at the end of rows.
    """
    with interruptible(), warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.DtypeWarning)
        warnings.filterwarnings("error", "Length of header or names", pd.errors.ParserWarning)
        try:
            return pd.read_csv(path, dtype=kinds, **options)
        except pd.errors.DtypeWarning:
            return pd.read_csv(path, dtype=kinds, low_memory=False, **options)
        except pd.errors.ParserWarning:
            raise ValueError(f"{path} has rows with more cells than the header has names: name every column") from None
        except pd.errors.ParserError as error:
            if "EOF inside string" not in str(error):
                raise
            row = re.sub(r"\D+", "", str(error).rpartition("row")[2])
            raise ValueError(f"{path} has a quote that is not closed, after row {row}: close it") from None
