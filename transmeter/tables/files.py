"""Files as data frames: csv, tsv, parquet, jsonl, npz, arff, saved Hugging Face data sets."""

import gzip
import json
import warnings
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from pyarrow import ArrowException
from pyarrow.parquet import ParquetFile

from transmeter.tables.formats.arff import read_arff
from transmeter.tables.formats.delimited import NOTES, check_names, read_delimited
from transmeter.tables.specs import FORMATS, USUAL, Dialect
from transmeter.util.counts import counted
from transmeter.util.suggestions import absent

if TYPE_CHECKING:
    from datasets import Dataset

UNPACKED = 4_000_000_000  # bytes that a compressed file may hold
_UNREADABLE = (
    *(pd.errors.ParserError, pd.errors.EmptyDataError, ArrowException, OSError, EOFError, MemoryError),
    *(zipfile.BadZipFile, zlib.error),
)


def read(
    path: Path,
    *,
    dialect: Dialect = USUAL,
    as_texts: bool = False,
    formats: str = FORMATS,
) -> pd.DataFrame:
    """The file as a data frame.

    Parameters
    ----------
    path
        A file of one of the formats, or the folder of a saved Hugging Face data set.
    dialect
        How .csv and .tsv are written; its encoding is that of .jsonl and .arff too.
    as_texts
        Whether cells of .csv and .tsv stay the texts that they are, none of them a number or missing.
    formats
        What an error names as allowed.

    Returns
    -------
    pd.DataFrame
        Classes by their names; `attrs["classes"]` has the names of each column of classes in order, `attrs[NOTES]` what
        was decided of .csv, .tsv and .arff, of which is warned too.

    Raises
    ------
    ValueError
        The file and why it cannot be read.
    """
    name = path.name.lower()
    if not path.exists():
        raise ValueError(f"{absent(path)}: give {formats}")
    try:
        if not path.is_dir() and _unpacked(path) > UNPACKED:
            raise ValueError(f"{path} holds more than {UNPACKED:,} bytes when unpacked: give a sample of its rows")
        if path.is_dir():
            frame = _read_folder(path)
        elif name.endswith((".csv", ".csv.gz", ".tsv", ".tsv.gz")):
            frame = read_delimited(path, dialect, as_texts)
        elif name.endswith(".parquet"):
            frame = _read_parquet(path)
        elif name.endswith((".jsonl", ".jsonl.gz")):
            frame = _read_lines(path, dialect.encoding or "utf-8")
        elif name.endswith(".npz"):
            frame = _read_arrays(path)
        elif name.endswith(".arff"):
            frame = read_arff(path, dialect.encoding or "utf-8-sig")
        else:
            raise ValueError(f"{path} is of no known format: give {formats}")
    except UnicodeDecodeError as error:
        remedy = "convert it to UTF-8" if as_texts else "give its encoding (--encoding), or convert it to UTF-8"
        raise ValueError(f"{path} is not {error.encoding.upper()} text (byte {error.start}): {remedy}") from None
    except _UNREADABLE as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path} cannot be read: {reason}") from None
    for note in frame.attrs.get(NOTES, ()):
        warnings.warn(f"{path}: {note}", stacklevel=3)
    frame.columns = [str(c).lstrip("\ufeff").strip() for c in frame.columns]
    mark = next((m for m in ";\t|" if len(frame.columns) == 1 and m in frame.columns[0]), None)
    if mark:
        remedy = "separate columns by commas" + ("" if as_texts else ", or give the separator (--sep)")
        raise ValueError(f"{path} has one column, '{frame.columns[0]}': {remedy}")
    check_names(path, frame.columns)
    if frame.empty:
        raise ValueError(f"{path} has no rows: give a table with rows below the names of its columns")
    return frame


def _unpacked(path: Path) -> int:
    """Bytes that a compressed file holds, or that its table takes; counted only as far as matters."""
    name = path.name.lower()
    if name.endswith(".gz") and path.stat().st_size > UNPACKED // 1032:  # no deflate packs closer
        total = 0
        with gzip.open(path) as file:
            while total <= UNPACKED and (part := file.read(1 << 20)):
                total += len(part)
        return total
    if name.endswith(".npz") and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return sum(member.file_size for member in archive.infolist())
    if name.endswith(".parquet"):
        about = ParquetFile(path).metadata
        return 8 * about.num_rows * about.num_columns
    return 0


