"""What a report is made from: folders of calibrate, compress and sweep, and files of evaluate and sweep."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transmeter.util.suggestions import absent

REMEDY = "give ranking.json, result.json, sweep.json, a store of batch, or a folder of calibrate, compress or sweep"
RESULT = {"model", "data", "parameters", "bytes"}
EXAMPLES = 10
TASKS = {"model", "tasks", "parameters", "bytes"}
SWEEP = {"model", "data", "metric", "before", "rows"}

Json = dict[str, Any]


@dataclass(frozen=True)
class Folder:
    """A compressed model.

    Attributes
    ----------
    path
        Of the folder.
    card, config
        compression.json and config.json.
    readme
        README.md, None where there is none.
    """

    path: Path
    card: Json
    config: Json
    readme: str | None


@dataclass(frozen=True)
class Inputs:
    """Everything that was found, as it was written.

    Attributes
    ----------
    calibrations, folders, sweeps, results
        Of calibrate, compress, sweep and evaluate.
    examples
        Of every calibration `EXAMPLES` texts at most, each with the candidate that it is of.
    tasks
        Of evaluate --task.
    """

    calibrations: list[Json] = field(default_factory=list)
    examples: list[list[tuple[str, str]]] = field(default_factory=list)
    folders: list[Folder] = field(default_factory=list)
    sweeps: list[Json] = field(default_factory=list)
    results: list[Json] = field(default_factory=list)
    tasks: list[Json] = field(default_factory=list)


def read(paths: Sequence[Path]) -> Inputs:
    """Read what a report is made from.

    Parameters
    ----------
    paths
        Files and folders.

    Returns
    -------
    Inputs
        All of them.

    Raises
    ------
    ValueError
        A path does not exist, cannot be read or holds nothing to report.
    """
    found = Inputs()
    for path in paths:
        before = [len(kind) for kind in vars(found).values()]
        if not path.exists():
            raise ValueError(f"{absent(path)}: {REMEDY}")
        if path.is_dir():
            _read_folder(path, found)
        else:
            _read_file(path, found)
        if [len(kind) for kind in vars(found).values()] == before:
            raise ValueError(f"{path} is nothing to report: {REMEDY}")
    return found


def _read_folder(path: Path, found: Inputs) -> None:
    if (path / "provenance.json").is_file():
        found.calibrations.append(_object(path / "provenance.json"))
        found.examples.append(_examples(path))
    if (path / "sweep.json").is_file():
        found.sweeps.append(_object(path / "sweep.json"))
    if (path / "compression.json").is_file():
        config = _object(path / "config.json") if (path / "config.json").is_file() else {}
        readme = path / "README.md"
        text = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else None
        found.folders.append(Folder(path, _object(path / "compression.json"), config, text))


def _examples(path: Path) -> list[tuple[str, str]]:
    """Some texts of a data set of calibrate, from its beginning to its end; none where the data set is not there."""
    if not (path / "dataset_info.json").is_file():
        return []
    from datasets import load_from_disk

    try:
        rows = load_from_disk(str(path))
        places = sorted({round(i * (len(rows) - 1) / (EXAMPLES - 1)) for i in range(EXAMPLES)}) if len(rows) else []
        return [(str(row["source"]), str(row["text"])) for row in rows.select(places)]
    except (OSError, ValueError, KeyError) as error:
        why = str(error).splitlines()[0]
        raise ValueError(f"{path} is no data set of calibrate that can be read ({why}): make it anew") from None


def _read_file(path: Path, found: Inputs) -> None:
    content = _json(path)
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, dict) and RESULT <= set(part):
            found.results.append(part)
        elif isinstance(part, dict) and TASKS <= set(part):
            found.tasks.append(part)
        elif isinstance(part, dict) and SWEEP <= set(part):
            found.sweeps.append(part)


def _object(path: Path) -> Json:
    content = _json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object: it was not written by transmeter")
    return content


def _json(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {str(error).splitlines()[0]}") from None
