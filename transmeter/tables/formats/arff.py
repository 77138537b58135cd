"""ARFF files as data frames: dense and sparse rows, quotes of both kinds, escapes, texts, dates and missing cells."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from transmeter.tables.formats.delimited import NOTES

_QUOTED = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""
_ATTRIBUTE = re.compile(rf"@attribute\s+({_QUOTED}|[^\s{{]+)\s*(\{{.*\}}|\w+)(.*)", re.IGNORECASE)
_CELL = re.compile(rf"\s*((?:\d+\s+)?(?:{_QUOTED})|(?:[^,'\"\s][^,]*?)?)\s*(?:,|$)")
_WEIGHT = re.compile(r",\s*\{[^{},]*\}$")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}
_NUMERIC = ("numeric", "real", "integer")
_TEXT = ("string", "date")

Kind = str | Mapping[str, None]  # "numeric", "text", or the values of a nominal attribute in order


def read_arff(path: Path, encoding: str = "utf-8-sig") -> pd.DataFrame:
    """A file in Weka's format.

    Parameters
    ----------
    path
        The file. Relational attributes are refused.
    encoding
        A codec of Python.

    Returns
    -------
    pandas.DataFrame
        Numeric attributes as floats; nominal ones, texts and dates as text; a cell "?" is missing. `attrs[NOTES]`
        tells of weights of rows, which are not used.

    Raises
    ------
    ValueError
        The file, the line and what is wrong with it.
    """
    kinds: dict[str, Kind] = {}
    rows: list[list[str | float | None]] = []
    data = weights = False
    with path.open(encoding=encoding) as file:
        for number, line in enumerate(map(str.strip, file), 1):
            if not line or line.startswith("%"):
                continue
            try:
                if data:
                    cells = _WEIGHT.sub("", line)
                    weights |= cells != line
                    rows.append(_row(cells, list(kinds.values())))
                else:
                    data = _declare(line, kinds)
            except ValueError as error:
                raise ValueError(f"{path} cannot be read: line {number}: {error}") from None
    if not data:
        raise ValueError(f"{path} cannot be read: it has no @data")
    frame = pd.DataFrame(rows, columns=list(kinds))
    frame.attrs[NOTES] = ["weights of rows are not used"] if weights else []
    return frame


def _declare(line: str, kinds: dict[str, Kind]) -> bool:
    """Add the attribute of a line before the rows; whether rows follow."""
    word = line.split()[0].lower()
    if word == "@attribute":
        name, kind = _attribute(line)
        if name in kinds:
            raise ValueError(f"a second attribute is called '{name}'")
        kinds[name] = kind
    elif word not in ("@relation", "@data"):
        raise ValueError(f"'{line[:60]}' is none of @relation, @attribute and @data")
    return word == "@data"


def _attribute(line: str) -> tuple[str, Kind]:
    match = _ATTRIBUTE.fullmatch(line)
    if not match:
        raise ValueError(f"'{line[:60]}' is not @attribute NAME TYPE")
    kind = match[2].lower()
    if kind.startswith("{"):
        return _unquoted(match[1]), dict.fromkeys(_unquoted(cell) for cell in _cells(match[2][1:-1]))
    if kind not in (*_NUMERIC, *_TEXT):
        raise ValueError(f"type '{match[2][:60]}' is not one of {', '.join((*_NUMERIC, *_TEXT))} and {{VALUES}}")
    return _unquoted(match[1]), "numeric" if kind in _NUMERIC else "text"


def _row(line: str, kinds: list[Kind]) -> list[str | float | None]:
    """Cells of a row in the order of the attributes."""
    if line.startswith("{"):
        return _sparse_row(line, kinds)
    cells = list(_cells(line if "," in line else line.replace("\t", ",")))
    if len(cells) != len(kinds):
        raise ValueError(f"{len(cells)} cells for {len(kinds)} attributes")
    return [_value(cell, kind) for cell, kind in zip(cells, kinds)]


def _sparse_row(line: str, kinds: list[Kind]) -> list[str | float | None]:
    """What is not there is 0, the first value of a nominal attribute, or a missing text."""
    row = [0.0 if kind == "numeric" else None if isinstance(kind, str) else next(iter(kind), None) for kind in kinds]
    if not line.endswith("}"):
        raise ValueError("a sparse row does not end with '}'")
    for cell in _cells(line[1:-1]):
        place, _, value = cell.partition(" ")
        if not place.isdecimal() or int(place) >= len(kinds):
            raise ValueError(f"'{cell[:60]}' is not NUMBER VALUE with the number of an attribute below {len(kinds)}")
        row[int(place)] = _value(value.strip(), kinds[int(place)])
    return row


def _cells(line: str) -> Iterator[str]:
    """The cells of a line, quoted ones with their quotes."""
    if "'" not in line and '"' not in line:  # most lines, and quick
        return map(str.strip, line.split(",") if line.strip() else ())
    return _quoted_cells(line)


def _quoted_cells(line: str) -> Iterator[str]:
    at = 0
    while at < len(line):
        match = _CELL.match(line, at)
        if not match:
            raise ValueError(f"a quote is not closed, or text follows it, at {line[at : at + 30].strip()}")
        yield match[1]
        at = match.end()
    if line.endswith(","):
        yield ""


def _value(cell: str, kind: Kind) -> str | float | None:
    if cell in ("?", ""):
        return None
    text = _unquoted(cell)
    if kind == "numeric":
        try:
            return float(text)
        except ValueError:
            raise ValueError(f"'{text[:60]}' is not a number") from None
    if not isinstance(kind, str) and text not in kind:
        raise ValueError(f"'{text[:60]}' is not one of {', '.join(list(kind)[:12])}")
    return text


def _unquoted(cell: str) -> str:
    if cell[:1] not in ("'", '"'):
        return cell
    if len(cell) < 2 or cell[-1] != cell[0]:
        raise ValueError(f"a quote is not closed at {cell[:30]}")
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[1]), cell[1:-1])
