"""What a batch scores: a batch spec in YAML or from options, checked before anything runs."""

import glob
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pkgutil import iter_modules
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from transmeter import scorers
from transmeter.gain.metric_names import Metric
from transmeter.tables.specs import Dialect, stem
from transmeter.util.signatures import convert

MAX_BYTES = 10_000_000  # of a batch spec
FIXED = ("seconds", "independent")  # options of scorers by which a number would depend on the machine or other sources


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _named(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


def _at_path(value: object) -> object:
    return {"path": value} if isinstance(value, str) else value


class Files(BaseModel):
    """Files that are written alike.

    Attributes
    ----------
    path : str
        A file or a pattern as [NAME=]PATH[::LABEL].
    sep, decimal, encoding : str or None
        As in `transmeter.rank`; None: those of the batch.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    path: str
    sep: str | None = None
    decimal: str | None = None
    encoding: str | None = None


Listed = Annotated[list[Annotated[Files, BeforeValidator(_at_path)]], BeforeValidator(_listed), Field(min_length=1)]


class Scorer(BaseModel):
    """A scorer and its options.

    Attributes
    ----------
    name : str
        A file of `transmeter/scorers/`.
    set : dict
        Options by name.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    name: str
    set: dict[str, bool | int | float | str | None] = {}


class BatchSpec(BaseModel):
    """What a batch scores.

    Attributes
    ----------
    targets, sources : list of Files
        A path alone stands for files that are written as the batch says.
    scorers : list of Scorer
        A name alone stands for a scorer without options.
    label, key : str or None
        Label column of every file that has it; column that says what a row is about.
    sep, decimal, encoding, shots, repeats, metric, seed, match, encoder
        As in `transmeter.rank`.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    targets: Listed
    sources: Listed
    scorers: Annotated[list[Annotated[Scorer, BeforeValidator(_named)]], BeforeValidator(_listed)] = [
        Scorer(name="transmeter")
    ]
    label: str | None = None
    key: str | None = None
    sep: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    shots: Annotated[int, Field(ge=1)] | None = None
    repeats: Annotated[int, Field(ge=2)] | None = None
    metric: Metric = "balanced_accuracy"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    match: Literal["meaning", "name"] = "meaning"
    encoder: str | None = None


class Lines:
    """Where the keys and entries of a batch spec stand in its file, for errors; of options they stand nowhere.

    Parameters
    ----------
    path : Path or None
        The file.
    node : yaml.Node or None
        What was parsed.
    """

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


@dataclass(frozen=True)
class Plan:
    """A checked batch spec.

    Attributes
    ----------
    spec : BatchSpec
        As it was written.
    targets, sources : dict
        PATH[::LABEL], absolute, by name.
    dialects : dict
        How text files are written, by PATH[::LABEL].
    scorers : list
        (name, options) of each.
    cache : Path
        Folder for what is reused.
    """

    spec: BatchSpec
    targets: dict[str, str]
    sources: dict[str, str]
    dialects: dict[str, Dialect]
    scorers: list[tuple[str, dict[str, object]]]
    cache: Path


def plan(path: Path | None, options: Mapping[str, object], inside: bool, cache: Path) -> Plan:
    """Read and check a batch spec.

    Parameters
    ----------
    path : Path or None
        A YAML file; None: `options` alone say what is scored.
    options : mapping
        Keys of a batch spec, from the command line; None and () stand for nothing.
    inside : bool
        Whether the file may only name files of its folder or below.
    cache : Path
        Folder for what is reused.

    Returns
    -------
    Plan

    Raises
    ------
    ValueError
        For a file that cannot be read, is not a batch spec or names files that are not there or outside of its
        folder, and for options beside a file.
    """
    chosen = {k: list(v) if isinstance(v, tuple) else v for k, v in options.items() if v not in (None, ())}
    if path and chosen:
        raise ValueError(f"--{next(iter(chosen))} stands beside {path}: write it there, or give options alone")
    if path:
        spec, lines = read(path)
        root = path.absolute().parent
    else:
        if not (chosen.get("targets") and chosen.get("sources")):
            raise ValueError("give SPEC, a YAML file, or --targets and --sources")
        lines, root, inside = Lines(), Path.cwd(), False
        spec = check(chosen, lines)
    targets, sources, dialects = inputs(spec, root, inside, lines)
    if spec.encoder and (root / spec.encoder).exists():
        encoder = (root / spec.encoder).resolve()
        if inside and not encoder.is_relative_to(root.resolve()):
            raise lines.error(("encoder",), f"{spec.encoder} is outside of {root}: give --allow-outside")
        spec = spec.model_copy(update={"encoder": str(encoder)})
    return Plan(spec, targets, sources, dialects, scorer_options(spec, lines), cache.absolute())


def read(path: Path) -> tuple[BatchSpec, Lines]:
    """Read a batch spec.

    Parameters
    ----------
    path : Path
        A YAML file.

    Returns
    -------
    BatchSpec
    Lines
        Of the file.

    Raises
    ------
    ValueError
        With the line of what is wrong.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"{path} is larger than a batch spec may be ({MAX_BYTES:,} bytes): use patterns")
        text = path.read_text(encoding="utf-8")
        for event in yaml.parse(text, yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):  # few of them can stand for endless lists
                raise Lines(path).error((), f"aliases such as *{event.anchor} are not allowed: write it out")
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        content = loader.construct_document(node) if node else None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ValueError(f"{path}, line {line}: this is not YAML: {error.problem}") from None
    except (yaml.YAMLError, RecursionError, OverflowError) as error:
        raise ValueError(f"{path} cannot be read as YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no keys: give {', '.join(BatchSpec.model_fields)}")
    lines = Lines(path, node)
    counts = Counter(key.value for key, _ in node.value if isinstance(key.value, str))
    repeated = [key for key, count in counts.items() if count > 1]
    if repeated:
        raise lines.error((repeated[0],), f"key '{repeated[0]}' is given twice: keep one")
    return check(content, lines), lines


