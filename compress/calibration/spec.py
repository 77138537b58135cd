"""How texts are named on the command line and in recipes, understood without reading them."""

from pathlib import Path

from transmeter.util.suggestions import absent

FORMATS = ".txt (documents separated by blank lines), .csv, .csv.gz, .tsv, .parquet, .jsonl or a data set folder"
GENERATED = ("self", "random")  # not in a file: written by the model, tokens sampled uniformly from the vocabulary


def split(part: str) -> tuple[str, str]:
    """Split WHAT:TOKENS.

    Parameters
    ----------
    part
        One of the parts of a calibration.

    Returns
    -------
    tuple
        WHAT and TOKENS, which is "" where there are none.
    """
    what, _, tokens = part.rpartition(":")
    return (what, tokens) if what and tokens.isdigit() else (part, "")


def parse(spec: str | Path) -> list[tuple[str, int | None]]:
    """Read what a calibration is called.

    Parameters
    ----------
    spec
        PATH, self, random, or several as WHAT:TOKENS,WHAT:TOKENS.

    Returns
    -------
    list
        (what, its tokens or None) of every part.

    Raises
    ------
    ValueError
        A path does not exist, a number is not one, or several parts have no tokens.
    """
    spec = str(spec)
    if spec in GENERATED or Path(spec).exists():
        return [(spec, None)]
    found: list[tuple[str, int | None]] = []
    for part in spec.split(","):
        what, tokens = split(part)
        if not tokens or not int(tokens):
            raise ValueError(f"{absent(Path(part))}: give a file, a folder, self, random, or several as WHAT:TOKENS")
        if what not in GENERATED and not Path(what).exists():
            raise ValueError(f"{absent(Path(what))}: give a file, a folder, self or random")
        found.append((what, int(tokens)))
    return found


def check_exists(path: Path) -> None:
    """Check that texts are there.

    Parameters
    ----------
    path
        File or folder.

    Raises
    ------
    ValueError
        It does not exist.
    """
    if not path.exists():
        raise ValueError(f"{absent(path)}: give {FORMATS}")
