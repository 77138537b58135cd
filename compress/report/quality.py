"""What models reach at which size and speed: every model that was measured by one metric on one file."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compress.evaluation import pareto
from compress.evaluation.metrics import METRICS
from compress.evaluation.pareto import DENSE
from compress.report.inputs import Folder, Inputs, Json
from compress.report.tables import interval

KNOWN = tuple(dict.fromkeys(metric for names in METRICS.values() for metric in names))
HEADS = {
    "MB": lambda r: f"{r['bytes'] / 1e6:.2f}" if r.get("bytes") else "",
    "parameters": lambda r: f"{r['parameters']:,}" if r.get("parameters") else "",
    "MFLOPs": lambda r: f"{r['flops'] / 1e6:,.0f}" if r.get("flops") else "",
    "latency, ms (quartiles)": lambda r: _latency(r["latency_seconds"]) if r.get("latency_seconds") else "",
    "peak memory, MB": lambda r: f"{r['peak_memory_bytes'] / 1e6:,.0f}" if r.get("peak_memory_bytes") else "",
    "compressed in, s": lambda r: f"{r['compression_seconds']:.0f}" if r.get("compression_seconds") else "",
    "energy, J (estimate)": lambda r: f"{r['energy_joules_estimate']:.3g}" if r.get("energy_joules_estimate") else "",
    "helps": lambda r: r.get("helps", ""),
}


def sections(found: Inputs) -> list[Json]:
    """A section for every (metric, data file) of the results and sweeps."""
    groups: dict[tuple[str, str], dict[str, tuple[str, Json]]] = defaultdict(dict)
    commands: dict[tuple[str, str], list[str | None]] = defaultdict(list)
    for result in found.results:
        metric = next((m for m in KNOWN if m in result), None)
        if metric is None:
            raise ValueError(f"the result of {result['model']} has none of the metrics {', '.join(KNOWN)}")
        key = metric, str(result["data"])
        group = groups[key]
        commands[key].append(result.get("command"))
        if result.get("baseline"):
            group[result["baseline"]["model"]] = DENSE, result["baseline"]
        steps = result.get("steps") or next((f.card["steps"] for f in found.folders if is_of(result, f)), [])
        method = " + ".join(step["method"] for step in steps)
        group[result["model"]] = method or Path(result["model"]).name, result
    for sweep in found.sweeps:
        key = sweep["metric"], str(sweep["data"])
        group = groups[key]
        commands[key].append(sweep.get("command"))
        group.setdefault(sweep["model"], (DENSE, {"model": sweep["model"], **sweep["before"]}))
        for row in (r for r in sweep["rows"] if "error" not in r):
            name = f"{row['method']} {options(row)}".strip()
            group[name] = row["method"], {**row["after"], "compression_seconds": row["seconds"]}
    return [_section(*key, group) | {"commands": commands[key]} for key, group in groups.items()]


def options(step: Json) -> str:
    """The options of a step in one line."""
    return " ".join(f"{k}={v}" for k, v in step["options"].items())


def is_of(result: Json, folder: Folder) -> bool:
    """Whether a result is of the model in a folder."""
    return Path(result["model"]).resolve() == folder.path.resolve()


def _section(metric: str, data: str, group: dict[str, tuple[str, Json]]) -> Json:
    models = [pareto.measured(method, r, metric) for method, r in group.values()]
    title = metric.replace("_", " ")
    section = {"title": f"{title.capitalize()} and size, {Path(data).name}", "lead": _lead(metric, group), "notes": []}
    section["figures"] = [_figure(models, metric, "megabytes")] if any(m.megabytes for m in models) else []
    if sum(m.milliseconds is not None for m in models) > 1:
        section["figures"].append(_figure(models, metric, "milliseconds"))
    heads = [h for h, cell in HEADS.items() if any(cell(r) for _, r in group.values())]
    changed = {name: _change(r, metric) for name, (_, r) in group.items()}
    rows = []
    for name, (method, r) in sorted(group.items(), key=lambda item: -(item[1][1].get("bytes") or 0)):
        row = [name, "before" if method == DENSE else method, interval(r[metric])]
        rows.append([*row, *([changed[name]] if any(changed.values()) else []), *(HEADS[h](r) for h in heads)])
    paired = ["change (95 %, paired)"] if any(changed.values()) else []
    heads = ["model", "method", f"{title} (95 %)", *paired, *heads]
    section["tables"] = [{"caption": f"Models measured on {data}", "heads": heads, "rows": rows}]
    return section


def _lead(metric: str, group: dict[str, tuple[str, Json]]) -> str:
    dense = next((r for method, r in group.values() if method == DENSE), None)
    others = [(Path(name).name, r) for name, (method, r) in group.items() if method != DENSE]
    if len(others) == 1 and dense:
        name, r = others[0]
        smaller = dense["bytes"] / r["bytes"] if dense.get("bytes") and r.get("bytes") else None
        size = f" at {smaller:.2f} times fewer bytes" if smaller else ""
        return f"{name}: {r[metric]['value']:.4g} instead of {dense[metric]['value']:.4g}{size}."
    signs = -1 if metric == "perplexity" else 1
    points = [pareto.Point(n, r["bytes"], signs * r[metric]["value"]) for n, r in others if r.get("bytes")]
    best = [p.method for p in pareto.best(points)]
    listed = ", ".join(best[:4]) + (f" and {len(best) - 4} more" if len(best) > 4 else "")
    return f"{len(others)} models" + (f"; none is smaller and better than {listed}." if best else ".")


def _figure(models: Sequence[pareto.Measured], metric: str, cost: Any) -> Json:
    what = "size" if cost == "megabytes" else "latency"
    caption = (
        f"{metric.replace('_', ' ').capitalize()} and {what}; bars are 95 % intervals, the dashed line is the front."
    )
    chart = pareto.chart(models, metric, cost)
    return {"chart": chart, "caption": caption, "alt": f"{caption} The table below holds every figure."}


def _latency(speed: Json) -> str:
    return f"{1e3 * speed['median']:.1f} ({1e3 * speed['q1']:.1f} to {1e3 * speed['q3']:.1f})"


def _change(result: Json, metric: str) -> str:
    if f"{metric}_change" in result:
        return interval(result[f"{metric}_change"], "+.3f")
    return interval(result["loss_change_nats"], "+.3f") + " nats" if "loss_change_nats" in result else ""
