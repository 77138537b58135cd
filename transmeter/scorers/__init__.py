"""Scorers: every file here with `NEEDS` and `score(sources, target, *, seed=0, ...) -> list[Score]` is one."""

from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from transmeter.util import signatures

if TYPE_CHECKING:
    from transmeter.gain.score import Needs

SHARED = ("seed", "shots", "repeats", "metric", "budget")  # settings of a ranking that a scorer may ask for


def scorers() -> dict[str, Callable]:
    """All scorers, which imports torch.

    Returns
    -------
    dict
        Name of each scorer file -> its `score` function.
    """
    return {m.name: import_module(f"{__name__}.{m.name}").score for m in iter_modules(__path__)}


def needs(scorer: str) -> "Needs":
    """What a scorer declares of itself.

    Parameters
    ----------
    scorer : str
        Name of its file.

    Returns
    -------
    Needs
        Its `NEEDS`.
    """
    return import_module(f"{__name__}.{scorer}").NEEDS


def scorer_signatures() -> dict[str, Callable]:
    """The signatures of all scorers, without importing torch, which takes seconds.

    Returns
    -------
    dict
        Name of each scorer -> a function that does nothing and has its signature.
    """
    return signatures.of_folder(__name__, __path__, "score")
