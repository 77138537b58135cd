"""How alike two column names are in meaning: abbreviations, initials, word order, spelling."""

import re
from functools import lru_cache

_SPLIT = re.compile(r"(?<=[a-z])(?=[A-Z])|[\W_]+")
_SMALL = {"a", "an", "and", "at", "by", "for", "from", "has", "in", "is", "of", "on", "or", "per", "the", "to", "with"}
_SAME = {
    "amt": "amount",
    "average": "mean",
    "avg": "mean",
    "count": "number",
    "gender": "sex",
    "idx": "index",
    "no": "number",
    "nr": "number",
    "num": "number",
    "pct": "percent",
    "percentage": "percent",
    "qty": "quantity",
    "sd": "deviation",
    "std": "deviation",
    "temp": "temperature",
}
_BLANK = set(  # words that say nothing of meaning
    "attr attribute col column component dim dimension embedding feat feature field id index input item pc unnamed val"
    " value var variable".split()
)


@lru_cache(maxsize=20_000)
def words(name: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """What a name is made of.

    Parameters
    ----------
    name
        Of a column.

    Returns
    -------
    tuple
        Words in lower case without small ones, and numbers, sorted.
    """
    parts = re.findall(r"[^\W\d_]+|\d+", _SPLIT.sub(" ", name))
    found = [p.casefold() for p in parts if not p.isdecimal()]
    kept = [w for w in found if w not in _SMALL] or found
    return tuple(kept), tuple(sorted(int(p) for p in parts if p.isdecimal()))


def telling(name: str) -> bool:
    """Whether a name says anything: not x1, f0, V3, attribute_7.

    Parameters
    ----------
    name
        Of a column.

    Returns
    -------
    bool
    """
    return any(len(w) > 1 and w not in _BLANK for w in words(name)[0])


def same_numbers(a: str, b: str) -> bool:
    """Whether names hold the same numbers, as bill_amount_1 and BILL1 do; others tell columns of a series apart.

    Parameters
    ----------
    a, b
        Names of columns.

    Returns
    -------
    bool
    """
    return words(a)[1] == words(b)[1]


def likeness(a: str, b: str) -> float:
    """How well the shorter of two names is explained by the longer one.

    Every word of the shorter name is looked for in the longer one, as a word or as an abbreviation of some of its
    words; one that is not there makes the names unlike, words of the longer name that nothing stands for a little so.

    Parameters
    ----------
    a, b
        Names of columns.

    Returns
    -------
    float
        0..1; 0 where either name says nothing or their numbers differ.
    """
    if not (telling(a) and telling(b) and same_numbers(a, b)):
        return 0.0
    short, long = sorted((words(a)[0], words(b)[0]), key=lambda w: (sum(map(len, w)), len(w), w))
    found = [_explained(word, long) for word in short]
    letters = [len(word) for word in short]
    covered = sum(f * n for (f, _), n in zip(found, letters)) / sum(letters)
    if min(f for f, _ in found) < 0.5:
        return covered / 2
    touched = set().union(*(t for _, t in found))
    return covered * (0.75 + 0.25 * len(touched) / len(long))


@lru_cache(maxsize=100_000)
def _explained(word: str, long: tuple[str, ...]) -> tuple[float, frozenset[int]]:
    """(0..1, which words of `long`) as a word, misspelled, or as an abbreviation."""
    for i, w in enumerate(long):
        if _SAME.get(word, word) == _SAME.get(w, w):
            return 1.0, frozenset([i])
    spelled = max(((_dice(word, w), frozenset([i])) for i, w in enumerate(long)), key=lambda f: f[0])
    credit, touched = _abbreviates(word, long)
    sure = {1: 0.3, 2: 0.75, 3: 0.9}.get(len(word), 0.95)  # two letters stand for much
    return max((sure * credit / len(word), touched), spelled, key=lambda f: f[0])


def _abbreviates(word: str, long: tuple[str, ...]) -> tuple[float, frozenset[int]]:
    """Most letters of `word` found in `long` in order, and in which words: those that begin a word or follow a found
    letter count 1, those further on in a word that was begun 0.3."""
    nothing = (0.0, frozenset())
    letters = [(letter, i, place == 0) for i, w in enumerate(long) for place, letter in enumerate(w)]
    best = [nothing] * (len(letters) + 1)  # for the letters of `word` so far, among the first j of `letters`
    run = best  # the same, the last letter of `word` being letter j
    for c in word:
        old, old_run, best, run = best, run, [nothing], [nothing]
        for j, (letter, i, begins) in enumerate(letters):
            follows = old_run[j][0] > 0
            credit, touched = old_run[j] if follows and not begins else old[j]
            if letter == c and (begins or i in touched):
                run.append((credit + (1 if begins or follows else 0.3), touched | {i}))
            else:
                run.append(nothing)
            best.append(max(best[j], run[j + 1], old[j + 1], key=lambda f: f[0]))
    return best[-1]


def _dice(a: str, b: str) -> float:
    """Share of common letter pairs of two long words, with their ends; 0 below 0.6, and for short words."""
    if min(len(a), len(b)) < 6:
        return 0.0
    x, y = ({w[k : k + 2] for k in range(len(w) - 1)} for w in (f"^{a}$", f"^{b}$"))
    share = 2 * len(x & y) / (len(x) + len(y))
    return share if share >= 0.6 else 0.0
