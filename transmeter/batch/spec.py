"""What a batch scores: a job in YAML or from options, checked before anything runs."""

import glob
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from pkgutil import iter_modules
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from transmeter import scorers
from transmeter.tables.specs import stem
from transmeter.util.signatures import convert

MAX_BYTES = 10_000_000  # of a job file
FIXED = ("seconds", "independent")  # options of scorers by which a number would depend on the machine or other sources


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _named(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


class Scorer(BaseModel):
    """A scorer and its options."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    name: str
    set: dict[str, bool | int | float | str | None] = {}


class Job(BaseModel):
    """targets, sources: files or patterns as [NAME=]PATH[::LABEL]; the rest as in `ranking.rank`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    targets: Annotated[list[str], BeforeValidator(_listed), Field(min_length=1)]
    sources: Annotated[list[str], BeforeValidator(_listed), Field(min_length=1)]
    scorers: Annotated[list[Annotated[Scorer, BeforeValidator(_named)]], BeforeValidator(_listed)] = [
        Scorer(name="transmeter")
    ]
    label: str | None = None
    key: str | None = None
    shots: Annotated[int, Field(ge=1)] | None = None
    repeats: Annotated[int, Field(ge=2)] | None = None
    metric: Literal["balanced_accuracy", "accuracy"] = "balanced_accuracy"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    match: Literal["meaning", "name"] = "meaning"
    encoder: str | None = None


class Lines:
    """Where the keys and entries of a job stand in its file, for errors; a job from options has none."""

    def __init__(self, path: Path | None = None, node: yaml.Node | None = None):
        self.path, self.node = path, node

    def error(self, place: Sequence[str | int], message: str) -> ValueError:
        """`message` with the line of the entry at `place`, such as ("scorers", 0, "name")."""
        if self.path is None:
            return ValueError(message)
        node = self.node
        line = node.start_mark.line + 1 if node else 1
        for step in place:
            if isinstance(node, yaml.MappingNode):
                pair = next(((k, v) for k, v in node.value if k.value == step), None)
                if pair is None:
                    break
                line, node = pair[0].start_mark.line + 1, pair[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
                line = node.start_mark.line + 1
        return ValueError(f"{self.path}, line {line}: {message}")


def read(path: Path) -> tuple[Job, Lines]:
    """The job in the YAML file `path`. Raises ValueError with the line of what is wrong."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"{path} is larger than a job may be ({MAX_BYTES:,} bytes): use patterns")
        text = path.read_text(encoding="utf-8")
        for event in yaml.parse(text, yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):  # few of them can stand for endless lists
                raise Lines(path).error((), f"aliases such as *{event.anchor} are not allowed: write it out")
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        found = loader.construct_document(node) if node else None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ValueError(f"{path}, line {line}: this is not YAML: {error.problem}") from None
    except (yaml.YAMLError, RecursionError, OverflowError) as error:
        raise ValueError(f"{path} cannot be read as YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no keys: give {', '.join(Job.model_fields)}")
    lines = Lines(path, node)
    counts = Counter(key.value for key, _ in node.value if isinstance(key.value, str))
    repeated = [key for key, count in counts.items() if count > 1]
    if repeated:
        raise lines.error((repeated[0],), f"key '{repeated[0]}' is given twice: keep one")
    return check(found, lines), lines


def check(found: dict[str, Any], lines: Lines) -> Job:
    """The job that `found` describes. Raises ValueError for unknown keys, values of another type and out of range."""
    try:
        return Job.model_validate({str(k): v for k, v in found.items()})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = first["loc"]
        if first["type"] == "extra_forbidden":
            model = Scorer if "scorers" in place else Job
            message = f"key '{place[-1]}' is unknown: give {', '.join(model.model_fields)}"
        else:
            message = f"{'.'.join(map(str, place))} is {str(first['input'])[:60]!r}: {first['msg'].lower()}"
        raise lines.error(place, " ".join(message.split())) from None


def options(job: Job, lines: Lines) -> list[tuple[str, dict[str, object]]]:
    """Name and options of every scorer of the job. Raises ValueError for unknown and repeated ones."""
    known, found = [m.name for m in iter_modules(scorers.__path__)], []
    for i, scorer in enumerate(job.scorers):
        if scorer.name not in known:
            raise lines.error(("scorers", i), f"scorer '{scorer.name}' is unknown: give one of {', '.join(known)}")
        found.append((scorer.name, _options(scorer, i, lines) if scorer.set else {}))
        if found[-1] in found[:-1]:
            raise lines.error(("scorers", i), f"scorer '{scorer.name}' is given twice with the same options: keep one")
    return found


def _options(scorer: Scorer, i: int, lines: Lines) -> dict[str, object]:
    for name in FIXED:
        if name in scorer.set:
            raise lines.error(("scorers", i, "set", name), f"{name} is fixed in a batch: leave it out")
    function = scorers.scorer_signatures()[scorer.name]
    try:
        return convert(function, tuple(f"{k}={_spelled(v)}" for k, v in scorer.set.items()), scorers.SHARED)
    except ValueError as error:
        raise lines.error(("scorers", i, "set"), str(error)) from None


def _spelled(value: object) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def inputs(specs: Sequence[str], where: str, root: Path, inside: bool, lines: Lines) -> dict[str, str]:
    """Name and `PATH[::LABEL]`, absolute, of every file that `specs` name or match; where: targets or sources.

    inside: whether files outside of `root` are refused, symbolic links followed. Files of one name are called by
    their path. Raises ValueError for what matches nothing, lies outside or has the name of another.
    """
    found: list[tuple[str | None, str, int]] = []
    for i, spec in enumerate(specs):
        name, equals, text = spec.partition("=")
        if not equals or (root / spec.partition("::")[0]).exists():
            name, text = "", spec
        pattern, _, label = text.partition("::")
        paths = [pattern] if (root / pattern).exists() else sorted(glob.glob(pattern, root_dir=root, recursive=True))
        if not pattern or not paths:
            raise lines.error((where, i), f"'{pattern}' matches no file in {root}: give a path or a pattern")
        if name and len(paths) > 1:
            raise lines.error((where, i), f"'{pattern}' matches {len(paths)} files that cannot all be called '{name}'")
        for path in paths:
            full = (root / path).resolve()
            if inside and not full.is_relative_to(root.resolve()):
                raise lines.error((where, i), f"{path} is outside of {root}: move it there or give --allow-outside")
            found.append((name or None, f"{full}::{label}" if label else str(full), i))
    return _distinct(found, where, root, lines)


def _distinct(found: list[tuple[str | None, str, int]], where: str, root: Path, lines: Lines) -> dict[str, str]:
    called = {(name, spec): name or stem(spec.partition("::")[0]) for name, spec, _ in found}
    usual = Counter(called.values())
    named: dict[str, str] = {}
    for name, spec, i in found:
        called_so = called[name, spec]
        if name is None and usual[called_so] > 1:
            called_so = spec
        if named.setdefault(called_so, spec) != spec:
            raise lines.error((where, i), f"two files are called '{called_so}': name them apart as NAME=PATH")
    return named
