"""Which of many candidates are worth a forward pass: those whose tokens, as they enter the first block, come closest.

No block runs, so that a candidate costs its tokenization. What enters the first block orders candidates much as all
depths do (`benchmarks/calibration_screening.py`).
"""

import warnings
from collections.abc import Callable, Sequence

from compress.calibration.candidates import Target, joined
from transmeter.scorers.alignment import Points, closeness
from transmeter.util.progress import track

KEPT = 8  # candidates that are measured in full


def screen(
    names: Sequence[str],
    embed: Callable[[str], Points],
    targets: Sequence[Target],
    aims: Sequence[Points],
    protect: str,
    keep: int = KEPT,
) -> list[str]:
    """The candidates that come closest to all targets before any block has run, one of them in memory at a time.

    Parameters
    ----------
    names
        Of the candidates.
    embed
        Gives what enters the first block for the texts of a candidate, or raises ValueError where it has none.
    targets
        Whose weights count.
    aims
        What enters the first block for the texts of every target.
    protect
        As in `candidates.choose`.
    keep
        Number of candidates that stay.

    Returns
    -------
    list of str
        Names, closest first.

    Warns
    -----
    UserWarning
        Always, as others are left out; and for a candidate that cannot be compared.
    """
    warnings.warn(
        f"{len(names)} candidates are screened by their tokens alone and the {keep} closest measured", stacklevel=3
    )
    each: list[dict[str, float]] = [{} for _ in targets]
    for name in track(names, "Screening candidates"):
        try:
            seen = embed(name)
            found = [closeness(seen, aim).score for aim in aims]
        except ValueError as error:
            warnings.warn(f"{name} is left out: {error}", stacklevel=3)
            continue
        for scores, score in zip(each, found):
            scores[name] = score
    return list(joined(each, targets, protect))[:keep]
