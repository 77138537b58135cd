"""What texts are given as on the command line and in recipes, understood without reading them."""

from pathlib import Path

from transmeter.util.suggestions import absent

FORMATS = ".txt (documents separated by blank lines), .csv, .csv.gz, .tsv, .parquet, .jsonl or a data set folder"
MADE = ("self", "random")  # not read from a file: written by the model, tokens drawn alike from the vocabulary


def split(part: str) -> tuple[str, str]:
    """(WHAT, TOKENS) of WHAT:TOKENS, TOKENS "" where there are none."""
    what, _, tokens = part.rpartition(":")
    return (what, tokens) if what and tokens.isdigit() else (part, "")


def parse(spec: str | Path) -> list[tuple[str, int | None]]:
    """[(what, tokens or None)] of PATH, self, random, or several as WHAT:TOKENS,WHAT:TOKENS.

    Raises ValueError for what does not exist, a number that is none, and several without their tokens.
    """
    spec = str(spec)
    if spec in MADE or Path(spec).exists():
        return [(spec, None)]
    found: list[tuple[str, int | None]] = []
    for part in spec.split(","):
        what, tokens = split(part)
        if not tokens or not int(tokens):
            raise ValueError(f"{absent(Path(part))}: give a file, a folder, self, random, or several as WHAT:TOKENS")
        if what not in MADE and not Path(what).exists():
            raise ValueError(f"{absent(Path(what))}: give a file, a folder, self or random")
        found.append((what, int(tokens)))
    return found


def check_exists(path: Path) -> None:
    """Raise ValueError for texts that are not there."""
    if not path.exists():
        raise ValueError(f"{absent(path)}: give {FORMATS}")
