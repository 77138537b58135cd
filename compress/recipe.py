"""A compression written down: a YAML file with the model, the data, and one step after the other."""

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from compress.calibration.spec import GENERATED, split
from transmeter.util.arguments import LARGEST_SEED, one_of, shown
from transmeter.util.suggestions import did_you_mean

NEEDED = "model, steps, out"
NUMBERS = "give a whole number, 1 or more tokens, 0 or more as seed"
WHOLE, SWITCH = "give a whole number of tokens, 2 or more", "give true or false"
REMEDIES = {
    "tokens": NUMBERS,
    "seed": NUMBERS,
    "length": WHOLE,
    "window": WHOLE,
    "stride": "give a whole number of tokens, 1 or more",
    "pack": SWITCH,
    "apart": SWITCH,
    "steps": "give a list with one entry per step, each with a method",
}


class Step(BaseModel):
    """A method and its options.

    Attributes
    ----------
    method
        Its name.
    settings
        OPTION=VALUE texts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    method: str
    settings: tuple[str, ...] = ()


def _step(value: object) -> object:
    """A step of a recipe, whose keys beside method are options."""
    if isinstance(value, Step):
        return value
    if not isinstance(value, dict):
        raise ValueError
    settings = tuple(f"{k}={_text(v)}" for k, v in value.items() if k != "method")
    return Step(method=str(value.get("method")), settings=settings)


def _text(value: object) -> str:
    """A value as it would stand on the command line."""
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


class Recipe(BaseModel):
    """What is to be compressed, and how; see pipeline.run.

    Attributes
    ----------
    model
        Folder, GGUF file or name on the Hub.
    steps
        In order.
    out
        New folder.
    calibration
        As spec.parse takes it, None where no step needs texts.
    tokens
        Number of tokens to calibrate on.
    length, pack
        Largest number of tokens of a calibration sequence, None: as the model wants it; and whether texts are joined.
    seed
        Of all sampling.
    data, metric
        What the model is measured on after every step, and by what; None: on nothing, by the first metric.
    window, stride, apart
        Of perplexity, as of `compress.evaluate`.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    model: Annotated[str, Field(min_length=1)]
    steps: Annotated[list[Annotated[Step, BeforeValidator(_step)]], Field(min_length=1)]
    out: Annotated[Path, Field(strict=False)]
    calibration: str | None = None
    tokens: Annotated[int, Field(ge=1)] = 20_000
    length: Annotated[int | None, Field(ge=2)] = None
    pack: bool = False
    seed: Annotated[int, Field(ge=0, le=LARGEST_SEED)] = 0
    data: Annotated[Path | None, Field(strict=False)] = None
    metric: str | None = None
    window: Annotated[int | None, Field(ge=2)] = None
    stride: Annotated[int | None, Field(ge=1)] = None
    apart: bool = False


def read(path: Path, methods: Collection[str]) -> Recipe:
    """Read a recipe.

    Parameters
    ----------
    path
        YAML file; paths in it are relative to its folder.
    methods
        Names of all methods.

    Returns
    -------
    Recipe
        With paths that hold everywhere.

    Raises
    ------
    ValueError
        The file is not YAML, keys are missing or unknown, or a value is of another type.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no keys: give {', '.join(Recipe.model_fields)}")
    try:
        recipe = Recipe.model_validate({str(key): value for key, value in content.items()})
    except ValidationError as error:
        raise ValueError(f"{path}{_reason(error)}") from None
    for step in recipe.steps:
        one_of(f"{path}: method", step.method, methods)
    folder = path.absolute().parent
    found: dict[str, Any] = {"out": folder / recipe.out, "data": recipe.data and folder / recipe.data}
    if recipe.calibration:
        found["calibration"] = ",".join(_located(folder, part) for part in recipe.calibration.split(","))
    if (folder / recipe.model).exists():  # else a name on the Hub
        found["model"] = str(folder / recipe.model)
    return recipe.model_copy(update=found)


def _reason(error: ValidationError) -> str:
    """What is wrong first, in words of recipes."""
    first = error.errors(include_url=False)[0]
    key = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        keys = Recipe.model_fields
        return f": key '{key}' is unknown{did_you_mean(key, keys)}: give {', '.join(keys)}"
    if first["type"] in ("missing", "too_short", "string_too_short"):
        return f" has no '{key}': give {NEEDED}"
    return f": {key} is {shown(first['input'])}: {REMEDIES.get(key, 'give a text')}"


def _located(folder: Path, part: str) -> str:
    """A part of a calibration with its path, if it is one, relative to `folder`."""
    what, tokens = split(part)
    located = what if what in GENERATED else str(folder / what)
    return f"{located}:{tokens}" if tokens else located
