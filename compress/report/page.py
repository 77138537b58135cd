"""The report: sections as one HTML page that loads nothing, for screens of all sizes, for paper, light and dark."""

import re
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

from compress.report import calibration, inputs, models, quality
from compress.report.charts import DARK, svg
from compress.report.inputs import Inputs, Json
from transmeter.report import sections as rankings
from transmeter.util import writing

STAGES = ("rank", "batch", "calibrate", "compress", "run", "sweep", "evaluate")  # in the order of work
COLUMNS = 8  # more of them do not fit beside each other
OPTION = re.compile(r"(?<=\s)--?[a-z][\w-]*(?![^<]*>)")  # of a command line, not in a tag: no line ends within it
WHOLE = r'<span class="option">\g<0></span>'
BUILDERS: tuple[Callable[[Inputs], list[Json]], ...] = (calibration.sections, quality.sections, models.sections)


def report(paths: Sequence[Path], out: Path, command: str | None = None) -> None:
    """Write one page of everything that was measured.

    Parameters
    ----------
    paths
        ranking.json, result.json, sweep.json, stores of batch, folders of calibrate, compress and sweep.
    out
        The HTML file.
    command
        The line that made the page; None: it was made in Python.

    Raises
    ------
    ValueError
        An input is none of these, or is not whole.
    """
    ranked, rest = rankings.sections(paths)
    write([*ranked, *sections(rest)], out, command)


def sections(paths: Sequence[Path]) -> list[Json]:
    """Sections of a report on models.

    Parameters
    ----------
    paths
        Folders of calibrate, compress and sweep, files of evaluate and sweep.

    Returns
    -------
    list
        Dicts: title, lead (one sentence), notes (sentences), figures ({chart, alt, caption, and perhaps table}), tables
        ({caption, heads, rows}), html (trusted), preformatted, parts (sections inside it), commands; all but the title
        may be missing.

    Raises
    ------
    ValueError
        An input is none of these, or is not whole.
    """
    found = inputs.read(paths)
    try:
        return [section for build in BUILDERS for section in build(found)]
    except (KeyError, TypeError, AttributeError, IndexError, ZeroDivisionError) as error:
        listed = ", ".join(map(str, paths))
        raise ValueError(f"one of {listed} is not as this version writes it ({error!r}): make it anew") from None


def write(parts: Sequence[Json], out: Path, command: str | None = None) -> None:
    """Write a page.

    Parameters
    ----------
    parts
        Its sections.
    out
        The HTML file.
    command
        The line that made it.
    """
    from jinja2 import Environment
    from markupsafe import Markup, escape

    numbers = iter(range(10**6))

    def render(figure: Json) -> str:
        """The chart of a figure, ids of its own."""
        return svg(figure["chart"], f"f{next(numbers)}", figure["alt"])

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["turned"] = _turned
    environment.filters["unbroken"] = lambda text: Markup(OPTION.sub(WHOLE, str(escape(text))))
    template = environment.from_string(resources.files("compress.report").joinpath("page.html").read_text("utf-8"))
    known = dict.fromkeys(c for part in parts for c in part.get("commands", []) if c)
    page = template.render(
        sections=parts,
        render=render,
        dark=DARK,
        commands=sorted(known, key=_stage) + ([command] if command else []),
        unknown=[part["title"] for part in parts if None in part.get("commands", [])],
    )
    writing.write_text(out, page.encode("utf-8", "replace").decode())


def _turned(table: Json) -> Json:
    """A table, or with a column for every row where it has many columns and fewer rows, so that it fits a screen."""
    heads, rows = table["heads"], table["rows"]
    if len(heads) <= COLUMNS or len(rows) + 1 >= len(heads) or any(len(row) < len(heads) for row in rows):
        return table
    first, *rest = zip(heads, *rows, strict=True)
    return {**table, "heads": [*first], "rows": [[*row] for row in rest]}


def _stage(command: str) -> int:
    """Place of a command line in the order of work."""
    return next((STAGES.index(word) for word in command.split() if word in STAGES), len(STAGES))
