"""How files are named on the command line, [NAME=]PATH[::LABEL_COLUMN], and how their text is written."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transmeter.util.arguments import one_of, shown
from transmeter.util.suggestions import absent

FORMATS = ".csv, .csv.gz, .tsv, .parquet, .jsonl, .npz, .arff or a saved Hugging Face data set folder"
_ENDINGS = re.compile(r"(\.csv|\.tsv|\.parquet|\.arff|\.txt|\.jsonl|\.npz)?(\.gz)?$", re.IGNORECASE)
DECIMALS = (",", ".")


@dataclass(frozen=True)
class Dialect:
    """How text files are written.

    Attributes
    ----------
    sep
        Separator of columns, one character, also written `\\t`; None: that of the file's name, or the only one that
        splits the first lines alike.
    decimal
        Decimal mark of numbers, which decides what "1,234" and "1.234" are; None: decided per column where sure.
    encoding
        A codec of Python; None: UTF-8, or UTF-16 where the file begins with its mark.

    Raises
    ------
    ValueError
        For another separator or decimal mark, and an encoding that Python does not know.
    """

    sep: str | None = None
    decimal: str | None = None
    encoding: str | None = None

    def __post_init__(self) -> None:
        if self.sep == "\\t":
            object.__setattr__(self, "sep", "\t")
        if self.sep is not None and (not isinstance(self.sep, str) or len(self.sep) != 1 or self.sep in '\r\n"'):
            raise ValueError(f"sep is {shown(self.sep)}: give one character, such as ';'")
        if self.decimal is not None:
            one_of("decimal", self.decimal, DECIMALS)
        try:
            "".encode(self.encoding or "utf-8")
        except (LookupError, TypeError, ValueError):
            remedy = "give one that Python knows, such as latin-1 or cp1252"
            raise ValueError(f"encoding is {shown(self.encoding)}: {remedy}") from None


USUAL = Dialect()


def parse(spec: str) -> tuple[str, Path, str | None]:
    """The parts of `[NAME=]PATH[::LABEL_COLUMN]`.

    Parameters
    ----------
    spec
        As it is typed.

    Returns
    -------
    tuple
        Name, that of the file where none is given; path; label column or None.
    """
    name, text = None, spec
    if "=" in spec and not Path(spec.partition("::")[0]).exists():
        name, _, text = spec.partition("=")
    path, _, column = text.partition("::")
    return name or stem(path), Path(path), column or None


def check_exists(spec: str | Path) -> None:
    """Refuse a file that is not there.

    Parameters
    ----------
    spec
        A path, or `[NAME=]PATH[::LABEL_COLUMN]`.

    Raises
    ------
    ValueError
        With the name that may have been meant.
    """
    path = parse(str(spec))[1]
    if not path.exists():
        raise ValueError(f"{absent(path)}: give {FORMATS}")


def stem(path: str) -> str:
    """What a file is called where no name is given.

    Parameters
    ----------
    path
        Its path.

    Returns
    -------
    str
        Its name without folder and ending.
    """
    return _ENDINGS.sub("", Path(path).name)


def paths(values: Sequence[str]) -> dict[str, Path]:
    """Files of texts by name.

    Parameters
    ----------
    values
        Each as NAME=PATH or PATH.

    Returns
    -------
    dict
        Path by name.

    Raises
    ------
    ValueError
        For two of one name.
    """
    found = dict(parse(value)[:2] for value in values)
    if len(found) < len(values):
        raise ValueError("two texts have the same name: name them apart as NAME=TEXTS")
    return found
