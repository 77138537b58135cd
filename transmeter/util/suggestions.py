"""What a mistyped word or path may have meant."""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """What a mistyped word may have meant.

    Parameters
    ----------
    word
        What was written.
    known
        The words that there are.

    Returns
    -------
    str
        ", did you mean 'heart'?" with the word that is most like it; "" where none is like it.
    """
    spelled = {k.casefold(): k for k in reversed(list(map(str, known)))}
    found = get_close_matches(word.casefold(), spelled, n=1, cutoff=0.6)
    return f", did you mean '{spelled[found[0]]}'?" if found else ""


def absent(path: Path) -> str:
    """That a path does not exist, and what may have been meant.

    Parameters
    ----------
    path
        A path that does not exist.

    Returns
    -------
    str
        "PATH does not exist", and the file beside it that is most like it.
    """
    try:
        beside = [p.name for p in path.absolute().parent.iterdir()]
    except OSError:
        return f"{path} does not exist"
    return f"{path} does not exist{did_you_mean(path.name, beside)}"
