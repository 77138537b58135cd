"""Many ways to compress one model on the same data: every method with every value of its options."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from compress import pipeline
from compress.evaluation import costs, pareto
from compress.evaluation.evaluate import EvaluationTask
from compress.evaluation.pareto import DENSE, Point
from compress.model import io
from compress.pipeline import Machine, Step
from compress.report import charts
from transmeter.util import writing


def name(step: Step) -> str:
    """Name the folder of a step's model; transformers takes it for the name of a module.

    Parameters
    ----------
    step
        Method and options.

    Returns
    -------
    str
        Letters, digits and underscores.
    """
    return re.sub(r"\W", "_", "__".join([step.method, *(f"{k}_{v}" for k, v in step.options.items())]))


def run(
    model: str,
    steps: Sequence[Step],
    texts: str | Path | None,
    out: Path,
    task: EvaluationTask,
    *,
    tokens: int,
    length: int | None = None,
    pack: bool = False,
    seed: int,
    machine: Machine,
    latency: bool = False,
    command: str | None = None,
    tell: Callable[[str], None],
) -> dict[str, object]:
    """Compress a model by every step, each into a folder of its own, and write sweep.json and front.svg.

    What is finished already is not done again, so that a stopped sweep goes on. A step that fails is noted and does not
    end the others.

    Parameters
    ----------
    model
        Folder, GGUF file or name on the Hub.
    steps
        Each is tried by itself.
    texts
        To calibrate on, as `spec.parse` takes them; None where no step needs any.
    out
        Folder, new or of a stopped sweep.
    task
        What all models are measured on.
    tokens
        Number of tokens to calibrate on.
    length, pack
        Of calibration sequences, as of `pipeline.run`.
    seed
        Of all sampling.
    machine
        What it runs on.
    latency
        Whether to time a forward of the dense model and of every other too, one after the other in the end, and to
        write front_latency.svg.
    command
        The command line, for sweep.json.
    tell
        Gets a line per step.

    Returns
    -------
    dict
        Content of sweep.json.

    Raises
    ------
    ValueError
        The folder holds another sweep, or no step works.
    """
    data = str(task.file)
    about = {
        "model": model,
        "texts": str(texts),
        "tokens": tokens,
        "length": length,
        "pack": pack,
        "seed": seed,
        "metric": task.metric,
        "data": data,
        **task.windows(),
    }
    _begin(out, about)
    rows: list[dict[str, Any]] = []
    for step in steps:
        folder = out / name(step)
        try:
            card = _card(folder) or pipeline.run(
                model,
                [step],
                texts,
                folder,
                tokens=tokens,
                length=length,
                pack=pack,
                seed=seed,
                machine=machine,
                task=task,
                resume=True,
            )
        except (ValueError, RuntimeError) as error:
            rows.append({**asdict(step), "error": str(error)})
            tell(f"{name(step)}: {error}")
            continue
        done = card["steps"][0]
        rows.append({**done, "before": card["before"], "folder": folder.name})
        tell(f"{name(step)}: {done['after'][task.metric]['value']:.4g} at {done['after']['bytes']:,} bytes")
    whole = [row for row in rows if "error" not in row]
    if not whole:
        raise ValueError(f"nothing could be compressed, at last: {rows[-1]['error']}")
    dense = whole[0]["before"]
    if latency:
        dense = dense | {"latency_seconds": _latency(model)}
        for row in whole:
            row["after"]["latency_seconds"] = _latency(str(out / row["folder"]))
    summary = _summary(whole, dense, task.metric)
    result = {**about, "command": command, "before": dense, **summary, "rows": rows}
    writing.write_text(out / "sweep.json", json.dumps(result, indent=1))
    models = [(DENSE, dense), *((row["method"], row["after"]) for row in whole)]
    for file, cost in (("front.svg", "megabytes"), *([("front_latency.svg", "milliseconds")] if latency else [])):
        description = f"{task.metric} by {charts.COSTS[cost][0]}"
        writing.write_text(out / file, charts.picture(charts.pareto_chart(models, task.metric, cost), description))
    return result


def _latency(model: str) -> dict[str, float | int]:
    return costs.latency(io.load(model, quantized=True)[0])


def _summary(rows: Sequence[dict[str, Any]], dense: dict[str, Any], metric: str) -> dict[str, Any]:
    """Areas under the Pareto fronts by size; notes in every row whether it is on the front by size, and by time."""
    points = [pareto.point(row["method"], dense, row["after"], metric) for row in rows]
    areas = {m: pareto.area([p for p in points if p.method == m]) for m in dict.fromkeys(p.method for p in points)}
    for row, found in zip(rows, _best(points)):
        row["front"] = found
    if "latency_seconds" in dense:
        whole = dense["latency_seconds"]["median"]
        timed = [
            Point(p.method, row["after"]["latency_seconds"]["median"] / whole, p.quality)
            for row, p in zip(rows, points)
        ]
        for row, found in zip(rows, _best(timed)):
            row["front_latency"] = found
    return {"area": pareto.area(points), "areas": areas}


def _best(points: Sequence[Point]) -> list[bool]:
    """Whether no other point, that of the dense model included, beats each."""
    best = {(p.size, p.quality) for p in pareto.best([*points, Point(DENSE, 1.0, 1.0)])}
    return [(p.size, p.quality) in best for p in points]


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
        raise ValueError(f"{out} exists already and is not a sweep: give a new folder")
    out.mkdir(exist_ok=True)
    writing.write_json(file, about)


def _card(folder: Path) -> dict | None:
    file = folder / "compression.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
