"""Dates as days since the first of them."""

import re
from collections.abc import Mapping

import pandas as pd

EITHER = "either"  # days and months may stand in both orders
_PATTERNS = {
    "year month day": re.compile(r"(?P<y>\d{4})[-/.](?P<m>\d{1,2})[-/.](?P<d>\d{1,2})(?P<time>[ T].*)?"),
    "day month year": re.compile(r"(?P<d>\d{1,2})([-/.])(?P<m>\d{1,2})\2(?P<y>\d{4}|(?<!\.)\d{2})(?P<time>[ T].*)?"),
    "month day year": re.compile(r"(?P<m>\d{1,2})([-/])(?P<d>\d{1,2})\2(?P<y>\d{4}|\d{2})(?P<time>[ T].*)?"),
    "named month": re.compile(
        r"[A-Za-z]{3,9}\.? \d{1,2},? \d{4}|\d{1,2}\.?[ -][A-Za-z]{3,9}[ -]\d{2,4}"  # Jan 31, 2024; 31-Jan-24
    ),
}


def is_time(values: pd.Series) -> bool:
    """Whether a column is of times or lengths of time by its type.

    Parameters
    ----------
    values
        Any column.

    Returns
    -------
    bool
        True for datetime64 and timedelta64.
    """
    return pd.api.types.is_datetime64_any_dtype(values) or pd.api.types.is_timedelta64_dtype(values)


def days(values: pd.Series, first: str | None = None) -> tuple[pd.Series, str]:
    """Times, or lengths of time, as days.

    Parameters
    ----------
    values
        A column for which `is_time` is true.
    first
        The date to count from, in ISO format; None: the first of the column.

    Returns
    -------
    tuple
        Floats, NaN for missing ones; and the date counted from, "" for lengths of time.
    """
    if pd.api.types.is_timedelta64_dtype(values):
        return values / pd.Timedelta(days=1), ""
    stamps = pd.to_datetime(values, utc=True)
    begin = pd.Timestamp(first) if first else stamps.min()
    return (stamps - begin) / pd.Timedelta(days=1), "" if pd.isna(begin) else begin.isoformat()


def order(counts: Mapping[str, int], share: float) -> str | None:
    """In which order the parts of dates stand.

    Parameters
    ----------
    counts
        The distinct cells of a column that are not missing, with how many there are of each.
    share
        0..1, of them that must be dates.

    Returns
    -------
    str or None
        A key of the patterns, EITHER where two orders fit equally well, None where the texts are no dates.
    """
    enough = max(1.0, share * sum(counts.values()))
    fits = {o: sum(n for text, n in counts.items() if form.fullmatch(text)) for o, form in _PATTERNS.items()}
    texts = pd.Series(list(counts), dtype=object)
    for likely in [o for o, fit in fits.items() if fit >= enough]:
        fits[likely] = int(texts[_stamps(texts, likely).notna()].map(counts).sum())
    best = [o for o, fit in fits.items() if fit == max(fits.values()) and fit >= enough]
    return EITHER if len(best) > 1 else best[0] if best else None


def first(texts: pd.Series, order: str) -> str:
    """The first date.

    Parameters
    ----------
    texts
        Dates, and what is none.
    order
        What `order` returned.

    Returns
    -------
    str
        In ISO format.
    """
    return _stamps(texts, order).min().isoformat()


def days_since(texts: pd.Series, order: str, first: str) -> pd.Series:
    """Dates as days.

    Parameters
    ----------
    texts
        Dates, and what is none.
    order
        What `order` returned.
    first
        The date to count from, in ISO format.

    Returns
    -------
    pandas.Series
        Floats, NaN for what is no date.
    """
    return (_stamps(texts, order) - pd.Timestamp(first)) / pd.Timedelta(days=1)


def _stamps(texts: pd.Series, order: str) -> pd.Series:
    """UTC times, NaT for what is no date in that order."""
    places, distinct = pd.factorize(texts)
    written = pd.Series([_iso(t, order) for t in distinct], dtype=object)
    stamps = pd.to_datetime(written, errors="coerce", utc=True, format="ISO8601")
    rest = stamps.isna() & written.notna()
    if rest.any():
        stamps[rest] = pd.to_datetime(written[rest], errors="coerce", utc=True, format="mixed")
    return stamps.iloc[places].set_axis(texts.index)


def _iso(text: str, order: str) -> str | None:
    """The date with year, month and day in ISO's order; that of a named month as it stands."""
    match = (_PATTERNS.get(order) or _PATTERNS["year month day"]).fullmatch(text)
    if not match or order == "named month":
        return match and text
    year = match["y"] if len(match["y"]) == 4 else f"{'19' if match['y'] >= '69' else '20'}{match['y']}"
    return f"{year}-{int(match['m']):02}-{int(match['d']):02}{match['time'] or ''}"
