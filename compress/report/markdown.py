"""Foreign texts in Markdown: nothing in them has a meaning there."""

import re


def plain(text: object) -> str:
    """A foreign text on one line, without what cannot be seen.

    Parameters
    ----------
    text
        Anything; its str.

    Returns
    -------
    str
        Printable characters, single spaces between words.
    """
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


def code(text: object) -> str:
    """A foreign text as Markdown code, in which nothing has a meaning.

    Parameters
    ----------
    text
        Anything; its str.

    Returns
    -------
    str
        Markdown of one line.
    """
    shown = plain(text) or "-"
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    pad = " " if "`" in (shown[0], shown[-1]) else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def fenced(text: str, language: str) -> str:
    """A foreign text of many lines as a block of code.

    Parameters
    ----------
    text
        The lines.
    language
        The name that the block is coloured by.

    Returns
    -------
    str
        Markdown, without a line break at its end.
    """
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text.strip()}\n{fence}"
