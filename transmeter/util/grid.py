"""Tables for a terminal."""

import io
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

GAP = 2  # characters between two columns


def text_of(part: Table | str, width: int) -> str:
    """A table or a line as text; what stands in it is not read as markup.

    Parameters
    ----------
    part
        The table, or a line to be wrapped.
    width
        Largest number of characters of a line.

    Returns
    -------
    str
        No line ends with a space, the last one ends with a line break.
    """
    out = io.StringIO()
    Console(file=out, width=width, markup=False, emoji=False, highlight=False).print(part)
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


def fitted(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> str:
    """Rows below their heads where that fits, else turned, and where that does not fit either in several tables.

    Parameters
    ----------
    heads
        Of the columns; the first one is that of the names of the rows, which stand in every table.
    rows
        A text for every head.
    width
        Largest number of characters of a line, as far as single cells allow.

    Returns
    -------
    str
        Tables, an empty line between two; no line ends with a space, the last one with a line break.
    """
    for lines in ([heads, *rows], [*zip(heads, *rows, strict=True)]):
        if _width(lines) <= width:
            return _text(lines)
    names, *columns = zip(heads, *rows, strict=True)
    parts = [[names, columns[0]]]
    for column in columns[1:]:
        if _width([*zip(*parts[-1], column, strict=True)]) > width:
            parts.append([names])
        parts[-1].append(column)
    return "\n".join(_text([*zip(*part, strict=True)]) for part in parts)


def _width(lines: Sequence[Sequence[str]]) -> int:
    """Characters that a table takes."""
    return sum(max(map(cell_len, column)) for column in zip(*lines, strict=True)) + GAP * (len(lines[0]) - 1)


def _text(lines: Sequence[Sequence[str]]) -> str:
    """A table as wide as it is, the first line its head."""
    table = Table(*lines[0], box=None, pad_edge=False)
    for line in lines[1:]:
        table.add_row(*line)
    return text_of(table, _width(lines))
