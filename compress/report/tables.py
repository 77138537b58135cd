"""Evaluations and sweeps as tables for people."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from compress.evaluation import pareto
from compress.evaluation.metrics import METRICS

KNOWN = {metric for names in METRICS.values() for metric in names}


def evaluations(results: Sequence[Mapping[str, Any]]) -> str:
    """One row a model, the baseline first; ends with a line break."""
    baseline = results[0].get("baseline")
    rows = [*([baseline] if baseline else []), *results]
    metric = next(k for k in rows[0] if k in KNOWN)
    heads = ["model", f"{metric} (95 %)", *(["change (95 %)"] if baseline else []), "MB"]
    heads += ["times smaller"] if baseline else []
    leaving = any("mean_depth" in r for r in rows)
    heads += ["mean depth"] if leaving else []
    heads += ["parameters", "MFLOPs", "latency ms", "memory MB", "compressed in s"]
    energy = any(r.get("energy_joules_estimate") for r in rows)
    heads += [*(["energy J (estimate)"] if energy else []), *(["helps"] if baseline else [])]
    grid = Table(*heads, box=None, pad_edge=False)
    for r in rows:
        cells = [r["model"], interval(r[metric])]
        if baseline:
            change = next((v for k, v in r.items() if k.endswith("_change") or k == "loss_change_nats"), None)
            cells.append(interval(change, "+.3f") if change else "-")
        cells.append(f"{r['bytes'] / 1e6:.2f}" if r["bytes"] else "-")
        if baseline:
            sizes = r["bytes"], baseline["bytes"]
            cells.append(f"{sizes[1] / sizes[0]:.2f}" if all(sizes) else "-")
        if leaving:
            cells.append(f"{r.get('mean_depth', 1.0):.2f}")
        speed = r["latency_seconds"]
        cells += [f"{r['parameters']:,}", f"{r['flops'] / 1e6:,.0f}" if r["flops"] else "-"]
        cells.append(f"{1e3 * speed['median']:.1f} ({1e3 * speed['q1']:.1f} to {1e3 * speed['q3']:.1f})")
        cells.append(f"{r['peak_memory_bytes'] / 1e6:,.0f}" if r["peak_memory_bytes"] else "-")
        cells.append(f"{r['compression_seconds']:.0f}" if r["compression_seconds"] is not None else "-")
        if energy:
            cells.append(f"{r['energy_joules_estimate']:.3g}" if r.get("energy_joules_estimate") else "-")
        grid.add_row(*cells, *([r.get("helps", "")] if baseline else []))
    text = _text(grid)
    if baseline and baseline["bytes"]:
        points = [pareto.point("", baseline, r, metric) for r in results if r["bytes"]]
        text += f"area under their accuracy-size front: {pareto.area(points):.3f} (dense alone 0, at best 1)\n"
    return text


def sweep(found: Mapping[str, Any]) -> str:
    """One row a model, by size; * marks the front; ends with a line break."""
    metric, before = found["metric"], found["before"]
    grid = Table("", "method", "options", f"{metric} (95 %)", "MB", "times smaller", "s", box=None, pad_edge=False)
    grid.add_row("", "dense", "", interval(before[metric]), f"{before['bytes'] / 1e6:.2f}", "1.00", "")
    for r in sorted((r for r in found["rows"] if "error" not in r), key=lambda r: -r["after"]["bytes"]):
        size = r["after"]["bytes"]
        options = " ".join(f"{k}={v}" for k, v in r["options"].items())
        sizes = f"{size / 1e6:.2f}", f"{before['bytes'] / size:.2f}", f"{r['seconds']:.1f}"
        grid.add_row("*" if r["front"] else "", r["method"], options, interval(r["after"][metric]), *sizes)
    areas = ", ".join(f"{m} {a:.3f}" for m, a in sorted(found["areas"].items(), key=lambda item: -item[1]))
    lines = f"area under the accuracy-size front: {found['area']:.3f}; by method: {areas}\n"
    for r in found["rows"]:
        if "error" in r:
            lines += f"{r['method']} {r['options']}: {r['error']}\n"
    return _text(grid) + lines


def interval(estimate: Mapping[str, Any], shape: str = ".4g") -> str:
    """A value with its interval."""
    return f"{estimate['value']:{shape}} ({estimate['ci_low']:{shape}} to {estimate['ci_high']:{shape}})"


def _text(grid: Table) -> str:
    out = io.StringIO()
    Console(file=out, width=400).print(grid)
    return "".join(line.rstrip() + "\n" for line in out.getvalue().splitlines())
