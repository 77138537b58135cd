"""How a file is named on the command line: [NAME=]PATH[::LABEL_COLUMN]."""

import re
from collections.abc import Sequence
from pathlib import Path

from transmeter.util.suggestions import absent

FORMATS = ".csv, .csv.gz, .tsv, .parquet, .jsonl, .npz, .arff or a saved Hugging Face data set folder"
_ENDINGS = re.compile(r"(\.csv|\.tsv|\.parquet|\.arff|\.txt|\.jsonl|\.npz)?(\.gz)?$", re.IGNORECASE)


def parse(spec: str) -> tuple[str, Path, str | None]:
    """(name, path, label column or None) of `NAME=PATH::column`; name and column may be left out."""
    name, text = None, spec
    if "=" in spec and not Path(spec.partition("::")[0]).exists():
        name, _, text = spec.partition("=")
    path, _, column = text.partition("::")
    return name or stem(path), Path(path), column or None


def check_exists(spec: str | Path) -> None:
    """Raise ValueError for a file that is not there."""
    path = parse(str(spec))[1]
    if not path.exists():
        raise ValueError(f"{absent(path)}: give {FORMATS}")


def stem(path: str) -> str:
    """What a file is called where no name is given."""
    return _ENDINGS.sub("", Path(path).name)


def paths(values: Sequence[str]) -> dict[str, Path]:
    """Texts given as NAME=PATH or PATH by name. Raises ValueError for two of one name."""
    found = dict(parse(value)[:2] for value in values)
    if len(found) < len(values):
        raise ValueError("two texts have the same name: name them apart as NAME=TEXTS")
    return found
