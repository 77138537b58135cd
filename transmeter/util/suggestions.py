"""What a mistyped word or path may have meant."""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ ", did you mean 'heart'?" with the known word that is most like `word`, "" where none is like it."""
    spelled = {k.casefold(): k for k in reversed(list(map(str, known)))}
    found = get_close_matches(word.casefold(), spelled, n=1, cutoff=0.6)
    return f", did you mean '{spelled[found[0]]}'?" if found else ""


def absent(path: Path) -> str:
    """ "PATH does not exist", and the file beside it that may have been meant."""
    try:
        beside = [p.name for p in path.absolute().parent.iterdir()]
    except OSError:
        return f"{path} does not exist"
    return f"{path} does not exist{did_you_mean(path.name, beside)}"
