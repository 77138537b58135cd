"""Texts of others in Markdown: nothing in them has a meaning there."""

import re
from collections.abc import Sequence


def plain(text: object) -> str:
    """Put a text on one line, without what cannot be seen.

    Parameters
    ----------
    text
        Of others.

    Returns
    -------
    str
        Printable characters and single spaces.
    """
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


def code(text: object) -> str:
    """Write a text as inline code.

    Parameters
    ----------
    text
        Of others.

    Returns
    -------
    str
        Markdown.
    """
    shown = plain(text) or "-"
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    pad = " " if "`" in (shown[0], shown[-1]) else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def table(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """Write a table.

    Parameters
    ----------
    heads
        Of the columns.
    cells
        Rows of Markdown.

    Returns
    -------
    str
        Markdown.
    """
    rows = [heads, ["---"] * len(heads), *([c.replace("|", "\\|") for c in row] for row in cells)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def fenced(text: str, language: str) -> str:
    """Write a text as a block of code.

    Parameters
    ----------
    text
        Of others, in any number of lines.
    language
        Of the code.

    Returns
    -------
    str
        Markdown.
    """
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text.strip()}\n{fence}"
