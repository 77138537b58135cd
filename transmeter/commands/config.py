"""Defaults of the command line from a TOML file: a section a command, a key an option."""

import tomllib
from pathlib import Path

import click

from transmeter.util.suggestions import did_you_mean

NAME = "transmeter.toml"  # read from the working directory where --config names no other
ORDERED = ("method", "set")  # their order is their meaning: `transmeter run` takes them from a recipe


def read(path: Path | None, group: click.Group) -> dict[str, dict[str, object]]:
    """click's default_map of the file, {} where none is named and none is in the working directory.

    Raises ValueError for a file that is missing or no TOML, and for commands and options that are unknown.
    """
    if path is None:
        path = Path(NAME)
        if not path.is_file():
            return {}
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist: give a TOML file with a section a command") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path} cannot be read as TOML: {error}") from None
    return {name: _section(path, name, section, group) for name, section in content.items()}


def _section(path: Path, name: str, section: object, group: click.Group) -> dict[str, object]:
    command = group.commands.get(name)
    if command is None or not isinstance(section, dict):
        guess = did_you_mean(name, group.commands)
        raise ValueError(f"{path}: [{name}] is not a command{guess}: give sections such as [rank]")
    options = {o.removeprefix("--"): p for p in command.params if isinstance(p, click.Option) for o in p.opts}
    ordered = {p.name for p in command.params} >= {"methods", "settings"}
    known = [o for o in options if not (ordered and o in ORDERED)]
    defaults: dict[str, object] = {}
    for key, value in section.items():
        option = key.replace("_", "-")
        if option not in known:
            guess = did_you_mean(option, known)
            raise ValueError(f"{path}: '{key}' is not an option of {name} to set here{guess}: give {', '.join(known)}")
        if options[option].multiple and not isinstance(value, list):
            raise ValueError(f"{path}: {key} of {name} may repeat: give a list")
        chosen = options[option]
        names_value = chosen.is_flag and not chosen.is_bool_flag  # --json, which is a value of --format
        defaults[str(chosen.name)] = chosen.flag_value if names_value and value is True else value
    return defaults
