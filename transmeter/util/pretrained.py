"""What transformers says of a model that it cannot load, in one line that is complete."""

from pathlib import Path
from typing import Any

ELSEWHERE = "above report"  # in messages of transformers that refer to a table which it printed


def why_not_loaded(error: Exception, model_class: Any, source: str | Path) -> str:
    """The reason for which `model_class.from_pretrained(source)` failed, in one line.

    Parameters
    ----------
    error : Exception
        What it raised.
    model_class : type
        The class of transformers, or an Auto class.
    source : str or Path
        The folder, or the name on a hub. It is loaded once more where the reason is that shapes differ.
    """
    if ELSEWHERE not in str(error):
        return (str(error).strip() or type(error).__name__).splitlines()[0]
    info = model_class.from_pretrained(source, ignore_mismatched_sizes=True, output_loading_info=True)[1]
    wrong = sorted(info["mismatched_keys"])
    if not wrong:
        return "its weights cannot be brought into the form that this version of transformers has: save it anew with it"
    name, stored, expected = wrong[0]
    shapes = f"'{name}' has the shape {tuple(stored)}, by config.json it is {tuple(expected)}"
    more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    return f"weights do not have the shapes of its config.json ({shapes}{more}): give the files of one model"