def _read_folder(path: Path) -> pd.DataFrame:
    from datasets import Dataset, load_from_disk

    loaded = load_from_disk(str(path))
    if not isinstance(loaded, Dataset):
        raise ValueError(f"{path} holds several splits ({', '.join(loaded)}): give the folder of one of them")
    return from_dataset(loaded, path)


def from_dataset(dataset: "Dataset", where: str | Path = "the data set") -> pd.DataFrame:
    """A Hugging Face data set as a data frame, with the columns that `set_format` hides too.

    Parameters
    ----------
    dataset
        Rows of one split.
    where
        What errors begin with.

    Returns
    -------
    pandas.DataFrame
        Classes by their names; `attrs["classes"]` has the names of each column of classes in order.

    Raises
    ------
    ValueError
        For a class that has no name.
    """
    from datasets import ClassLabel

    names = {column: kind.names for column, kind in (dataset.features or {}).items() if isinstance(kind, ClassLabel)}
    return _name_classes(where, dataset.with_format(None).to_pandas(), names)


def _read_parquet(path: Path) -> pd.DataFrame:
    """A table with its named index levels as columns; the names of classes that Hugging Face datasets wrote are in the
    metadata alone."""
    about = ParquetFile(path).schema_arrow.metadata or {}
    try:
        features = dict(json.loads(about[b"huggingface"])["info"]["features"])
    except (KeyError, TypeError, ValueError):
        features = {}
    labels = {c: kind for c, kind in features.items() if isinstance(kind, dict) and kind.get("_type") == "ClassLabel"}
    names = {c: _class_names(kind.get("names")) for c, kind in labels.items()}
    frame = pd.read_parquet(path)
    levels = [name for name in frame.index.names if name is not None]
    return _name_classes(path, frame.reset_index(level=levels) if levels else frame, names)


def _class_names(names: object) -> list[str]:
    """Names in a list, or by their numbers in a mapping, as older versions wrote them."""
    if isinstance(names, dict):
        return [str(name) for _, name in sorted(names.items(), key=lambda item: int(item[0]))]
    return [str(name) for name in names] if isinstance(names, list) else []


def _name_classes(where: str | Path, frame: pd.DataFrame, names: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """`frame` with names in place of the numbers of classes, None where a number is missing or below zero."""
    for column, classes in names.items():
        if column not in frame or not pd.api.types.is_numeric_dtype(frame[column]):
            continue
        numbers = frame[column].fillna(-1).astype(int)
        if numbers.max() >= len(classes):
            few = counted(len(classes), "class", "classes")
            held = f"column '{column}' holds class {numbers.max()}, but names only {few}"
            raise ValueError(f"{where}: {held}: correct its features")
        frame[column] = [classes[number] if number >= 0 else None for number in numbers]
    frame.attrs["classes"] = dict(names)
    return frame


def _read_lines(path: Path, encoding: str) -> pd.DataFrame:
    """JSON lines, texts that look like numbers or dates as they stand."""
    with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
        if file.read(100).lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"["):
            raise ValueError(f"{path} holds one JSON array: give one JSON object a line")
    try:
        return pd.read_json(path, lines=True, encoding=encoding, dtype=False)
    except UnicodeDecodeError:
        raise
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}: give one JSON object a line") from None


def _read_arrays(path: Path) -> pd.DataFrame:
    """Arrays features (n, d), labels (n,) and, if given, columns (d,) as columns and a last one 'label'.

    Pickled arrays could run code and are refused.
    """
    remedy = "save numbers and texts: np.savez(path, features=(n, d), labels=(n,))"
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is no npz archive: {remedy}")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files if name in ("features", "labels", "columns")}
    except ValueError:
        raise ValueError(f"{path} holds pickled objects, which are not opened: {remedy}") from None
    if not {"features", "labels"} <= set(arrays):
        raise ValueError(f"{path} lacks the array features or labels: {remedy}")
    features, labels = arrays["features"], arrays["labels"]
    columns = arrays.get("columns", np.array([f"f{i}" for i in range(features.shape[-1] if features.ndim else 0)]))
    if features.ndim != 2 or labels.shape != features.shape[:1] or columns.shape != features.shape[1:]:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise ValueError(f"{path} holds arrays that do not fit ({shapes}): {remedy}")
    if features.dtype.kind not in "biuf":
        raise ValueError(f"{path} holds features of type {features.dtype}: give numbers")
    frame = pd.DataFrame(features, columns=[str(c) for c in columns])
    return pd.concat([frame, pd.Series(labels, name="label")], axis=1)
