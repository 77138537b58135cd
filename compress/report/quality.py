"""What models reach at which size and speed: every model that was measured by one metric on one file."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compress.evaluation import pareto
from compress.evaluation.metrics import LOWER
from compress.evaluation.pareto import DENSE
from compress.report.charts import COSTS, cost_of, pareto_chart
from compress.report.inputs import Folder, Inputs, Json
from compress.report.tables import COLUMNS, KNOWN, NEAR, cell, change, interval, near, options, windows
from transmeter.util.counts import counted


def sections(found: Inputs) -> list[Json]:
    """Sections on what models reach.

    Parameters
    ----------
    found
        What the report is made from.

    Returns
    -------
    list
        One for every (metric, data file, windows) of the results and sweeps, and one for tasks.
    """
    groups: dict[tuple[str, str, str], dict[str, tuple[str, Json]]] = defaultdict(dict)
    commands: dict[tuple[str, str, str], list[str | None]] = defaultdict(list)
    failed: dict[tuple[str, str, str], list[list[str]]] = defaultdict(list)
    for result in found.results:
        metric = next((m for m in KNOWN if m in result), None)
        if metric is None:
            raise ValueError(f"the result of {result['model']} has none of the metrics {', '.join(KNOWN)}")
        key = metric, str(result["data"]), windows(result)
        group = groups[key]
        commands[key].append(result.get("command"))
        if result.get("baseline"):
            group[result["baseline"]["model"]] = DENSE, result["baseline"]
        steps = result.get("steps") or next((f.card["steps"] for f in found.folders if is_of(result, f)), [])
        method = " + ".join(step["method"] for step in steps)
        group[result["model"]] = method or Path(result["model"]).name, result
    for sweep in found.sweeps:
        key = sweep["metric"], str(sweep["data"]), windows(sweep)
        group = groups[key]
        commands[key].append(sweep.get("command"))
        group.setdefault(sweep["model"], (DENSE, {"model": sweep["model"], **sweep["before"]}))
        for row in sweep["rows"]:
            name = f"{row['method']} {options(row)}".strip()
            if "error" in row:
                failed[key].append([name, str(row["error"])])
                continue
            group[name] = row["method"], {**row["after"], "compression_seconds": row["seconds"]}
    sections = [{**_section(*key, group), "commands": commands[key]} for key, group in groups.items()]
    for section, key in zip(sections, groups):
        if failed[key]:
            heads = ["method", "reason"]
            section["tables"].append({"caption": "Tried and failed", "heads": heads, "rows": failed[key]})
    return sections + ([_tasks(found.tasks)] if found.tasks else [])


def is_of(result: Json, folder: Folder) -> bool:
    """Tell whether a result is of the model in a folder.

    Parameters
    ----------
    result
        Of a model.
    folder
        Of a compressed model.

    Returns
    -------
    bool
        By their paths.
    """
    return Path(result["model"]).resolve() == folder.path.resolve()


def _section(metric: str, data: str, how: str, group: dict[str, tuple[str, Json]]) -> Json:
    title = metric.replace("_", " ")
    known = {cost: sum(cost_of(r, cost) is not None for _, r in group.values()) for cost in COSTS}
    charted = [cost for cost, least in (("megabytes", 1), ("milliseconds", 2)) if known[cost] >= least]
    figures = [_figure(group, metric, cost) for cost in charted]
    columns = [name for name in COLUMNS if any(cell(name, r) for _, r in group.values())]
    paired = ["change (95 %, paired)"] if any(change(r) for _, r in group.values()) else []
    nearness = [name for name in NEAR if any(near(name, r) for _, r in group.values())]
    rows = []
    for name, (method, r) in sorted(group.items(), key=lambda item: -(item[1][1].get("bytes") or 0)):
        row = [name, "before" if method == DENSE else method, interval(r[metric]), *([change(r)] if paired else [])]
        rows.append([*row, *(near(name, r) for name in nearness), *(cell(column, r) for column in columns)])
    heads = ["model", "method", f"{title} (95 %)", *paired, *nearness, *columns]
    return {
        "title": f"{title.capitalize()} and size, {Path(data).name}",
        "lead": _lead(metric, group),
        "figures": figures,
        "tables": [{"caption": f"Models measured on {data}{how}", "heads": heads, "rows": rows}],
    }


def _tasks(results: Sequence[Json]) -> Json:
    """What models reach on tasks of the lm-evaluation-harness, and what that is of their baselines."""
    rows = {}
    for result in results:
        for r in (result.get("baseline"), result):
            for task, found in (r or {}).get("tasks", {}).items():
                for metric, value in found.items():
                    left = r.get("recovery_percent", {}).get(task, {}).get(metric)
                    about = [interval(value), interval(left, ".1f") if left else "", cell("MB", r) or ""]
                    rows[r["model"], task, metric] = [r["model"], task, metric, *about]
    heads = ["model", "task", "metric", "value (95 %)", "of its baseline, % (95 %, paired)", "MB"]
    caption = "Tasks of the lm-evaluation-harness; the interval of a share is that of the same documents"
    models = counted(len({model for model, *_ in rows}), "model")
    tasks = counted(len({task for _, task, _ in rows}), "task")
    return {
        "title": "Tasks",
        "lead": f"{models} on {tasks}.",
        "tables": [{"caption": caption, "heads": heads, "rows": list(rows.values())}],
        "commands": [result.get("command") for result in results],
    }


def _lead(metric: str, group: dict[str, tuple[str, Json]]) -> str:
    dense = next((r for method, r in group.values() if method == DENSE), None)
    others = [(Path(name).name, r) for name, (method, r) in group.items() if method != DENSE]
    if len(others) == 1 and dense:
        name, r = others[0]
        smaller = dense["bytes"] / r["bytes"] if dense.get("bytes") and r.get("bytes") else None
        size = f" at {smaller:.2f} times fewer bytes" if smaller else ""
        return f"{name}: {r[metric]['value']:.4g} instead of {dense[metric]['value']:.4g}{size}."
    signs = -1 if metric in LOWER else 1
    points = [pareto.Point(n, r["bytes"], signs * r[metric]["value"]) for n, r in others if r.get("bytes")]
    best = [p.method for p in pareto.best(points)]
    listed = ", ".join(best[:4]) + (f" and {len(best) - 4} more" if len(best) > 4 else "")
    return counted(len(others), "model") + (f"; none is smaller and better than {listed}." if best else ".")


def _no_faster(group: dict[str, tuple[str, Json]]) -> str:
    """The models whose middle half of times overlaps that of the dense model, by name."""
    times = [(method, name, r["latency_seconds"]) for name, (method, r) in group.items() if r.get("latency_seconds")]
    dense = next((speed for method, _, speed in times if method == DENSE), None)
    others = [(name, speed) for method, name, speed in times if method != DENSE]
    alike = [name for name, speed in others if dense and speed["q1"] <= dense["q3"] and dense["q1"] <= speed["q3"]]
    return ", ".join(Path(name).name for name in alike)


def _figure(group: dict[str, tuple[str, Json]], metric: str, cost: Any) -> Json:
    what = "size" if cost == "megabytes" else "latency"
    title = metric.replace("_", " ").capitalize()
    bars = (
        "upright bars are 95 % intervals, level ones quartiles" if cost == "milliseconds" else "bars are 95 % intervals"
    )
    caption = f"{title} and {what}; {bars}, the dashed line is the Pareto front."
    if cost == "milliseconds" and (alike := _no_faster(group)):
        caption += f" Quartiles of {alike} overlap those of the dense model: it is not shown to be faster or slower."
    chart = pareto_chart(list(group.values()), metric, cost)
    return {"chart": chart, "caption": caption, "alt": f"{caption} The table below holds every figure."}
