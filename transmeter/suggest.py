"""What a mistyped word may have meant."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ ", did you mean 'heart'?" with the known word that is most like `word`, "" where none is like it."""
    spelled = {k.casefold(): k for k in reversed(list(map(str, known)))}
    found = get_close_matches(word.casefold(), spelled, n=1, cutoff=0.6)
    return f", did you mean '{spelled[found[0]]}'?" if found else ""