def check(content: Mapping[str, Any], lines: Lines) -> BatchSpec:
    """A batch spec from its keys.

    Parameters
    ----------
    content : mapping
        Values by key.
    lines : Lines
        Where they stand.

    Returns
    -------
    BatchSpec

    Raises
    ------
    ValueError
        For unknown keys, values of another type and out of range.
    """
    try:
        return BatchSpec.model_validate({str(k): v for k, v in content.items()})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = first["loc"]
        if first["type"] == "extra_forbidden":
            model = BatchSpec if len(place) == 1 else Scorer if "scorers" in place else Files
            message = f"key '{place[-1]}' is unknown: give {', '.join(model.model_fields)}"
        else:
            message = f"{'.'.join(map(str, place))} is {str(first['input'])[:60]!r}: {first['msg'].lower()}"
        raise lines.error(place, " ".join(message.split())) from None


def scorer_options(spec: BatchSpec, lines: Lines) -> list[tuple[str, dict[str, object]]]:
    """The scorers of a batch spec with their options.

    Parameters
    ----------
    spec : BatchSpec
        Whose scorers they are.
    lines : Lines
        Where they stand.

    Returns
    -------
    list
        (name, options) of each.

    Raises
    ------
    ValueError
        For unknown and repeated ones.
    """
    names = [m.name for m in iter_modules(scorers.__path__)]
    chosen: list[tuple[str, dict[str, object]]] = []
    for i, scorer in enumerate(spec.scorers):
        if scorer.name not in names:
            raise lines.error(("scorers", i), f"scorer '{scorer.name}' is unknown: give one of {', '.join(names)}")
        item = (scorer.name, _options(scorer, i, lines) if scorer.set else {})
        if item in chosen:
            raise lines.error(("scorers", i), f"scorer '{scorer.name}' is given twice with the same options: keep one")
        chosen.append(item)
    return chosen


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


def inputs(
    spec: BatchSpec, root: Path, inside: bool, lines: Lines
) -> tuple[dict[str, str], dict[str, str], dict[str, Dialect]]:
    """The files that the patterns of a batch spec name or match.

    Parameters
    ----------
    spec : BatchSpec
        Whose targets and sources may be patterns.
    root : Path
        Folder that relative paths start from.
    inside : bool
        Whether files outside of `root` are refused, symbolic links followed.
    lines : Lines
        Where the patterns stand.

    Returns
    -------
    tuple
        PATH[::LABEL], absolute, of the targets and of the sources by name; files of one name are called by their path.
        And how text files are written, by PATH[::LABEL].

    Raises
    ------
    ValueError
        For what matches nothing, lies outside, has the name of another or is to be read in two ways.
    """
    named: list[dict[str, str]] = []
    dialects: dict[str, Dialect] = {}
    for where in ("targets", "sources"):
        files: list[tuple[str | None, str, int]] = []
        for i, entry in enumerate(getattr(spec, where)):
            dialect = _dialect(spec, entry, (where, i), lines)
            for name, path in _matched(entry.path, (where, i), root, inside, lines):
                files.append((name, path, i))
                if dialects.setdefault(path, dialect) != dialect:
                    raise lines.error((where, i), f"{path} is given twice, to be read in two ways: give it alike")
        named.append(_distinct(files, where, lines))
    return named[0], named[1], dialects


def _dialect(spec: BatchSpec, entry: Files, place: tuple[str, int], lines: Lines) -> Dialect:
    values = {k: getattr(entry, k) or getattr(spec, k) for k in ("sep", "decimal", "encoding")}
    try:
        return Dialect(**values)
    except ValueError as error:
        own = any(getattr(entry, k) for k in values)
        raise lines.error(place if own else (str(error).split()[0],), str(error)) from None


def _matched(spec: str, place: tuple[str, int], root: Path, inside: bool, lines: Lines) -> list[tuple[str | None, str]]:
    """(name or None, PATH[::LABEL], absolute) of every file of [NAME=]PATH[::LABEL]; PATH may be a pattern."""
    name, equals, text = spec.partition("=")
    if not equals or (root / spec.partition("::")[0]).exists():
        name, text = "", spec
    pattern, _, label = text.partition("::")
    paths = [pattern] if (root / pattern).exists() else sorted(glob.glob(pattern, root_dir=root, recursive=True))
    if not pattern or not paths:
        raise lines.error(place, f"'{pattern}' matches no file in {root}: give a path or a pattern")
    if name and len(paths) > 1:
        raise lines.error(place, f"'{pattern}' matches {len(paths)} files that cannot all be called '{name}'")
    files = []
    for path in paths:
        full = (root / path).resolve()
        if inside and not full.is_relative_to(root.resolve()):
            raise lines.error(place, f"{path} is outside of {root}: move it there or give --allow-outside")
        files.append((name or None, f"{full}::{label}" if label else str(full)))
    return files


def _distinct(files: list[tuple[str | None, str, int]], where: str, lines: Lines) -> dict[str, str]:
    """PATH[::LABEL] by name, of (name or None, PATH[::LABEL], place among the patterns)."""
    counts = Counter(name or stem(spec.partition("::")[0]) for name, spec in {(n, s) for n, s, _ in files})
    distinct: dict[str, str] = {}
    for name, spec, i in files:
        short = stem(spec.partition("::")[0])
        name = name or (spec if counts[short] > 1 else short)
        if distinct.setdefault(name, spec) != spec:
            raise lines.error((where, i), f"two files are called '{name}': name them apart as NAME=PATH")
    return distinct
