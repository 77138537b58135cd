"""Tables for a terminal."""

import io

from rich.console import Console
from rich.table import Table


def text_of(grid: Table, width: int) -> str:
    """A table as text; what stands in its cells is not read as markup.

    Parameters
    ----------
    grid
        The table.
    width
        Largest number of characters of a line.

    Returns
    -------
    str
        No line ends with a space, the last one ends with a line break.
    """
    out = io.StringIO()
    Console(file=out, width=width, markup=False, emoji=False, highlight=False).print(grid)
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())
