"""Texts that stand in several places: copies among candidates are left out, texts of an evaluation refused."""

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence

from compress.calibration.texts import Text
from transmeter.util.counts import counted

RUN = 13  # words in a row that no two texts share by chance (Brown et al. 2020, arXiv 2005.14165, appendix C)


def without_copies(pools: Mapping[str, Sequence[Text]]) -> dict[str, list[Text]]:
    """Leave out copies: each text stays once over all sets, whatever its case and spaces; a warning counts the rest.

    Parameters
    ----------
    pools
        Texts of every set by name.

    Returns
    -------
    dict
        The texts that stay.

    Raises
    ------
    ValueError
        Nothing stays of a set.
    """
    seen: set[str] = set()
    found: dict[str, list[Text]] = {}
    for name, texts in pools.items():
        found[name] = []
        for text in texts:
            key = " ".join(_words(text)) or str(text)  # signs alone are compared as they are
            if key not in seen:
                seen.add(key)
                found[name].append(text)
        copies = len(texts) - len(found[name])
        if not found[name]:
            raise ValueError(f"every text of {name} stands in another candidate too: leave {name} out")
        if copies:
            are = "is a copy" if copies == 1 else "are copies"
            of = f"{copies:,} of {counted(len(texts), 'text')} of {name}"
            warnings.warn(f"{of} {are}: each text counts once", stacklevel=2)
    return found


def refuse_held_out(pools: Mapping[str, Sequence[Text]], held_out: Mapping[str, Sequence[Text]]) -> None:
    """Refuse candidates that have texts of an evaluation: `RUN` words in a row, or all words of a shorter text.

    Parameters
    ----------
    pools
        Texts of every candidate by name.
    held_out
        Texts that none may have, by the name of their file.

    Raises
    ------
    ValueError
        The first text that stands in both.
    """
    runs = {run: name for name, texts in held_out.items() for text in texts for run in _runs(text)}
    for name, texts in pools.items() if runs else ():
        for number, text in enumerate(texts, 1):
            where = next((runs[run] for run in _runs(text) if run in runs), None)
            if where:
                start = " ".join(_words(text)[:8])
                raise ValueError(
                    f"text {number} of {name} ('{start} ...') stands in {where} too: remove it from {name}"
                )


def _runs(text: Text) -> Iterator[int]:
    """Hashes of every `RUN` words in a row, of all where there are fewer; none of signs alone."""
    words = _words(text)
    for start in range(max(1, len(words) - RUN + 1) if words else 0):
        yield hash(tuple(words[start : start + RUN]))


def _words(text: Text) -> list[str]:
    return re.findall(r"\w+", (text if isinstance(text, str) else " ".join(text)).casefold())
