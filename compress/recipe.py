"""A compression written down: a YAML file with the model, the data, and one step after the other."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import yaml

from compress.calibration.spec import MADE, split
from transmeter.util.suggestions import did_you_mean

KEYS = ("model", "steps", "out", "calibration", "tokens", "seed", "data", "metric")


@dataclass(frozen=True)
class Step:
    """A method and its options, as OPTION=VALUE."""

    method: str
    settings: tuple[str, ...]


@dataclass(frozen=True)
class Recipe:
    """model: folder or hub name; data: what it is measured on after every step, by `metric`. See pipeline.run."""

    model: str
    steps: list[Step]
    out: Path
    calibration: str | None = None
    tokens: int = 20_000
    seed: int = 0
    data: Path | None = None
    metric: str | None = None


def read(path: Path, methods: Collection[str]) -> Recipe:
    """The recipe in `path`; paths in it are relative to its folder. methods: the names that are known.

    Raises ValueError for what is not YAML, keys that are missing or unknown, and values of another type.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no keys: give {', '.join(KEYS)}")
    for key in found:
        if key not in KEYS:
            raise ValueError(f"{path}: key '{key}' is unknown{did_you_mean(str(key), KEYS)}: give {', '.join(KEYS)}")
    for key in KEYS[:3]:
        if not found.get(key):
            raise ValueError(f"{path} has no '{key}': give {', '.join(KEYS[:3])}")
    for key in ("tokens", "seed"):
        if key in found and (type(found[key]) is not int or found[key] < (key == "tokens")):
            raise ValueError(
                f"{path}: {key} is {found[key]!r}: give a whole number, 1 or more tokens, 0 or more as seed"
            )
    for key in KEYS:
        if key not in ("tokens", "seed", "steps") and key in found and not isinstance(found[key], str):
            raise ValueError(f"{path}: {key} is {found[key]!r}: give a text")
    if not isinstance(found["steps"], list):
        raise ValueError(f"{path}: steps is no list: give one entry a step, each with a method")
    steps = [_step(path, step, methods) for step in found.pop("steps")]
    folder = path.absolute().parent
    for key in ("out", "data"):
        if key in found:
            found[key] = folder / found[key]
    if "calibration" in found:
        found["calibration"] = ",".join(_placed(folder, part) for part in found["calibration"].split(","))
    if (folder / found["model"]).exists():  # else a hub name
        found["model"] = str(folder / found["model"])
    return Recipe(steps=steps, **found)


def _placed(folder: Path, part: str) -> str:
    """A part of a calibration (compress.calibration.spec.parse) with its path, if it is one, relative to `folder`."""
    what, tokens = split(part)
    placed = what if what in MADE else str(folder / what)
    return f"{placed}:{tokens}" if tokens else placed


def _step(path: Path, step: object, methods: Collection[str]) -> Step:
    if not isinstance(step, dict) or step.get("method") not in methods:
        given = step.get("method") if isinstance(step, dict) else step
        guess = did_you_mean(str(given), methods)
        raise ValueError(f"{path}: method '{given}' is unknown{guess}: give one of {', '.join(methods)}")
    options = {k: v for k, v in step.items() if k != "method"}
    return Step(step["method"], tuple(f"{k}={_text(v)}" for k, v in options.items()))


def _text(value: object) -> str:
    """A value as it would stand on the command line."""
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)
