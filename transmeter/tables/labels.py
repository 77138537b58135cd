"""Labels: as text, as classes, as quantities, and as memberships."""

import re
import warnings
from collections import Counter

import numpy as np
import pandas as pd

UNKNOWN = "?"  # a label that is missing
R2 = "r2"  # the metric of a quantity
# an empty cell among categories; a label may well be called so
EMPTY = {"", "?", "NA", "N/A", "NaN", "nan", "null", "NULL"}
FEW = 20  # so many different labels are classes whatever they look like


def text_of(value: object) -> str | None:
    """A label, key or category as text.

    Parameters
    ----------
    value
        Of any kind: 1, 1.0 and "1" are the same text; bytes that are no UTF-8 become their hexadecimal digits.

    Returns
    -------
    str or None
        None for an empty one.
    """
    if value is None or (isinstance(value, float) and np.isnan(value)) or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError:
            value = value.hex()
    text = str(value).strip()
    whole = re.fullmatch(r"(-?\d+)\.0*", text)
    text = whole[1] if whole else text
    return "0" if text == "-0" else text or None


def label_texts(values: pd.Series | np.ndarray) -> np.ndarray:
    """Labels or keys as text.

    Parameters
    ----------
    values
        (n,) of any kind.

    Returns
    -------
    numpy.ndarray
        (n,) texts, None for an empty one.

    Raises
    ------
    ValueError
        For lists.
    """
    column = pd.Series(values)
    if column.dtype.kind == "f" and column.dtype.itemsize < 8:  # so that float32 0.1 is 0.1
        column = column.astype(str).replace("nan", None)
    if column.dtype != object:
        places, distinct = pd.factorize(column)
        return np.array([*map(text_of, distinct.tolist()), None], dtype=object)[places]  # -1 is a missing one
    cells = column.tolist()
    if any(isinstance(v, (list, dict, tuple, np.ndarray)) for v in cells):
        raise ValueError("a label is a list: give one class a row")
    return np.array([text_of(v) for v in cells], dtype=object)


def read_labels(
    name: str, values: pd.Series | np.ndarray, unlabelled: bool = False
) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """Labels as the texts of classes; where they are a quantity, it is kept, and cut into low, middle and high too.

    The cuts are the table's own terciles, so that such classes map across tables whatever their units; where values
    repeat, the cuts lie between two values, as near to the terciles as can be, and two classes may be left. They serve
    where classes are needed.

    Parameters
    ----------
    name
        What messages call the table.
    values
        (n,) labels of any kind; an empty one or "?" is missing, among numbers also "NA" and the like.
    unlabelled
        Whether they may all be missing.

    Returns
    -------
    tuple
        (n,) texts, None where missing; (n,) numbers, NaN where missing, or None where they are no quantity; and what is
        said of them, a line each.

    Raises
    ------
    ValueError
        For fewer than two classes, lists, and labels nearly all of which differ.
    """
    texts = label_texts(values)
    counts = Counter(texts.tolist())
    del counts[None]
    words = EMPTY & counts.keys()
    missing = words if all(_is_number(c) for c in counts.keys() - words) else words & {UNKNOWN}
    lines = [_missing_line(w, counts.pop(w)) for w in sorted(missing)]
    if missing:
        texts[np.isin(texts.astype(str), list(missing))] = None
    classes = set(counts)
    if len(classes) < 2 and not (unlabelled and not classes):
        has = f"only the class '{classes.pop()}'" if classes else "no labelled row"
        raise ValueError(f"{name} has {has}: two classes are needed")
    cut = _cut(name, texts, classes) if len(classes) > FEW else None
    lines += [cut[2]] if cut else _doubts(classes)
    for line in lines:
        warnings.warn(f"{name}: {line}", stacklevel=4)
    return (*cut[:2], lines) if cut else (texts, None, lines)


def _missing_line(word: str, rows: int) -> str:
    return f"{rows} labels '{word}' are read as missing" if rows > 1 else f"a label '{word}' is read as missing"


def _cut(name: str, texts: np.ndarray, classes: set[str]) -> tuple[np.ndarray, np.ndarray, str] | None:
    """(classes of a quantity, its numbers, what is said of them), None for classes. Raises ValueError for names."""
    labelled = np.array([t is not None for t in texts])
    numbers = pd.to_numeric(pd.Series(texts, dtype=object), errors="coerce").to_numpy(dtype=np.float64)
    if not _is_quantity(classes, numbers[labelled]):
        return None
    if not np.isfinite(numbers[labelled]).all():
        raise ValueError(
            f"{name} has {len(classes)} different labels in {labelled.sum()} rows: give classes, not names"
        )
    cut, line = _terciles(numbers, labelled)
    return cut, numbers, line


