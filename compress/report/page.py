"""The report: sections as one HTML page that loads nothing, for screens of all sizes, for paper, light and dark."""

from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

from compress.report import calibration, inputs, models, quality
from compress.report.charts import DARK, svg
from compress.report.inputs import Inputs, Json
from transmeter.report import sections as rankings
from transmeter.util import writing

STAGES = ("rank", "batch", "calibrate", "compress", "run", "sweep", "evaluate")  # in the order of work
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

    numbers = iter(range(10**6))

    def render(figure: Json) -> str:
        """The chart of a figure, ids of its own."""
        return svg(figure["chart"], f"f{next(numbers)}", figure["alt"])

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
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


def _stage(command: str) -> int:
    """Place of a command line in the order of work."""
    return next((STAGES.index(word) for word in command.split() if word in STAGES), len(STAGES))
