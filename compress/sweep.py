"""Many ways to compress one model on the same data: every method with every value of its options."""

import itertools
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from compress import pipeline
from compress.evaluation import pareto
from compress.evaluation.evaluate import EvaluationTask
from compress.pipeline import Machine, Step
from compress.report import charts
from transmeter.util import writing

Cell = tuple[str, Step]  # name of its folder


def cells(methods: Sequence[tuple[str, Callable, Sequence[str]]]) -> list[tuple[str, Callable, tuple[str, ...]]]:
    """Every method with every combination of the values in its settings, OPTION=VALUE,VALUE,..."""
    found = []
    for method, function, settings in methods:
        choices = [[f"{s.partition('=')[0]}={v}" for v in s.partition("=")[2].split(",")] for s in settings]
        found.extend((method, function, chosen) for chosen in itertools.product(*choices))
    return found


def name(step: Step) -> str:
    """The folder of a step's model; transformers takes it for the name of a module."""
    return re.sub(r"\W", "_", "__".join([step.method, *(f"{k}_{v}" for k, v in step.options.items())]))


def run(
    model: str,
    steps: Sequence[Step],
    texts: str | Path | None,
    out: Path,
    task: EvaluationTask,
    *,
    tokens: int,
    seed: int,
    machine: Machine,
    command: str | None = None,
    tell: Callable[[str], None],
) -> dict[str, object]:
    """Compress `model` by every step, each into a folder of its own in `out`, and write sweep.json and front.svg there.

    What is finished in `out` already is not done again, so that a stopped sweep goes on. A step that fails is noted and
    does not end the others. Raises ValueError where `out` holds another sweep, or where no step works.
    """
    about = {"model": model, "texts": str(texts), "tokens": tokens, "seed": seed, "metric": task.metric}
    about |= {"data": str(task.file)}
    _begin(out, about)
    rows: list[dict[str, object]] = []
    for step in steps:
        folder = out / name(step)
        try:
            card = _card(folder) or pipeline.run(
                model, [step], texts, folder, tokens=tokens, seed=seed, machine=machine, task=task, resume=True
            )
        except (ValueError, RuntimeError) as error:
            rows.append({**asdict(step), "error": str(error)})
            tell(f"{name(step)}: {error}")
            continue
        done = card["steps"][0]
        rows.append({**done, "before": card["before"], "folder": folder.name})
        tell(f"{name(step)}: {done['after'][task.metric]['value']:.4g} at {done['after']['bytes']:,} bytes")
    kept = [r for r in rows if "error" not in r]
    if not kept:
        raise ValueError(f"nothing could be compressed, at last: {rows[-1]['error']}")
    points = [pareto.point(r["method"], r["before"], r["after"], task.metric) for r in kept]
    methods = dict.fromkeys(p.method for p in points)
    areas = {m: pareto.area([p for p in points if p.method == m]) for m in methods}
    best = {(p.size, p.quality) for p in pareto.best(points)}
    for row, p in zip(kept, points):
        row["front"] = (p.size, p.quality) in best
    found = about | {"command": command, "before": kept[0]["before"]}
    found |= {"area": pareto.area(points), "areas": areas, "rows": rows}
    writing.write_text(out / "sweep.json", json.dumps(found, indent=1))
    models = [pareto.measured(r["method"], r["after"], task.metric) for r in kept]
    drawn = pareto.chart([pareto.measured(pareto.DENSE, kept[0]["before"], task.metric), *models], task.metric)
    writing.write_text(out / "front.svg", charts.svg(drawn, alt=f"{task.metric} by size"))
    return found


def _begin(out: Path, about: dict[str, object]) -> None:
    """Make `out`, or see that it is of the same sweep."""
    file = out / "about.json"
    if file.exists():
        before = json.loads(file.read_text(encoding="utf-8"))
        other = next((k for k in about if before.get(k) != about[k]), None)
        if other:
            raise ValueError(f"{out} holds a sweep of another {other} ({before.get(other)}): give a new folder")
        return
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} exists already and is no sweep: give a new folder")
    out.mkdir(exist_ok=True)
    writing.write_json(file, about)


def _card(folder: Path) -> dict | None:
    file = folder / "compression.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