def meaning(name: str) -> str:
    """What a name of a class means by itself.

    Parameters
    ----------
    name
        Of a class.

    Returns
    -------
    str
        Without case and repeated spaces, a number in one form.
    """
    folded = " ".join(name.casefold().split())
    return f"{float(folded):.12g}" if _is_number(folded) else folded


def _is_number(name: str) -> bool:
    try:
        return bool(np.isfinite(float(name)))
    except ValueError:
        return False


def _doubts(classes: set[str]) -> list[str]:
    """What is said of classes that may be one, or none."""
    alike: dict[str, list[str]] = {}
    for name in sorted(classes):
        alike.setdefault(meaning(name), []).append(f"'{name}'")
    pairs = [" and ".join(names) for names in alike.values() if len(names) > 1]
    lines = [f"classes {', '.join(pairs[:3])} mean the same, but count apart: spell them alike"] if pairs else []
    words = ", ".join(f"'{w}'" for w in sorted(EMPTY & classes))
    return lines + ([f"{words} is a class: leave such labels empty where they are missing"] if words else [])


def _is_quantity(classes: set[str], numbers: np.ndarray) -> bool:
    """Whether many labels are amounts, not names: fractions, whole numbers with gaps, or hardly one twice."""
    fractional = sum(bool(re.fullmatch(r"-?\d+\.\d+", c)) for c in classes) > len(classes) / 2
    if fractional or len(classes) > len(numbers) / 2:
        return True
    if not np.isfinite(numbers).all():
        return False
    return bool(numbers.min() not in (0, 1) or numbers.max() - numbers.min() >= len(classes))  # classes are numbered


def _terciles(numbers: np.ndarray, labelled: np.ndarray) -> tuple[np.ndarray, str]:
    """(n,) low, middle or high, None where not labelled; and what is said of it."""
    values, counts = np.unique(numbers[labelled], return_counts=True)
    share = counts.cumsum()[:-1] / counts.sum()  # of the rows up to each value
    low, high = (values[np.abs(share - third).argmin()] for third in (1 / 3, 2 / 3))
    parts = "low and high" if low == high else "low, middle and high"
    cut = np.where(numbers <= low, "low", np.where(numbers <= high, "middle", "high")).astype(object)
    cut[~labelled] = None
    line = f"the label is a quantity of {len(values)} values from {values[0]:g} to {values[-1]:g}"
    return cut, f"{line}; where classes are needed, its own terciles ({low:g}, {high:g}) cut it into {parts}"


def one_hot(values: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Memberships of the classes that occur.

    Parameters
    ----------
    values
        (n, ...) what is to be measured.
    codes
        (n,) class numbers from 0.

    Returns
    -------
    numpy.ndarray
        (n, classes) 1.0 where a row is of a class.

    Raises
    ------
    ValueError
        For values that are not finite, and fewer than two classes.
    """
    if not np.isfinite(values).all():
        raise ValueError("values are given that are not finite: replace them first")
    there = np.bincount(codes) > 0
    if there.sum() < 2:
        raise ValueError("one class only: two are needed")
    labels = np.zeros((len(codes), there.sum()))
    labels[np.arange(len(codes)), (there.cumsum() - 1)[codes]] = 1
    return labels


def in_unit(quantity: np.ndarray, unit: tuple[float, float]) -> np.ndarray:
    """Quantities less the mean, over the standard deviation.

    Parameters
    ----------
    quantity
        (n,) of any unit.
    unit
        Mean and standard deviation, see `unit_of`.

    Returns
    -------
    numpy.ndarray
        (n,) without a unit.
    """
    return (quantity - unit[0]) / unit[1]


def unit_of(quantity: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of the labelled rows.

    Parameters
    ----------
    quantity
        (n,), NaN where unlabelled.

    Returns
    -------
    tuple
        Both in the quantity's unit; a deviation of 1 where it is constant.
    """
    mean, deviation = float(np.nanmean(quantity)), float(np.nanstd(quantity))
    return mean, deviation if deviation > 1e-12 * max(abs(mean), 1e-300) else 1.0
