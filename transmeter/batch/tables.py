"""Tables that were read once, kept as arrays that every process maps instead of copying."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from transmeter.tables.columns import numeric_columns
from transmeter.tables.data import Table
from transmeter.util import writing
from transmeter.util.code_version import code_version


def folder_of(cache: Path, digest: str) -> Path:
    """Where a table is kept.

    Parameters
    ----------
    cache : Path
        Folder for what is reused.
    digest : str
        Of its file and of how that is read.

    Returns
    -------
    Path
        Another one where the code that reads tables is another.
    """
    return cache / "tables" / f"{digest}-{code_version('tables', 'batch/tables.py')[:16]}"


def keep(table: Table, folder: Path) -> None:
    """Write a table as JSON and arrays (columns, rows).

    Parameters
    ----------
    table : Table
        As it was read.
    folder : Path
        A new one; where another process was quicker, its folder stays.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with writing.new_folder(folder) as partial:
            _write(table, partial)
    except OSError:
        if not folder.is_dir():  # else another process was quicker
            raise


def _write(table: Table, folder: Path) -> None:
    numeric = numeric_columns(table.features)
    others = [c for c in table.columns if c not in numeric]
    np.save(folder / "numbers.npy", np.ascontiguousarray(table.features[numeric].to_numpy(dtype=np.float64).T))
    coded = {c: pd.factorize(table.features[c]) for c in others}
    codes = [c for c, _ in coded.values()]
    np.save(folder / "codes.npy", np.stack(codes).astype(np.int32) if codes else np.zeros((0, len(table)), np.int32))
    np.save(folder / "labels.npy", table.codes.astype(np.int32))
    about = {
        "columns": table.columns,
        "numeric": numeric,
        "categories": {c: [str(v) for v in values] for c, (_, values) in coded.items()},
        "classes": list(table.classes),
        "keys": None if table.keys is None else list(table.keys),
    }
    (folder / "table.json").write_text(json.dumps(about), encoding="utf-8")


def mapped(folder: Path, name: str) -> Table:
    """What `keep` wrote, its numbers mapped from the file.

    Parameters
    ----------
    folder : Path
        Of `keep`.
    name : str
        What the table is called.

    Returns
    -------
    Table

    Raises
    ------
    ValueError
        For a folder that is not that.
    """
    try:
        about = json.loads((folder / "table.json").read_text(encoding="utf-8"))
        files = (folder / f"{part}.npy" for part in ("numbers", "codes", "labels"))
        numbers, codes, labels = (np.load(file, mmap_mode="r", allow_pickle=False) for file in files)
        columns = {c: pd.Series(values, copy=False) for c, values in zip(about["numeric"], numbers, strict=True)}
        for (column, categories), place in zip(about["categories"].items(), codes, strict=True):
            columns[column] = pd.Series(np.array([*categories, None], dtype=object)[place], dtype=object)  # -1 is None
        features = pd.DataFrame({c: columns[c] for c in about["columns"]}, copy=False)
        classes = tuple(about["classes"])
        texts = np.array([*classes, None], dtype=object)[labels]
        keys = None if about["keys"] is None else np.array(about["keys"], dtype=object)
        return Table(name, features, texts, classes, keys)
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, EOFError) as error:
        raise ValueError(f"{folder} does not hold a table ({error}): delete it, and it is made again") from None
